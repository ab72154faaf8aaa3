/**
 * A host as xl's hotplug scripts see it, without Xen: the project's script with Debian's that it builds upon, in a mount
 * namespace with a few nbd devices of its own. The xenstore is a directory behind its two commands, and nbdfuse stands in
 * for the kernel's NBD client, which few machines of testers have: a device is attached when it has the export mounted,
 * and is then a file that leads to the daemon. Two hosts are two daemons; they share these devices.
 *
 * As with xl, a run that takes longer than 40 seconds is killed, and then its status is 137.
 */

import { chmodSync, copyFileSync, mkdirSync, readFileSync, readdirSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { PROJECT } from './controlled-daemon.ts'
import { runProgram, startProgram } from './foreign-program.ts'
import type { Outcome } from './foreign-program.ts'
import type { Scratch } from './scratch.ts'

const DEBIAN_SCRIPTS = '/etc/xen/scripts'
const XL_KILLS_AFTER_SECONDS = 40
const DEVICES = ['nbd0', 'nbd1', 'nbd2']

const xenstoreRead = (store: string): string => `#!/bin/sh
for path; do cat "${store}$path" || exit 1; done
`

const xenstoreWrite = (store: string): string => `#!/bin/sh
while test $# -gt 1; do
  mkdir -p "$(dirname "${store}$1")" && echo "$2" > "${store}$1" || exit 1
  shift 2
done
`

/** As the script calls it: -unix SOCKET -name EXPORT DEVICE, or -d DEVICE. */
const nbdClient = (mounts: string): string => `#!/bin/sh
if test "$1" = -d; then
  name=$(basename "$2")
  fusermount3 -u -z "${mounts}/$name"
  kill "$(cat "/sys/block/$name/pid")"
  rm "$2" "/sys/block/$name/pid"
  exit
fi
name=$(basename "$5")
mkdir -p "${mounts}/$name"
setsid timeout 900 nbdfuse "${mounts}/$name" "nbd+unix:///$4?socket=$2" > "${mounts}/$name.log" 2>&1 < /dev/null &
until test -e "${mounts}/$name/nbd"; do
  kill -0 $! || exit 1
  sleep 0.05
done
ln -s "${mounts}/$name/nbd" "$5"
echo $! > "/sys/block/$name/pid"
`

/** Only the devices that are needed, so that the host's own nbd devices stay out of it. */
const ENTER = `set -e
mount -t tmpfs devices "$1"
cp -a /dev/null /dev/zero /dev/full /dev/random /dev/urandom /dev/fuse "$1"
ln -s /proc/self/fd "$1/fd"
ln -s fd/0 "$1/stdin"
mount --bind "$1" /dev
mount -t tmpfs blocks /sys/block
cd /sys/block
mkdir ${DEVICES.join(' ')}
echo entered
exec sleep infinity
`

export class XenHost {
  readonly #namespace: number
  readonly #directory: string

  constructor(namespace: number, directory: string) {
    this.#namespace = namespace
    this.#directory = directory
  }

  /** Runs a program among the devices. */
  run(command: readonly string[], environment: Readonly<Record<string, string>> = {}): Promise<Outcome> {
    const enter = ['--mount', '--target', String(this.#namespace), '--', ...command]
    return runProgram('nsenter', enter, { environment })
  }

  /** Runs the script as xl does. */
  script(command: 'add' | 'remove', backendPath: string): Promise<Outcome> {
    const program = join(this.#directory, 'scripts/block-interlock')
    const late = ['timeout', '-s', 'KILL', String(XL_KILLS_AFTER_SECONDS)]
    return this.run([...late, program, command], { XENBUS_PATH: backendPath })
  }

  /** The devices that are attached. */
  async attached(): Promise<string[]> {
    const { stdout } = await this.run(['sh', '-c', 'cd /sys/block && ls */pid || true'])
    return stdout.split('\n').flatMap((line) => (line === '' ? [] : [`/dev/${line.replace('/pid', '')}`]))
  }

  async write(device: string, offset: number, bytes: Buffer): Promise<void> {
    const path = join(this.#directory, 'bytes')
    writeFileSync(path, bytes)
    const dd = ['dd', `if=${path}`, `of=${device}`, `seek=${offset}`, 'oflag=seek_bytes', 'conv=notrunc,fsync']
    const { status, stderr } = await this.run(dd)
    if (status !== 0) throw new Error(`${device}: ${stderr}`)
  }

  /** undefined: there is no such entry. */
  entry(path: string): string | undefined {
    try {
      return readFileSync(join(this.#directory, 'store', path), 'utf8').trim()
    } catch {
      return undefined
    }
  }

  setEntry(path: string, value: string): void {
    const file = join(this.#directory, 'store', path)
    mkdirSync(join(file, '..'), { recursive: true })
    writeFileSync(file, `${value}\n`)
  }
}

export async function startXenHost(scratch: Scratch): Promise<XenHost> {
  const directory = scratch.directory('xen-host')
  for (const part of ['scripts', 'bin', 'store', 'mounts', 'devices']) mkdirSync(join(directory, part))
  layScripts(directory)
  const holder = startProgram(scratch, 'unshare', ['--mount', 'sh', '-c', ENTER, 'sh', join(directory, 'devices')])
  await holder.until('namespace', 30_000, () => holder.stdout.includes('entered'))
  const host = new XenHost(holder.pid, directory)
  scratch.defer('attached devices', async () => {
    for (const device of await host.attached()) await host.run([join(directory, 'bin/nbd-client'), '-d', device])
  })
  return host
}

/** Debian's scripts say in variables where a host has its programs, its locks and its log. */
function layScripts(directory: string): void {
  const scripts = join(directory, 'scripts')
  for (const name of readdirSync(DEBIAN_SCRIPTS).filter((file) => file.endsWith('.sh'))) {
    const text = readFileSync(join(DEBIAN_SCRIPTS, name), 'utf8')
      .replace(/^bindir=.*$/mu, `bindir="${directory}/bin"`)
      .replace(/^LOCK_BASEDIR=.*$/mu, `LOCK_BASEDIR=${directory}/locks`)
      .replace('/var/log/xen/xen-hotplug.log', `${directory}/hotplug.log`)
    writeFileSync(join(scripts, name), text)
  }
  copyFileSync(join(PROJECT, 'xen/block-interlock'), join(scripts, 'block-interlock'))
  const install = (name: string, text: string): void => {
    writeFileSync(join(directory, 'bin', name), text)
    chmodSync(join(directory, 'bin', name), 0o755)
  }
  install('xenstore-read', xenstoreRead(join(directory, 'store')))
  install('xenstore-write', xenstoreWrite(join(directory, 'store')))
  install('nbd-client', nbdClient(join(directory, 'mounts')))
}

/** A backend in the xenstore, as xl makes it for a disk of a guest. */
export class XenBackend {
  readonly path: string
  readonly #host: XenHost
  /** What stands behind `target=`. */
  target: string

  constructor(host: XenHost, domain: number, target: string) {
    this.#host = host
    this.path = `/local/domain/0/backend/vbd/${domain}/51712`
    this.target = target
  }

  run(command: 'add' | 'remove'): Promise<Outcome> {
    this.#host.setEntry(`${this.path}/params`, this.target)
    this.#host.setEntry(`${this.path}/hotplug-status`, '')
    this.#host.setEntry(`${this.path}/hotplug-error`, '')
    return this.#host.script(command, this.path)
  }

  /** As the script has left it. */
  entry(name: string): string | undefined {
    return this.#host.entry(`${this.path}/${name}`)
  }
}
