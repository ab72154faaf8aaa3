/** A file system of its own, on which everything that writes waits while it is frozen; reads go on. */

import { mkdirSync } from 'node:fs'
import { join } from 'node:path'
import { runChecked, runProgram } from '../support/foreign-program.ts'
import { makeImage, MEBIBYTE } from '../support/image.ts'
import type { Scratch } from '../support/scratch.ts'

export interface Freezable {
  readonly path: string
  freeze(frozen: boolean): Promise<void>
}

export async function mountFreezable(scratch: Scratch): Promise<Freezable> {
  const folder = scratch.directory('frozen')
  const path = join(folder, 'mount')
  const back = makeImage(scratch, 16 * MEBIBYTE)
  mkdirSync(path)
  await runChecked('mkfs.ext4', ['-q', back])
  await runChecked('mount', ['-o', 'loop', back, path])
  scratch.defer(`mount ${path}`, async () => {
    await runProgram('umount', ['--lazy', path])
  })
  return {
    path,
    freeze: async (frozen) => {
      await runChecked('fsfreeze', [frozen ? '--freeze' : '--unfreeze', path])
    },
  }
}
