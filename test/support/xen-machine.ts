/**
 * A host with Xen: the hypervisor in an emulated machine, Debian's kernel as its dom0, and the user land of a
 * VirtualMachine, so that this machine's xl, node and checkout are there. Guests are paravirtual and small; their whole
 * user land is a writer (aio-writer.c) that takes commands on its console.
 *
 * It has one processor: emulated ones that spin for each other starve on a busy machine.
 */

import { connect, createServer } from 'node:net'
import { join } from 'node:path'
import { debianKernel } from './debian-kernel.ts'
import { eventually } from './eventually.ts'
import { runChecked } from './foreign-program.ts'
import { LOAD_MODULES, layInitramfs, packInitramfs } from './initramfs.ts'
import type { Scratch } from './scratch.ts'
import { HOST_ADDRESS, startVirtualMachine } from './virtual-machine.ts'
import type { VirtualMachine } from './virtual-machine.ts'

const PROJECT = join(import.meta.dirname, '../..')
const PROGRAMS = '/usr/lib/xen-4.17/bin'
const DOM0_MODULES = ['nbd', 'xenfs', 'xen-blkback', 'xen-gntdev', 'xen-evtchn', 'xen-gntalloc', 'xen-privcmd']
const WRITER_SOURCE = join(import.meta.dirname, 'aio-writer.c')

/** What is attached already is only named; Debian's own script looks at every disk of every guest as well, which takes long. */
const ATTACHED_SCRIPT = `#!/bin/sh
test "$1" = add || exit 0
device=$(xenstore-read "$XENBUS_PATH/params")
xenstore-write "$XENBUS_PATH/physical-device" "$(stat -L -c %t:%T "$device")" \\
  "$XENBUS_PATH/physical-device-path" "$device" "$XENBUS_PATH/hotplug-status" connected
`

/** All of dom0's programs, and hotplug scripts where xl looks for them: the project's, and one for attached disks. */
const START_XEN = `
mount -t xenfs xenfs /proc/xen
ln -s /proc/self/fd /dev/fd
ln -s fd/0 /dev/stdin
mkdir -p /dev/pts
mount -t devpts devpts /dev/pts
mkdir -p /run/xen /run/xenstored /run/lock /var/lib/xen /var/log/xen/console
cp ${PROJECT}/xen/block-interlock /etc/xen/scripts/
cat > /etc/xen/scripts/block-attached << 'END'
${ATTACHED_SCRIPT}END
chmod 755 /etc/xen/scripts/block-attached
${PROGRAMS}/xenstored --pid-file /run/xenstored.pid
until xenstore-read / > /run/xenstore-answer; do sleep 0.2; done
${PROGRAMS}/xen-init-dom0
${PROGRAMS}/xenconsoled --log=guest
xl list
`

const GUEST_INIT = `#!/bin/busybox sh
/bin/busybox mkdir -p /proc /dev
/bin/busybox mount -t proc proc /proc
/bin/busybox mount -t devtmpfs dev /dev
${LOAD_MODULES}
/bin/busybox stty -echo < /dev/hvc0
exec /bin/writer < /dev/hvc0 > /dev/hvc0
`

export class XenMachine {
  readonly machine: VirtualMachine
  readonly #scratch: Scratch
  #lent = 0

  constructor(machine: VirtualMachine, scratch: Scratch) {
    this.machine = machine
    this.#scratch = scratch
  }

  /** A Unix socket of this machine can be connected to in dom0 as well; returns where. */
  async lend(socketPath: string): Promise<string> {
    const port = await listenFor(socketPath, this.#scratch)
    this.#lent += 1
    const path = `/run/lent-${this.#lent}.sock`
    await this.machine.check(
      `setsid socat UNIX-LISTEN:${path},fork TCP:${HOST_ADDRESS}:${port} > ${path}.log 2>&1 < /dev/null &
       until test -S ${path}; do sleep 0.1; done`,
    )
    return path
  }

  /** What the guest has said on its console, on whichever domain of that name. */
  async console(guest: string): Promise<string> {
    return (await this.machine.run(`cat /var/log/xen/console/guest-${guest}.log`)).stdout.replaceAll('\r', '')
  }

  async untilSaid(guest: string, pattern: RegExp, timeoutMs: number): Promise<RegExpExecArray> {
    let heard = ''
    try {
      return await eventually(
        `${guest} says ${String(pattern)}`,
        async () => {
          heard = await this.console(guest)
          return pattern.exec(heard)
        },
        { timeoutMs, intervalMs: 300 },
      )
    } catch (error) {
      throw new Error(`the console of ${guest}:\n${heard}\n${this.machine.program.said}`, { cause: error })
    }
  }

  /** A line for the guest's writer. */
  async tell(guest: string, ...lines: string[]): Promise<void> {
    const text = lines.map((line) => `echo '${line}'`).join('\n')
    await this.machine.check(
      `terminal=$(xenstore-read /local/domain/$(xl domid ${guest})/console/tty)
       { ${text}
       } > "$terminal"`,
    )
  }

  /** The guest's configuration for xl, with the disks of one host. */
  async configure(guest: string, path: string, system: GuestSystem, disks: readonly string[]): Promise<void> {
    const lines = [
      `name = '${guest}'`,
      `kernel = '${system.kernelPath}'`,
      `ramdisk = '${system.initramfsPath}'`,
      "extra = 'console=hvc0 quiet panic=-1'",
      'memory = 128',
      `disk = [${disks.map((disk) => `'${disk}'`).join(', ')}]`,
    ]
    await this.machine.check(`cat > ${path} << 'END'\n${lines.join('\n')}\nEND`)
  }
}

export async function startXenMachine(scratch: Scratch): Promise<XenMachine> {
  const imagePath = join(scratch.directory('hypervisor'), 'xen.elf')
  await runChecked('sh', ['-c', 'gzip -dc /boot/xen-4.17-amd64.gz > "$1"', 'sh', imagePath])
  const machine = await startVirtualMachine(scratch, {
    modules: DOM0_MODULES,
    memoryMiB: 1_600,
    processors: 1,
    hypervisor: {
      imagePath,
      commandLine: 'dom0_mem=1000M,max:1000M com1=115200,8n1 console=com1 noreboot=1 loglvl=warning',
      consoleName: 'hvc0',
      processor: 'qemu64,+ssse3,+sse4.1,+sse4.2,+popcnt,+cx16',
    },
  })
  await machine.check(START_XEN)
  return new XenMachine(machine, scratch)
}

/** A port of the loopback that leads to the socket. */
async function listenFor(socketPath: string, scratch: Scratch): Promise<number> {
  const server = createServer((client) => {
    const socket = connect(socketPath)
    for (const [end, other] of [
      [client, socket],
      [socket, client],
    ] as const) {
      end.pipe(other)
      end.on('error', () => other.destroy())
      end.on('close', () => other.destroy())
    }
  })
  await new Promise<void>((resolve) => {
    server.listen(0, '127.0.0.1', resolve)
  })
  scratch.defer(`the way to ${socketPath}`, () => {
    server.close()
  })
  const address = server.address()
  if (address === null || typeof address === 'string') throw new Error('a TCP listener has no port')
  return address.port
}

export interface GuestSystem {
  /** In dom0. */
  readonly kernelPath: string
  readonly initramfsPath: string
}

/** Made before the machine is started: what is there then it sees. */
export async function makeGuestSystem(scratch: Scratch): Promise<GuestSystem> {
  const kernel = await debianKernel()
  const directory = scratch.directory('xen-guest')
  const content = join(directory, 'initramfs')
  await layInitramfs(kernel, content, ['xen-blkfront'], GUEST_INIT)
  await runChecked('gcc', ['-O2', '-static', '-o', join(content, 'bin/writer'), WRITER_SOURCE])
  const initramfsPath = await packInitramfs(content, join(directory, 'initramfs.cpio'))
  return { kernelPath: kernel.imagePath, initramfsPath }
}
