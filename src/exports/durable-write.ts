/**
 * Where O_DSYNC is believed. A synchronous pwrite is followed by a flush on every file system. An asynchronous direct write
 * is not: FUSE completes it with nothing flushed (seen with a disk that logs its flushes and then loses its power), because
 * the flush belongs to the path that waits. So with io_uring the flag is believed only where the file system is known to
 * flush from its completion; everywhere else an fdatasync follows each write before it is answered.
 */

/** By the names of `posix/file-system.ts`; "block device" is the device itself. */
const FLUSHES_ASYNCHRONOUSLY: ReadonlySet<string> = new Set(['block device', 'ext4', 'xfs', 'btrfs'])

export function needsSyncAfterWrite(engine: 'io_uring' | 'file', fileSystem: string): boolean {
  return engine === 'io_uring' && !FLUSHES_ASYNCHRONOUSLY.has(fileSystem)
}
