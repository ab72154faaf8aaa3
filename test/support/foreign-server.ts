/**
 * Other people's NBD servers over an image, run beside interlockd by tests whose rig must be seen to notice the failure
 * that interlockd does not have.
 */

import { existsSync } from 'node:fs'
import { join } from 'node:path'
import { startProgram } from './foreign-program.ts'
import type { Program } from './foreign-program.ts'
import type { ServerAddress } from './nbd-frontend.ts'
import type { Scratch } from './scratch.ts'

export interface ForeignServer {
  readonly program: Program
  readonly address: ServerAddress
  /** Of its socket. */
  readonly path: string
  uri(exportName: string): string
}

/**
 * qemu-nbd. `directsync`, durable and uncached writes, is the mode in which it promises most. Without its locks two of
 * them can have one image, as two hosts do.
 */
export async function startQemuNbd(
  scratch: Scratch,
  image: string,
  exportName: string,
  cache: 'directsync' | 'none' = 'directsync',
  { locking = true }: { readonly locking?: boolean } = {},
): Promise<ForeignServer> {
  const path = join(scratch.directory('qemu-nbd'), 'nbd.sock')
  const unlocked = locking ? '' : ',file.locking=off'
  const program = startProgram(scratch, 'qemu-nbd', [
    ...[`--cache=${cache}`, '--discard=unmap', '--persistent', '--shared=16', '--export-name', exportName],
    ...['--socket', path, '--image-opts', `driver=raw,file.driver=file,file.filename=${image}${unlocked}`],
  ])
  await program.until('socket of qemu-nbd', 30_000, () => existsSync(path))
  return { program, path, address: { path }, uri: (name) => `nbd+unix:///${name}?socket=${path}` }
}
