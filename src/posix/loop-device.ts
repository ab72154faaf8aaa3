/**
 * Which file a loop device is made of, by LOOP_GET_STATUS64: device and inode, so that the path that sysfs gives can be
 * checked. It only asks; it needs an open descriptor and no privilege.
 */

import { libc, outcome } from './libc.ts'

const LOOP_GET_STATUS64 = 0x4c05
const LOOP_INFO_BYTES = 232

export interface LoopBacking {
  /** 'major:minor' of the file system that the file is on. */
  readonly device: string
  readonly inodeText: string
}

const info = new Uint8Array(LOOP_INFO_BYTES)
const view = new DataView(info.buffer)

/** -ENXIO where nothing is attached; another -errno. */
export function loopBacking(descriptor: number): LoopBacking | number {
  const result = outcome(libc.ioctl(descriptor, LOOP_GET_STATUS64, info))
  if (result < 0) return result
  return { device: deviceNumber(view.getBigUint64(0, true)), inodeText: view.getBigUint64(8, true).toString() }
}

/** 'major:minor' of a device number as the kernel packs it into 64 bits for user land. */
export function deviceNumber(packed: bigint): string {
  const major = ((packed >> 8n) & 0xfffn) | ((packed >> 32n) & 0xffff_f000n)
  const minor = (packed & 0xffn) | ((packed >> 12n) & 0xffff_ff00n)
  return `${major}:${minor}`
}
