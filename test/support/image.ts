/**
 * Raw images for tests, whose every block says which one it is, so that what is misplaced shows. Written in full: sparse
 * extents behave differently.
 */

import { closeSync, openSync, writeSync } from 'node:fs'
import { join } from 'node:path'
import type { Scratch } from './scratch.ts'

export const MEBIBYTE = 1024 * 1024
const BLOCK_BYTES = 4_096

/** An image in a directory of its own, gone with the scratch. Block n holds the number n (or zeros) throughout. */
export function makeImage(scratch: Scratch, sizeBytes: number, content: 'numbered' | 'zero' = 'zero'): string {
  const path = join(scratch.directory('image'), 'vda.raw')
  const part = Buffer.alloc(MEBIBYTE)
  const file = openSync(path, 'wx')
  try {
    for (let offset = 0; offset < sizeBytes; offset += part.length) {
      if (content === 'numbered') {
        for (let position = 0; position < part.length; position += 8) {
          part.writeBigUInt64LE(BigInt(Math.floor((offset + position) / BLOCK_BYTES)), position)
        }
      }
      writeSync(file, part, 0, Math.min(part.length, sizeBytes - offset), offset)
    }
  } finally {
    closeSync(file)
  }
  return path
}
