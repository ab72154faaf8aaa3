/**
 * What a virtual machine of the tests boots into: busybox, the drivers it needs with the order in which to load them, an
 * init of the caller's, and whatever else he lays beside it before it is packed.
 */

import { chmodSync, copyFileSync, mkdirSync, writeFileSync } from 'node:fs'
import { basename, join } from 'node:path'
import { moduleClosure } from './debian-kernel.ts'
import type { DebianKernel } from './debian-kernel.ts'
import { runChecked } from './foreign-program.ts'

/** A line of an init that loads the modules. */
export const LOAD_MODULES =
  'while read -r module; do /bin/busybox insmod "/modules/$module" || echo "insmod $module failed"; done < /modules/order'

export async function layInitramfs(
  kernel: DebianKernel,
  directory: string,
  modules: readonly string[],
  init: string,
): Promise<void> {
  mkdirSync(join(directory, 'bin'), { recursive: true })
  mkdirSync(join(directory, 'modules'))
  const files = await moduleClosure(kernel, modules)
  for (const file of files) copyFileSync(file, join(directory, 'modules', basename(file)))
  writeFileSync(join(directory, 'modules/order'), files.map((file) => `${basename(file)}\n`).join(''))
  const { stdout: busybox } = await runChecked('sh', ['-c', 'command -v busybox'])
  copyFileSync(busybox.trim(), join(directory, 'bin/busybox'))
  chmodSync(join(directory, 'bin/busybox'), 0o755)
  writeFileSync(join(directory, 'init'), init, { mode: 0o755 })
}

/** Returns the archive's path. */
export async function packInitramfs(directory: string, archive: string): Promise<string> {
  await runChecked('sh', ['-c', 'find . | cpio --quiet -o -H newc > "$1"', 'sh', archive], { directory })
  return archive
}
