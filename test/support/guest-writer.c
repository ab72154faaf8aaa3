/*
 * The guest of the live migrations: writes to its disks all the time and checks all the time that they hold what it wrote.
 * A static program, so that it is the whole user land of its machine. Usage: guest-writer PORT DEVICE...
 *
 * Each block of 4 KiB says which one it is and carries the sequence number of its last write. A thread owns blocks of its
 * own, so what an acknowledged write left there is known exactly: the table of those numbers is in the guest's memory, and
 * moves with it. A block that holds anything else, older or newer, is bad. I/O is direct; nothing is cached here.
 *
 * Commands come as lines on PORT (a serial one), and each is answered by one line:
 *   depth N    so many threads for each device work from now on     "depth N"
 *   count      what happened so far                                 "count WRITES READS BAD ERRORS"
 *   check      every block is read and compared, with nothing else going on   "checked BLOCKS BAD ERRORS"
 */

#define _GNU_SOURCE
#include <fcntl.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

enum { BLOCK_BYTES = 4096, WORDS = BLOCK_BYTES / 8, BLOCKS = 512, DEPTH_MAX = 16, DEVICES_MAX = 4, BAD_TOLD_MAX = 20 };

struct worker {
  pthread_t thread;
  int device;
  int index;
};

static int port;
static int device_count;
static int descriptors[DEVICES_MAX];
/* The number of the last acknowledged write, and of the last attempted one: they differ after a failed write. */
static uint64_t acknowledged[DEVICES_MAX][BLOCKS];
static uint64_t attempted[DEVICES_MAX][BLOCKS];

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t changed = PTHREAD_COND_INITIALIZER;
static int depth;
static int busy;

static uint64_t writes, reads, bad, errors;

static void say(const char *format, ...) {
  char line[200];
  va_list values;
  va_start(values, format);
  int length = vsnprintf(line, sizeof line, format, values);
  va_end(values);
  if (write(port, line, (size_t)length) != length) abort();
}

/* splitmix64 */
static uint64_t random_of(uint64_t *state) {
  uint64_t z = (*state += 0x9e3779b97f4a7c15u);
  z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
  z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
  return z ^ (z >> 31);
}

static uint64_t place_of(int device, int block) {
  return (uint64_t)(device + 1) << 32 | (uint64_t)block;
}

static void check_block(int device, int block, uint64_t *memory) {
  if (pread(descriptors[device], memory, BLOCK_BYTES, (off_t)block * BLOCK_BYTES) != BLOCK_BYTES) {
    __atomic_add_fetch(&errors, 1, __ATOMIC_RELAXED);
    return;
  }
  __atomic_add_fetch(&reads, 1, __ATOMIC_RELAXED);
  uint64_t found = memory[0];
  int right = found == acknowledged[device][block] || found == attempted[device][block];
  for (int word = 0; right && word < WORDS; word += 2) {
    right = memory[word] == found && memory[word + 1] == (found == 0 ? 0 : place_of(device, block));
  }
  if (right) return;
  if (__atomic_add_fetch(&bad, 1, __ATOMIC_RELAXED) > BAD_TOLD_MAX) return;
  say("bad: device %d block %d holds %llu at %llx and should hold %llu\n", device, block, (unsigned long long)found,
      (unsigned long long)memory[1], (unsigned long long)acknowledged[device][block]);
}

static void write_block(int device, int block, uint64_t *memory) {
  uint64_t number = attempted[device][block] + 1;
  for (int word = 0; word < WORDS; word += 2) {
    memory[word] = number;
    memory[word + 1] = place_of(device, block);
  }
  attempted[device][block] = number;
  if (pwrite(descriptors[device], memory, BLOCK_BYTES, (off_t)block * BLOCK_BYTES) != BLOCK_BYTES) {
    __atomic_add_fetch(&errors, 1, __ATOMIC_RELAXED);
    return;
  }
  acknowledged[device][block] = number;
  __atomic_add_fetch(&writes, 1, __ATOMIC_RELAXED);
}

static void enter(const struct worker *self) {
  pthread_mutex_lock(&lock);
  while (self->index >= depth) pthread_cond_wait(&changed, &lock);
  busy += 1;
  pthread_mutex_unlock(&lock);
}

static void leave(void) {
  pthread_mutex_lock(&lock);
  busy -= 1;
  pthread_cond_broadcast(&changed);
  pthread_mutex_unlock(&lock);
}

static void *work(void *argument) {
  const struct worker *self = argument;
  /* So that an emulated processor is not all that happens on the host. */
  const struct timespec pause = {0, 2000000};
  uint64_t state = (uint64_t)(self->device * DEPTH_MAX + self->index);
  uint64_t *memory = aligned_alloc(BLOCK_BYTES, BLOCK_BYTES);
  if (memory == NULL) abort();
  for (;;) {
    uint64_t dice = random_of(&state);
    int block = self->index + DEPTH_MAX * (int)(dice % (BLOCKS / DEPTH_MAX));
    enter(self);
    if ((dice >> 32) % 4 == 0) check_block(self->device, block, memory);
    else write_block(self->device, block, memory);
    if ((dice >> 40) % 128 == 0 && fdatasync(descriptors[self->device]) != 0) {
      __atomic_add_fetch(&errors, 1, __ATOMIC_RELAXED);
    }
    leave();
    nanosleep(&pause, NULL);
  }
  return NULL;
}

static int set_depth(int wanted) {
  pthread_mutex_lock(&lock);
  int before = depth;
  depth = wanted;
  pthread_cond_broadcast(&changed);
  pthread_mutex_unlock(&lock);
  return before;
}

static void check_everything(void) {
  uint64_t *memory = aligned_alloc(BLOCK_BYTES, BLOCK_BYTES);
  int before = set_depth(0);
  pthread_mutex_lock(&lock);
  while (busy > 0) pthread_cond_wait(&changed, &lock);
  pthread_mutex_unlock(&lock);
  for (int device = 0; device < device_count; device += 1) {
    for (int block = 0; block < BLOCKS; block += 1) check_block(device, block, memory);
  }
  set_depth(before);
  free(memory);
  say("checked %d %llu %llu\n", device_count * BLOCKS, (unsigned long long)bad, (unsigned long long)errors);
}

static void obey(const char *line) {
  int wanted;
  if (sscanf(line, "depth %d", &wanted) == 1 && wanted >= 0 && wanted <= DEPTH_MAX) {
    set_depth(wanted);
    say("depth %d\n", wanted);
  } else if (strcmp(line, "count") == 0) {
    say("count %llu %llu %llu %llu\n", (unsigned long long)writes, (unsigned long long)reads, (unsigned long long)bad,
        (unsigned long long)errors);
  } else if (strcmp(line, "check") == 0) {
    check_everything();
  } else {
    say("unknown: %s\n", line);
  }
}

int main(int count, char **arguments) {
  if (count < 3 || count > 2 + DEVICES_MAX) return 2;
  port = open(arguments[1], O_RDWR | O_NOCTTY);
  if (port < 0) return 3;
  device_count = count - 2;
  static struct worker workers[DEVICES_MAX * DEPTH_MAX];
  for (int device = 0; device < device_count; device += 1) {
    descriptors[device] = open(arguments[2 + device], O_RDWR | O_DIRECT);
    if (descriptors[device] < 0) {
      say("cannot open %s\n", arguments[2 + device]);
      return 4;
    }
    for (int index = 0; index < DEPTH_MAX; index += 1) {
      struct worker *worker = &workers[device * DEPTH_MAX + index];
      worker->device = device;
      worker->index = index;
      if (pthread_create(&worker->thread, NULL, work, worker) != 0) return 5;
    }
  }
  say("ready\n");
  char line[100];
  size_t length = 0;
  char byte;
  while (read(port, &byte, 1) == 1) {
    if (byte != '\n') {
      if (length < sizeof line - 1) line[length++] = byte;
      continue;
    }
    line[length] = 0;
    length = 0;
    obey(line);
  }
  return 0;
}
