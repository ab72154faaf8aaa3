/**
 * Debian's kernel package, fetched once with apt and unpacked into a cache that outlives the test run: vmlinuz and the
 * modules with their dependencies worked out. Nothing is installed on this machine. Two runs at the same time do no
 * harm: each unpacks into a directory of its own and renames it into place.
 */

import { existsSync, mkdirSync, mkdtempSync, readdirSync, renameSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { runChecked, runProgram } from './foreign-program.ts'

export interface DebianKernel {
  readonly version: string
  readonly imagePath: string
  /** Holds lib/modules/VERSION, with modules.dep. */
  readonly modulesRoot: string
}

const META_PACKAGE = 'linux-image-amd64'

/** What no test machine has: half of the package's size. */
const UNWANTED_FOLDERS = [
  'sound',
  'drivers/gpu',
  'drivers/media',
  'drivers/infiniband',
  'drivers/net/wireless',
  'drivers/net/ethernet',
]

export async function debianKernel(): Promise<DebianKernel> {
  const cache = cacheDirectory()
  mkdirSync(cache, { recursive: true, mode: 0o700 })
  const cached = readdirSync(cache).find((name) => existsSync(join(cache, name, 'complete')))
  const root = cached === undefined ? await unpackKernel(cache) : join(cache, cached)
  const version = readdirSync(join(root, 'lib/modules'))[0]
  if (version === undefined) throw new Error(`${root} holds no modules`)
  return { version, imagePath: join(root, `boot/vmlinuz-${version}`), modulesRoot: root }
}

function cacheDirectory(): string {
  const base = process.env['XDG_CACHE_HOME'] ?? join(tmpdir(), `interlockd-cache-${process.getuid?.() ?? 0}`)
  return join(base, 'interlockd', 'kernel')
}

async function unpackKernel(cache: string): Promise<string> {
  const work = mkdtempSync(join(cache, 'unpacking-'))
  try {
    const packageName = await kernelPackage()
    await runChecked('apt-get', ['-q', '-o', 'APT::Sandbox::User=root', 'download', packageName], {
      directory: work,
      timeoutMs: 300_000,
    })
    const archive = readdirSync(work).find((name) => name.endsWith('.deb'))
    if (archive === undefined) throw new Error(`apt-get downloaded no ${packageName}`)
    const version = packageName.replace('linux-image-', '')
    await runChecked('dpkg-deb', ['-x', archive, '.'], { directory: work, timeoutMs: 120_000 })
    rmSync(join(work, archive))
    for (const folder of UNWANTED_FOLDERS) {
      rmSync(join(work, 'lib/modules', version, 'kernel', folder), { recursive: true, force: true })
    }
    await runChecked('depmod', ['-b', work, version])
    await runChecked('touch', ['complete'], { directory: work })
    const root = join(cache, version)
    if (!existsSync(join(work, `boot/vmlinuz-${version}`))) throw new Error(`${packageName} holds no kernel`)
    try {
      renameSync(work, root)
    } catch (error) {
      if (!existsSync(join(root, 'complete'))) throw error
    }
    return root
  } finally {
    rmSync(work, { recursive: true, force: true })
  }
}

/** The package that the meta package stands for, after fetching the package lists where there are none. */
async function kernelPackage(): Promise<string> {
  for (const refresh of [false, true]) {
    if (refresh) await runChecked('apt-get', ['-q', 'update'], { timeoutMs: 300_000 })
    const { stdout } = await runProgram('apt-cache', ['depends', META_PACKAGE])
    const match = /Depends: (linux-image-\d\S*)/u.exec(stdout)
    if (match?.[1] !== undefined) return match[1]
  }
  throw new Error(`apt knows no ${META_PACKAGE}`)
}

/** The module files that the named modules need, in the order in which to load them. Built-in ones need none. */
export async function moduleClosure(kernel: DebianKernel, names: readonly string[]): Promise<string[]> {
  const files: string[] = []
  for (const name of names) {
    const { stdout } = await runChecked('modprobe', [
      '--show-depends',
      ...['-d', kernel.modulesRoot, '-S', kernel.version, '-C', '/dev/null', name],
    ])
    for (const match of stdout.matchAll(/^insmod (\S+)/gmu)) {
      const file = match[1]
      if (file !== undefined && !files.includes(file)) files.push(file)
    }
  }
  return files
}
