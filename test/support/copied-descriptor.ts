/**
 * A copy of another process's descriptor: of the very same open file, with its locks and its socket's options. It stands for
 * what the kernel still has of the file when the process has let go of it.
 */

import koffi from 'koffi'
import { readdirSync, readlinkSync } from 'node:fs'
import { closeDescriptor } from '../../src/posix/descriptor.ts'

const PIDFD_OPEN = 434
const PIDFD_GETFD = 438

const systemCall = koffi.load(null).func('syscall', 'long', ['long', 'int', 'int', 'uint'])

/** Of the one that the kernel shows as a link to there. The caller closes it. */
export function copyDescriptor(pid: number, link: string): number {
  const number = readdirSync(`/proc/${pid}/fd`).find((entry) => linkOf(pid, entry) === link)
  if (number === undefined) throw new Error(`process ${pid} has no descriptor of ${link}`)
  const process = systemCall(PIDFD_OPEN, pid, 0, 0) as number
  const copy = systemCall(PIDFD_GETFD, process, Number(number), 0) as number
  closeDescriptor(process)
  if (copy < 0) throw new Error(`descriptor ${number} of process ${pid} cannot be copied`)
  return copy
}

function linkOf(pid: number, entry: string): string {
  try {
    return readlinkSync(`/proc/${pid}/fd/${entry}`)
  } catch {
    // Closed since the directory was read.
    return ''
  }
}
