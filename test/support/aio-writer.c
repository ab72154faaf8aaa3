/*
 * A guest's writer that keeps many writes in flight by AIO, so that the guest can be frozen with all of them unanswered:
 * a thread that blocks in pwrite would have to wake up first. A static program.
 *
 * Every block of 4 KiB that it writes holds one number throughout; blocks lie 64 KiB apart, so that nothing joins their
 * writes. Commands come as lines on standard input; each runs in a process of its own, so that one may wait for its disk
 * while others are obeyed. What they say are single lines.
 *
 *   write DEVICE FIRST COUNT NUMBER...   COUNT writes of the number at once, from block FIRST on; as soon as all of them are
 *                                        answered, the same blocks with the next number:
 *                                        "DEVICE submitted FIRST NUMBER", "DEVICE answered FIRST NUMBER ERRORS"
 *   read DEVICE FIRST COUNT              the numbers that the blocks hold: "DEVICE holds FIRST NUMBER..."
 */

#define _GNU_SOURCE
#include <fcntl.h>
#include <linux/aio_abi.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

enum { BLOCK_BYTES = 4096, WORDS = BLOCK_BYTES / 8, APART_BYTES = 65536, COUNT_MAX = 32, LINE_BYTES = 512 };

static void say(const char *line) {
  size_t length = strlen(line);
  if (write(STDOUT_FILENO, line, length) != (ssize_t)length) abort();
}

static uint64_t *new_block(uint64_t number) {
  uint64_t *block = aligned_alloc(BLOCK_BYTES, BLOCK_BYTES);
  if (block == NULL) abort();
  for (int word = 0; word < WORDS; word += 1) block[word] = number;
  return block;
}

static void write_blocks(const char *device, int descriptor, int first, int count, uint64_t number) {
  char line[LINE_BYTES];
  aio_context_t context = 0;
  struct iocb requests[COUNT_MAX];
  struct iocb *list[COUNT_MAX];
  struct io_event events[COUNT_MAX];
  uint64_t *block = new_block(number);
  if (syscall(SYS_io_setup, COUNT_MAX, &context) != 0) abort();
  memset(requests, 0, sizeof requests);
  for (int index = 0; index < count; index += 1) {
    requests[index].aio_lio_opcode = IOCB_CMD_PWRITE;
    requests[index].aio_fildes = (uint32_t)descriptor;
    requests[index].aio_buf = (uint64_t)(uintptr_t)block;
    requests[index].aio_nbytes = BLOCK_BYTES;
    requests[index].aio_offset = (int64_t)(first + index) * APART_BYTES;
    list[index] = &requests[index];
  }
  if (syscall(SYS_io_submit, context, (long)count, list) != count) abort();
  snprintf(line, sizeof line, "%s submitted %d %llu\n", device, first, (unsigned long long)number);
  say(line);
  int errors = 0;
  for (int answered = 0; answered < count;) {
    long some = syscall(SYS_io_getevents, context, 1L, (long)count, events, NULL);
    for (long index = 0; index < some; index += 1) errors += events[index].res != BLOCK_BYTES;
    if (some > 0) answered += (int)some;
  }
  snprintf(line, sizeof line, "%s answered %d %llu %d\n", device, first, (unsigned long long)number, errors);
  say(line);
}

static void read_blocks(const char *device, int descriptor, int first, int count) {
  char line[LINE_BYTES];
  int length = snprintf(line, sizeof line, "%s holds %d", device, first);
  uint64_t *block = new_block(0);
  for (int index = first; index < first + count; index += 1) {
    int whole = pread(descriptor, block, BLOCK_BYTES, (off_t)index * APART_BYTES) == BLOCK_BYTES;
    for (int word = 1; word < WORDS; word += 1) whole = whole && block[word] == block[0];
    if (whole) length += snprintf(line + length, sizeof line - length, " %llu", (unsigned long long)block[0]);
    else length += snprintf(line + length, sizeof line - length, " torn");
  }
  snprintf(line + length, sizeof line - length, "\n");
  say(line);
}

static void obey(const char *line) {
  char verb[8], device[32], path[40];
  int first, count, end;
  if (sscanf(line, "%7s %31s %d %d%n", verb, device, &first, &count, &end) != 4 || count < 1 || count > COUNT_MAX) {
    say("not understood\n");
    return;
  }
  if (fork() != 0) return;
  snprintf(path, sizeof path, "/dev/%s", device);
  int descriptor = open(path, O_RDWR | O_DIRECT);
  if (descriptor < 0) say("no such device\n");
  else if (strcmp(verb, "read") == 0) read_blocks(device, descriptor, first, count);
  else if (strcmp(verb, "write") == 0) {
    unsigned long long number;
    int length;
    for (line += end; sscanf(line, "%llu%n", &number, &length) == 1; line += length) {
      write_blocks(device, descriptor, first, count, number);
    }
  }
  _exit(0);
}

int main(void) {
  char line[LINE_BYTES];
  signal(SIGCHLD, SIG_IGN);
  say("writer ready\n");
  while (fgets(line, sizeof line, stdin) != NULL) obey(line);
  return 0;
}
