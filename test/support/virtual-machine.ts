/**
 * A Linux machine with every driver Debian has, whose user land is this machine's own: QEMU starts Debian's kernel, a
 * small initramfs mounts this machine's root directory over 9p (read only, with a tmpfs over it) and serves commands
 * on a serial port. So this machine's node, nbd-client, mkfs and the checkout are all there, as they were when the
 * machine was started, and nothing that happens inside can change a file outside.
 *
 * The machine is emulated, so that it runs anywhere; all times inside are several times longer than outside.
 */

import { cpSync, existsSync, readFileSync, writeFileSync } from 'node:fs'
import { connect } from 'node:net'
import type { Socket } from 'node:net'
import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import { debianKernel } from './debian-kernel.ts'
import type { DebianKernel } from './debian-kernel.ts'
import { startProgram } from './foreign-program.ts'
import type { Outcome, Program } from './foreign-program.ts'
import { freePort } from './free-port.ts'
import { LOAD_MODULES, layInitramfs, packInitramfs } from './initramfs.ts'
import type { Scratch } from './scratch.ts'

export interface VirtualMachineOptions {
  /** Modules to load, beyond those that the machine itself needs. */
  readonly modules?: readonly string[]
  readonly memoryMiB?: number
  readonly processors?: number
  /**
   * Copies the built project and its production dependencies into the machine's memory, at the place they have here:
   * thousands of small files take half a minute over 9p. Nothing else of the project is there then.
   */
  readonly withProject?: boolean
  /** Raw images of this machine that it has as /dev/vda, /dev/vdb…; a write is complete when it is in the image. */
  readonly drives?: readonly string[]
  /** Ports of the machine that can be reached from here; each gets a free port on this machine's loopback. */
  readonly forwardedPorts?: readonly number[]
  /** The machine's kernel runs on this, as its first domain. */
  readonly hypervisor?: Hypervisor
}

/** Booted in place of the kernel, which it finds beside it. It has the console; the kernel keeps the second serial port. */
export interface Hypervisor {
  readonly imagePath: string
  readonly commandLine: string
  /** What the kernel calls the hypervisor's console. */
  readonly consoleName: string
  /** The emulated processor. */
  readonly processor: string
}

/** How the machine reaches this machine's loopback. */
export const HOST_ADDRESS = '10.0.2.2'

const PROJECT = join(import.meta.dirname, '../..')
const OWN_MODULES = ['virtio_pci', 'virtio_net', '9pnet_virtio', '9p', 'overlay']
const BOOT_TIMEOUT_MS = 240_000

const INIT = `#!/bin/busybox sh
/bin/busybox mkdir -p /proc /sys /dev /lower /upper /root
/bin/busybox mount -t proc proc /proc
/bin/busybox mount -t sysfs sys /sys
/bin/busybox mount -t devtmpfs dev /dev
${LOAD_MODULES}
/bin/busybox ip link set lo up
/bin/busybox ip link set eth0 up
/bin/busybox ip addr add 10.0.2.15/24 dev eth0
/bin/busybox ip route add default via 10.0.2.2
set -e
/bin/busybox mount -t 9p -o trans=virtio,version=9p2000.L,msize=262144,cache=loose,ro hostroot /lower
/bin/busybox mount -t tmpfs -o size=60% upper /upper
/bin/busybox mkdir /upper/data /upper/work
/bin/busybox mount -t overlay -o lowerdir=/lower,upperdir=/upper/data,workdir=/upper/work overlay /root
if test -e /project/place; then /bin/busybox mount -o bind /project/files "/root$(/bin/busybox cat /project/place)"; fi
for name in proc sys dev; do /bin/busybox mount -o bind /$name /root/$name; done
/bin/busybox mount -t tmpfs run /root/run
/bin/busybox cp /commands /root/run/commands
exec /bin/busybox chroot /root /bin/sh /run/commands < /dev/ttyS1 > /dev/ttyS1 2>&1
`

/**
 * The far end of `run`: one line for each command, "NUMBER BASE64". What the command says goes back as base64 too,
 * because a serial line is not transparent.
 */
const COMMANDS = `stty raw -echo
export PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin HOME=/root LC_ALL=C.UTF-8 TZ=UTC
echo machine-ready
while read -r number text; do
  (
    printf %s "$text" | base64 -d > "/run/command-$number"
    /bin/sh "/run/command-$number" > "/run/output-$number" 2> "/run/errors-$number" < /dev/null
    status=$?
    printf '\\n@%s %s %s %s\\n' "$number" "$status" "$(base64 -w 0 "/run/output-$number")." "$(base64 -w 0 "/run/errors-$number")." > "/run/answer-$number"
    flock /run/answers cat "/run/answer-$number"
  ) &
done
`

export class VirtualMachine {
  readonly program: Program
  readonly #port: Socket
  readonly #forwarded: ReadonlyMap<number, number>
  readonly #waiting = new Map<number, (outcome: Outcome) => void>()
  #heard = ''
  #commands = 0
  #ready = false

  constructor(program: Program, port: Socket, forwarded: ReadonlyMap<number, number>) {
    this.program = program
    this.#port = port
    this.#forwarded = forwarded
    port.setEncoding('latin1').on('data', (text: string) => {
      this.#hear(text)
    })
    port.on('error', () => undefined)
  }

  /** Whether it takes commands. */
  get ready(): boolean {
    return this.#ready
  }

  /** The port on this machine's loopback that leads to the machine's port. */
  hostPort(machinePort: number): number {
    const port = this.#forwarded.get(machinePort)
    if (port === undefined) throw new Error(`port ${machinePort} of the machine is not forwarded`)
    return port
  }

  /** Runs a shell script inside. Several may run at once. A script that is late is left running; the machine ends soon. */
  async run(script: string, timeoutMs = 60_000): Promise<Outcome> {
    this.#commands += 1
    const number = this.#commands
    const answer = new Promise<Outcome>((resolve) => {
      this.#waiting.set(number, resolve)
    })
    this.#port.write(`${number} ${Buffer.from(script).toString('base64')}\n`)
    let timer: NodeJS.Timeout | undefined
    const late = new Promise<never>((_resolve, reject) => {
      timer = setTimeout(() => {
        reject(new Error(`in the machine, no end within ${timeoutMs} ms of:\n${script}\n${this.program.said}`))
      }, timeoutMs)
    })
    const gone = this.program.exited.then(() => {
      throw new Error(`the machine ended during:\n${script}\n${this.program.said}`)
    })
    try {
      return await Promise.race([answer, late, gone])
    } finally {
      clearTimeout(timer)
    }
  }

  /** As `run`, and the script (under sh -e) must end with 0. Returns what it said. */
  async check(script: string, timeoutMs = 60_000): Promise<string> {
    const outcome = await this.run(`set -e\n${script}`, timeoutMs)
    if (outcome.status === 0) return outcome.stdout
    const said = `${outcome.stdout}${outcome.stderr}`
    throw new Error(`in the machine, status ${outcome.status} of:\n${script}\n${said}\n${this.program.said}`)
  }

  #hear(text: string): void {
    this.#heard += text
    for (let end = this.#heard.indexOf('\n'); end >= 0; end = this.#heard.indexOf('\n')) {
      const line = this.#heard.slice(0, end).trim()
      this.#heard = this.#heard.slice(end + 1)
      if (line === 'machine-ready') this.#ready = true
      const match = /^@(\d+) (\d+) (\S*)\. (\S*)\.$/u.exec(line)
      if (match === null) continue
      const [, number, status, output = '', errors = ''] = match
      this.#waiting.get(Number(number))?.({ status: Number(status), stdout: decode(output), stderr: decode(errors) })
      this.#waiting.delete(Number(number))
    }
  }
}

function decode(text: string): string {
  return Buffer.from(text, 'base64').toString('utf8')
}

/** Started, its network up and ready for commands. It is killed with the scratch. */
export async function startVirtualMachine(
  scratch: Scratch,
  options: VirtualMachineOptions = {},
): Promise<VirtualMachine> {
  const kernel = await debianKernel()
  const directory = scratch.directory('machine')
  const content = join(directory, 'initramfs')
  const drivers = options.drives === undefined ? [] : ['virtio_blk']
  await layInitramfs(kernel, content, [...OWN_MODULES, ...drivers, ...(options.modules ?? [])], INIT)
  writeFileSync(join(content, 'commands'), COMMANDS)
  if (options.withProject === true) copyProject(join(content, 'project'))
  const initramfs = await packInitramfs(content, join(directory, 'initramfs.cpio'))
  const socketPath = join(directory, 'commands.sock')
  const forwarded = new Map<number, number>()
  for (const port of options.forwardedPorts ?? []) forwarded.set(port, await freePort())
  const forwards = [...forwarded].map(([inside, outside]) => `,hostfwd=tcp:127.0.0.1:${outside}-:${inside}`).join('')
  const program = startProgram(scratch, 'qemu-system-x86_64', [
    ...[
      '-accel',
      'tcg,thread=multi',
      '-smp',
      String(options.processors ?? 2),
      '-m',
      String(options.memoryMiB ?? 1_200),
    ],
    ...['-nodefaults', '-display', 'none', '-no-reboot'],
    ...['-chardev', 'stdio,id=console,signal=off', '-serial', 'chardev:console'],
    ...['-chardev', `socket,id=commands,path=${socketPath},server=on,wait=off`, '-serial', 'chardev:commands'],
    ...bootArguments(kernel, initramfs, options.hypervisor),
    ...['-netdev', `user,id=network${forwards}`, '-device', 'virtio-net-pci,netdev=network,romfile='],
    ...(options.drives ?? []).flatMap((path) => ['-drive', `file=${path},format=raw,if=virtio,cache=writethrough`]),
    '-virtfs',
    'local,path=/,mount_tag=hostroot,security_model=passthrough,readonly=on,multidevs=remap',
  ])
  const port = await connectSerialPort(program, socketPath)
  scratch.defer('command port of the machine', () => {
    port.destroy()
  })
  const machine = new VirtualMachine(program, port, forwarded)
  await program.until('end of the boot', BOOT_TIMEOUT_MS, () => machine.ready)
  return machine
}

function bootArguments(kernel: DebianKernel, initramfs: string, hypervisor?: Hypervisor): string[] {
  const commandLine = (consoleName: string): string =>
    `console=${consoleName} quiet panic=-1 loglevel=4 mitigations=off no_timer_check`
  if (hypervisor === undefined) {
    return ['-cpu', 'max', '-kernel', kernel.imagePath, '-initrd', initramfs, '-append', commandLine('ttyS0')]
  }
  const { imagePath, processor, consoleName } = hypervisor
  return [
    ...['-cpu', processor, '-kernel', imagePath, '-append', hypervisor.commandLine],
    ...['-initrd', `${kernel.imagePath} ${commandLine(consoleName)},${initramfs}`],
  ]
}

/** The socket appears a little after QEMU has started, and a long time before the machine says anything. */
export async function connectSerialPort(program: Program, socketPath: string): Promise<Socket> {
  for (;;) {
    const port = await new Promise<Socket | undefined>((resolve) => {
      const socket = connect(socketPath)
      socket.once('connect', () => {
        resolve(socket)
      })
      socket.once('error', () => {
        resolve(undefined)
      })
    })
    if (port !== undefined) return port
    if (!program.running) throw new Error(program.said)
    await sleep(20)
  }
}

function copyProject(directory: string): void {
  const files = join(directory, 'files')
  const lock = JSON.parse(readFileSync(join(PROJECT, 'package-lock.json'), 'utf8')) as PackageLock
  const dependencies = Object.entries(lock.packages)
    .filter(([path, { dev, devOptional }]) => path !== '' && dev !== true && devOptional !== true)
    .map(([path]) => path)
  for (const path of ['package.json', 'bin', 'dist', 'xen', ...dependencies]) {
    // A package for another platform is in the lock and not here; a nested one came with the package around it.
    if (!existsSync(join(PROJECT, path)) || existsSync(join(files, path))) continue
    cpSync(join(PROJECT, path), join(files, path), { recursive: true })
  }
  writeFileSync(join(directory, 'place'), PROJECT)
}

interface PackageLock {
  readonly packages: Readonly<Record<string, { readonly dev?: boolean; readonly devOptional?: boolean }>>
}
