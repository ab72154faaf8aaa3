/**
 * The foreign programs that the tests run against: which ones, where Debian keeps them, what is missing here. As root
 * it installs what is missing with apt-get; without the right to, it says exactly what is missing and for which tests.
 * It never decides that a test may be left out: that is the business of whoever runs the tests, and is counted there.
 *
 * Usage: node scripts/peers.mjs [--check] [GROUP...]     exit 1 when something is missing at the end
 */

import { spawnSync } from 'node:child_process'
import { accessSync, constants, existsSync, readdirSync } from 'node:fs'
import { delimiter, join } from 'node:path'
import { fileURLToPath } from 'node:url'

const ROOT = fileURLToPath(new URL('..', import.meta.url))

/**
 * Group of tests -> package -> what must be found of it: programs by name, files and devices by path. `process` is the
 * few of the other folders that look at ours with foreign eyes; the other groups are folders of test/.
 */
const NEEDED = {
  process: {
    'qemu-utils': ['qemu-img', 'qemu-io'],
    'qemu-system-x86': ['qemu-system-x86_64'],
    e2fsprogs: ['chattr', 'mkfs.ext4'],
    nbdkit: ['nbdkit'],
    'libnbd-bin': ['nbdfuse'],
    fuse3: ['fusermount3'],
    mount: ['losetup', 'mount'],
    python3: ['python3'],
    'util-linux': ['prlimit', 'setpriv'],
  },
  peers: {
    'qemu-utils': ['qemu-img', 'qemu-io', 'qemu-nbd'],
    nbdkit: ['nbdkit'],
    'libnbd-bin': ['nbdcopy', 'nbdfuse', 'nbdinfo'],
    'python3-libnbd': ['nbdsh', '/usr/lib/python3/dist-packages/nbd.py'],
    'nbd-client': ['nbd-client'],
    'nbd-server': ['nbd-server'],
    fio: ['fio'],
    strace: ['strace'],
    fuse3: ['fusermount3'],
    openssl: ['openssl'],
    mount: ['losetup'],
    'util-linux': ['setpriv'],
  },
  preflight: {
    'qemu-system-x86': ['qemu-system-x86_64'],
    nbdkit: ['nbdkit'],
    'libnbd-bin': ['nbdfuse'],
    'nbd-client': ['nbd-client'],
    'busybox-static': ['busybox'],
    cpio: ['cpio'],
    kmod: ['depmod', 'modprobe'],
    iproute2: ['ip'],
    dmsetup: ['dmsetup'],
    fuse3: ['fusermount3'],
    e2fsprogs: ['mke2fs'],
    xfsprogs: ['mkfs.xfs'],
    'btrfs-progs': ['mkfs.btrfs'],
    mdadm: ['mdadm'],
    'nfs-kernel-server': ['exportfs', 'rpc.mountd', 'rpc.nfsd'],
    'nfs-common': ['mount.nfs'],
    mount: ['losetup', 'mount'],
    'util-linux': ['setpriv'],
  },
  fleet: {
    'etcd-server': ['etcd'],
    'etcd-client': ['etcdctl'],
    iproute2: ['ip'],
    openssl: ['openssl'],
    nbdkit: ['nbdkit'],
    'libnbd-bin': ['nbdfuse'],
    fuse3: ['fusermount3'],
  },
  migration: {
    'qemu-system-x86': ['qemu-system-x86_64'],
    'qemu-system-common': ['qemu-storage-daemon'],
    'qemu-utils': ['qemu-img', 'qemu-nbd'],
    nbdkit: ['nbdkit'],
    'libnbd-bin': ['nbdfuse'],
    fuse3: ['fusermount3'],
    python3: ['/usr/bin/python3'],
    'nbd-client': ['nbd-client'],
    'busybox-static': ['busybox'],
    cpio: ['cpio'],
    kmod: ['depmod', 'modprobe'],
    iproute2: ['ip'],
    dmsetup: ['dmsetup'],
    e2fsprogs: ['debugfs', 'e2fsck', 'mke2fs'],
    'util-linux': ['setpriv'],
    'xz-utils': ['xz'],
    gcc: ['gcc'],
    'libc6-dev': ['/usr/include/stdio.h'],
  },
  xen: {
    'xen-hypervisor-4.17-amd64': ['/boot/xen-4.17-amd64.gz'],
    'xen-utils-4.17': ['/usr/lib/xen-4.17/bin/xenstored', '/usr/lib/xen-4.17/bin/libxl-save-helper'],
    'xen-utils-common': ['xl', '/etc/xen/scripts/block-common.sh'],
    'xenstore-utils': ['xenstore-read', 'xenstore-write'],
    'qemu-system-x86': ['qemu-system-x86_64'],
    'qemu-utils': ['qemu-nbd'],
    'nbd-client': ['nbd-client'],
    nbdkit: ['nbdkit'],
    'libnbd-bin': ['nbdfuse'],
    fuse3: ['fusermount3'],
    socat: ['socat'],
    curl: ['curl'],
    'busybox-static': ['busybox'],
    cpio: ['cpio'],
    kmod: ['depmod', 'modprobe'],
    mount: ['mount', 'umount'],
    'util-linux': ['findmnt', 'nsenter', 'setpriv', 'unshare'],
    gcc: ['gcc'],
    'libc6-dev': ['/usr/include/stdio.h'],
  },
  docker: {
    'docker.io': ['dockerd', 'docker'],
    'docker-compose': ['docker-compose'],
    debootstrap: ['debootstrap'],
    nbdkit: ['nbdkit'],
    'libnbd-bin': ['nbdfuse'],
    fuse3: ['fusermount3'],
    'util-linux': ['setpriv'],
  },
}

/** Devices that no package brings. */
const DEVICES = {
  process: ['/dev/fuse'],
  peers: ['/dev/fuse'],
  preflight: ['/dev/fuse'],
  fleet: ['/dev/fuse'],
  migration: ['/dev/fuse'],
  xen: ['/dev/fuse'],
  docker: ['/dev/fuse'],
}

export const PEER_GROUPS = Object.keys(NEEDED)

/** The groups that have a test to run. */
export function groupsWithTests() {
  return PEER_GROUPS.filter((group) => group === 'process' || testFilesOf(group).length > 0)
}

export function testFilesOf(group) {
  const folder = join(ROOT, 'test', group)
  if (!existsSync(folder)) return []
  return readdirSync(folder, { recursive: true }).filter((name) => name.endsWith('.test.ts'))
}

/** What is not here, as { what, package, groups }; `package` is null for a device. */
export function missingPeers(groups = PEER_GROUPS) {
  const missing = new Map()
  const note = (what, debianPackage, group) => {
    if (findPeer(what) !== undefined) return
    const entry = missing.get(what) ?? { what, package: debianPackage, groups: [] }
    entry.groups.push(group)
    missing.set(what, entry)
  }
  for (const group of groups) {
    for (const [debianPackage, parts] of Object.entries(NEEDED[group])) {
      for (const part of parts) note(part, debianPackage, group)
    }
    for (const device of DEVICES[group]) note(device, null, group)
  }
  return [...missing.values()]
}

/**
 * Installs what can be installed and returns what is missing still. Writes what it does to standard error. A failure of
 * apt-get is told by what is missing afterwards.
 */
export function installPeers(groups = PEER_GROUPS) {
  const packages = [...new Set(missingPeers(groups).flatMap((entry) => entry.package ?? []))]
  if (packages.length === 0) return missingPeers(groups)
  if (process.getuid() !== 0 || findPeer('apt-get') === undefined) return missingPeers(groups)
  console.error(`installing ${packages.join(' ')}`)
  if (!aptInstall(packages)) {
    apt(['update'])
    aptInstall(packages)
  }
  return missingPeers(groups)
}

function aptInstall(packages) {
  return apt(['install', '-y', '--no-install-recommends', ...packages])
}

/** Quiet unless it fails. RUNLEVEL keeps a package's own daemon from being started. */
function apt(aptArguments) {
  const result = spawnSync('apt-get', ['-q', ...aptArguments], {
    encoding: 'utf8',
    stdio: ['ignore', 'pipe', 'pipe'],
    env: { ...process.env, DEBIAN_FRONTEND: 'noninteractive', RUNLEVEL: '1' },
    maxBuffer: 64 * 1024 * 1024,
  })
  if (result.status === 0) return true
  console.error(`apt-get ${aptArguments.join(' ')} failed:\n${result.stderr}`)
  return false
}

/** One line for each missing thing: what, how to get it, what it keeps from running. */
export function describeMissing(missing) {
  return missing.map(({ what, package: debianPackage, groups }) => {
    const remedy =
      debianPackage === null
        ? `this machine must have it (in a container: --device ${what} --cap-add SYS_ADMIN)`
        : `apt-get install --no-install-recommends ${debianPackage}`
    return `missing: ${what} (${remedy}); needed by ${groups.map(placeOf).join(', ')}`
  })
}

function placeOf(group) {
  return group === 'process' ? 'tests of single folders' : `test/${group}`
}

/** For tests: the path of a program, or an error that names its package. A missing peer is never a silent skip. */
export function requirePeer(program) {
  const path = findPeer(program)
  if (path !== undefined) return path
  const known = missingPeers().filter((entry) => entry.what === program)
  throw new Error(describeMissing(known)[0] ?? `missing: ${program}`)
}

/** Administrators' programs are found also where a plain user's PATH does not look. */
function findPeer(what) {
  const folders = [...(process.env.PATH ?? '').split(delimiter), '/usr/sbin', '/sbin', '/usr/local/sbin']
  const candidates = what.startsWith('/') ? [what] : folders.filter(Boolean).map((folder) => join(folder, what))
  return candidates.find((path) => {
    try {
      accessSync(path, what.startsWith('/') ? constants.R_OK : constants.X_OK)
      return true
    } catch {
      return false
    }
  })
}

if (process.argv[1] === fileURLToPath(import.meta.url)) {
  const words = process.argv.slice(2)
  const named = words.filter((word) => PEER_GROUPS.includes(word))
  const groups = named.length > 0 ? named : groupsWithTests()
  const missing = words.includes('--check') ? missingPeers(groups) : installPeers(groups)
  for (const line of describeMissing(missing)) console.error(line)
  if (missing.length > 0) process.exitCode = 1
}
