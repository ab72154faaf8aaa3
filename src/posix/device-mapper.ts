/**
 * What a device-mapper device is made of, by DM_TABLE_STATUS on /dev/mapper/control: the targets and what each says of
 * its state. It asks for the status, never for the table (a table can hold a key), and with DM_NOFLUSH_FLAG, so that
 * asking commits nothing.
 */

import { closeDescriptor } from './descriptor.ts'
import { ERRNO } from './errno.ts'
import { OPEN, openFile } from './file.ts'
import { libc, outcome } from './libc.ts'

const DM_TABLE_STATUS = 0xc138fd0c
const HEADER_BYTES = 312
const TARGET_BYTES = 40
const ANSWER_BYTES = 65_536
const NOFLUSH = 1 << 11
const BUFFER_FULL = 1 << 8
const CONTROL = '/dev/mapper/control'

export interface MapperTarget {
  readonly type: string
  readonly status: string
}

/** The targets of the live table, or -errno (-EACCES for those who are not root, -E2BIG where there are too many). */
export function mapperTargets(major: number, minor: number): readonly MapperTarget[] | number {
  const descriptor = openFile(CONTROL, OPEN.readWrite)
  if (descriptor < 0) return descriptor
  const memory = new Uint8Array(ANSWER_BYTES)
  const view = new DataView(memory.buffer)
  view.setUint32(0, 4, true)
  view.setUint32(12, ANSWER_BYTES, true)
  view.setUint32(16, HEADER_BYTES, true)
  view.setUint32(28, NOFLUSH, true)
  // As the kernel unpacks it: the low byte and the high bits of the minor around the major.
  view.setBigUint64(40, BigInt(((minor & 0xff) | (major << 8) | ((minor & ~0xff) << 12)) >>> 0), true)
  const result = outcome(libc.ioctl(descriptor, DM_TABLE_STATUS, memory))
  closeDescriptor(descriptor)
  if (result < 0) return result
  if ((view.getUint32(28, true) & BUFFER_FULL) !== 0) return -ERRNO.E2BIG
  return readTargets(memory, view)
}

function readTargets(memory: Uint8Array, view: DataView): MapperTarget[] {
  const dataStart = view.getUint32(16, true)
  const count = view.getUint32(20, true)
  const targets: MapperTarget[] = []
  let base = dataStart
  for (let index = 0; index < count && base + TARGET_BYTES <= memory.length; index += 1) {
    const type = textAt(memory, base + 24, 16)
    const status = textAt(memory, base + TARGET_BYTES, memory.length - base - TARGET_BYTES)
    targets.push({ type, status })
    base = dataStart + view.getUint32(base + 20, true)
  }
  return targets
}

function textAt(memory: Uint8Array, start: number, lengthBytesMax: number): string {
  const bytes = memory.subarray(start, start + lengthBytesMax)
  const end = bytes.indexOf(0)
  return Buffer.from(end < 0 ? bytes : bytes.subarray(0, end)).toString('utf8')
}
