/**
 * A Debian newer than the one that the tests run on, as a tar archive: made by debootstrap the first time, kept in the
 * user's cache afterwards. Its packages are unpacked and not configured: what runs in it are single programs.
 */

import { createHash } from 'node:crypto'
import { existsSync, mkdirSync, mkdtempSync, readFileSync, readdirSync, renameSync, rmSync } from 'node:fs'
import { homedir } from 'node:os'
import { join } from 'node:path'
import { requirePeer } from '../../scripts/peers.mjs'
import { runChecked } from './foreign-program.ts'

const SUITE = 'trixie'
/** What node is linked with, and clients of another day than this machine's. */
const PACKAGES = ['libstdc++6', 'libnbd-bin', 'qemu-utils']
/** Nothing that runs looks at these. */
const LEFT_OUT = ['debootstrap', 'usr/share/doc', 'usr/share/locale', 'usr/share/man', 'var/cache', 'var/lib/apt/lists']
const DEBOOTSTRAP_TIMEOUT_MS = 900_000
const UNPACK_TIMEOUT_MS = 300_000

/** The path of the archive. */
export async function debianTree(): Promise<string> {
  const recipe = createHash('sha256')
    .update(JSON.stringify([SUITE, PACKAGES, LEFT_OUT]))
    .digest('hex')
    .slice(0, 12)
  const cache = join(process.env['XDG_CACHE_HOME'] ?? join(homedir(), '.cache'), 'interlockd', 'debian')
  const archive = join(cache, `${SUITE}-${process.arch}-${recipe}.tar`)
  if (existsSync(archive)) return archive
  mkdirSync(cache, { recursive: true })
  const work = mkdtempSync(join(cache, 'making-'))
  try {
    const tree = join(work, 'tree')
    await bootstrap(tree)
    const made = join(work, 'tree.tar')
    const exclusions = LEFT_OUT.map((path) => `--exclude=./${path}`)
    await runChecked('tar', ['-C', tree, ...exclusions, '-cf', made, '.'], { timeoutMs: UNPACK_TIMEOUT_MS })
    renameSync(made, archive)
  } finally {
    rmSync(work, { recursive: true, force: true })
  }
  return archive
}

/** Debootstrap's first stage unpacks what is required; of what it has fetched besides, we unpack the rest. */
async function bootstrap(tree: string): Promise<void> {
  const include = `--include=${PACKAGES.join(',')}`
  await runChecked(requirePeer('debootstrap'), ['--foreign', '--variant=minbase', include, SUITE, tree], {
    timeoutMs: DEBOOTSTRAP_TIMEOUT_MS,
  })
  const archives = join(tree, 'var/cache/apt/archives')
  const wanted = readFileSync(join(tree, 'debootstrap/base'), 'utf8').split(/\s+/u)
  const files = readdirSync(archives).filter((name) => wanted.includes(name.split('_')[0] ?? ''))
  // Each in a process of its own would take longer than all of them; a link such as /lib stays a link.
  const unpack = 'for f do dpkg-deb --fsys-tarfile "$f" | tar -x --keep-directory-symlink -C "$0" || exit 1; done'
  const paths = files.map((name) => join(archives, name))
  await runChecked('sh', ['-c', unpack, tree, ...paths], { timeoutMs: UNPACK_TIMEOUT_MS })
}
