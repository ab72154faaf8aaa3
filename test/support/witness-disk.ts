/**
 * A disk that behaves as badly as a test wants, with an independent log: nbdkit (filters log, delay, error, cache) under
 * nbdfuse, which makes an ordinary file path of it. O_DIRECT, O_DSYNC, fcntl locks, fallocate and io_uring work on it.
 *
 * Its blind spot: the kernel's inode lock serialises writes to one file through FUSE, and nbdfuse sends nothing while it
 * waits for an answer, so this disk never shows two overlapping writes at once, and nobody can open or read its path while
 * a write is in it. It proves "closed only after the flush", and what failing and losing power do. What orphans do needs
 * the parallel witness.
 */

import { closeSync, mkdirSync, openSync, rmSync, truncateSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { runChecked, runProgram, startProgram } from './foreign-program.ts'
import type { Program } from './foreign-program.ts'
import type { Scratch } from './scratch.ts'
import { WitnessLog } from './witness-log.ts'

export interface WitnessDiskOptions {
  readonly sizeBytes?: number
  /** How long each write, zero and trim takes. */
  readonly writeDelayMs?: number
  readonly readDelayMs?: number
  /** What `failWrites` answers. */
  readonly writeError?: 'EIO' | 'ENOSPC'
  /** Keeps what was not flushed in memory only, so that `cutPower` loses it. */
  readonly volatileCache?: boolean
  /**
   * Lets `failFlushes` and `holdWrites` work. The disk is then made of shell scripts: a few milliseconds for each request.
   */
  readonly scripted?: boolean
  /** An image made before, such as the one of a disk that lost its power. Without it an empty one is made. */
  readonly backingPath?: string
}

export interface WitnessDisk {
  /** The image, as a daemon should be given it. */
  readonly path: string
  /** The bytes that the disk keeps: what survives a power cut. */
  readonly backingPath: string
  readonly log: WitnessLog
  /** From now on every write, zero and trim ends with the error; or no longer. */
  failWrites(failing: boolean): void
  failFlushes(failing: boolean): void
  /** Writes stay in the disk until they are let go of: no clock decides how long. */
  holdWrites(holding: boolean): void
  /**
   * The disk answers nothing until it is let go on. Not even SIGKILL ends a process that waits for it, so whoever stops it
   * sees to it that it goes on before that process is ended.
   */
  freeze(frozen: boolean): void
  /** kill -9 of the disk: what its cache held is gone, and everything fails from now on. */
  cutPower(): Promise<void>
  /** A loop device over the image, gone with the scratch. */
  attachLoop(): Promise<string>
}

const DEFAULT_SIZE_BYTES = 64 * 1024 * 1024

export async function startWitnessDisk(scratch: Scratch, options: WitnessDiskOptions = {}): Promise<WitnessDisk> {
  const directory = scratch.directory('witness')
  const backingPath =
    options.backingPath ?? createImage(join(directory, 'back.raw'), options.sizeBytes ?? DEFAULT_SIZE_BYTES)
  const socketPath = join(directory, 'disk.sock')
  const log = new WitnessLog(join(directory, 'witness.log'))
  const writeTrigger = join(directory, 'fail-writes')
  const flushTrigger = join(directory, 'fail-flushes')
  const holdTrigger = join(directory, 'hold-writes')
  const disk = startProgram(scratch, 'nbdkit', [
    ...['-f', '-U', socketPath, '--filter=log', '--filter=delay', '--filter=error'],
    ...(options.volatileCache === true ? ['--filter=cache'] : []),
    ...(options.scripted === true ? scriptedPlugin(backingPath, flushTrigger, holdTrigger) : ['file', backingPath]),
    ...(options.volatileCache === true ? ['cache=writeback'] : []),
    ...['write', 'zero', 'trim'].flatMap((what) => {
      const parameter = `error-${what === 'write' ? 'pwrite' : what}`
      return [
        `${parameter}=${options.writeError ?? 'EIO'}`,
        `${parameter}-rate=100%`,
        `${parameter}-file=${writeTrigger}`,
      ]
    }),
    `wdelay=${options.writeDelayMs ?? 0}ms`,
    `rdelay=${options.readDelayMs ?? 0}ms`,
    `logfile=${log.path}`,
  ])
  const mountPath = join(directory, 'mount')
  mkdirSync(mountPath)
  await disk.until('socket of nbdkit', 30_000, () => exists(socketPath))
  const path = await mountDisk(scratch, mountPath, socketPath, disk)
  return {
    path,
    backingPath,
    log,
    failWrites: (failing) => {
      trigger(writeTrigger, failing)
    },
    failFlushes: (failing) => {
      if (options.scripted !== true) throw new Error('this witness disk was not made to fail flushes')
      trigger(flushTrigger, failing)
    },
    holdWrites: (holding) => {
      if (options.scripted !== true) throw new Error('this witness disk was not made to hold writes')
      // Whoever waits for the write cannot be killed, so it must be let go of before that is tried.
      if (holding)
        scratch.defer('a held write', () => {
          trigger(holdTrigger, false)
        })
      trigger(holdTrigger, holding)
    },
    freeze: (frozen) => {
      disk.signal(frozen ? 'SIGSTOP' : 'SIGCONT')
    },
    cutPower: async () => {
      await disk.stop('SIGKILL')
    },
    attachLoop: async () => {
      const { stdout } = await runChecked('losetup', ['--find', '--show', '--direct-io=on', path])
      const device = stdout.trim()
      scratch.defer(`loop device ${device}`, async () => {
        await runProgram('losetup', ['--detach', device])
      })
      return device
    },
  }
}

async function mountDisk(scratch: Scratch, mountPath: string, socketPath: string, disk: Program): Promise<string> {
  const bridge = startProgram(scratch, 'nbdfuse', [mountPath, '--unix', socketPath])
  scratch.defer(`mount ${mountPath}`, async () => {
    const polite = await runProgram('fusermount3', ['-u', mountPath])
    if (polite.status !== 0) await runProgram('fusermount3', ['-u', '-z', mountPath])
    await bridge.stop('SIGKILL', 0)
  })
  const path = join(mountPath, 'nbd')
  await bridge.until('mount of nbdfuse', 30_000, () => disk.running && exists(path))
  return path
}

/** nbdkit's file plugin cannot fail a flush or hold a write; its eval plugin does what a script says, by files that exist. */
export function scriptedPlugin(backingPath: string, flushTrigger: string, holdTrigger: string): string[] {
  const file = `'${backingPath}'`
  return [
    'eval',
    `get_size=stat -c %s ${file}`,
    'can_write=exit 0',
    'can_flush=exit 0',
    'can_fua=echo emulate',
    'thread_model=echo parallel',
    `pread=dd if=${file} skip=$4 count=$3 iflag=skip_bytes,count_bytes bs=1M status=none`,
    `pwrite=while test -e '${holdTrigger}'; do sleep 0.1; done; dd of=${file} seek=$4 oflag=seek_bytes conv=notrunc bs=1M iflag=fullblock status=none`,
    `flush=if test -e '${flushTrigger}'; then echo EIO the flush was told to fail >&2; exit 1; fi`,
  ]
}

function createImage(path: string, sizeBytes: number): string {
  closeSync(openSync(path, 'wx'))
  truncateSync(path, sizeBytes)
  return path
}

function trigger(path: string, present: boolean): void {
  if (present) writeFileSync(path, '')
  else rmSync(path, { force: true })
}

function exists(path: string): boolean {
  try {
    closeSync(openSync(path, 'r'))
    return true
  } catch (error) {
    // A socket exists but cannot be opened as a file.
    return (error as NodeJS.ErrnoException).code === 'ENXIO'
  }
}
