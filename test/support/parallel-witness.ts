/**
 * A real, slow, parallel block device with an independent log: /dev/nbd0 of a virtual machine, attached over several
 * connections to an nbdkit (filters log and delay) on this machine. The server under test runs inside and serves that
 * device; its clients run here. Two writes to the same blocks that are in the disk at once show in the log.
 */

import { readFileSync, truncateSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import type { EngineName } from './daemon.ts'
import { startProgram } from './foreign-program.ts'
import { freePort } from './free-port.ts'
import type { ServerAddress } from './nbd-frontend.ts'
import type { Scratch } from './scratch.ts'
import { HOST_ADDRESS, startVirtualMachine } from './virtual-machine.ts'
import type { VirtualMachine } from './virtual-machine.ts'
import { WitnessLog } from './witness-log.ts'

export interface ParallelWitnessOptions {
  readonly sizeBytes?: number
  /** How long each write, zero and trim takes in the disk. */
  readonly writeDelayMs: number
  readonly connections?: number
  /** Modules to load in the machine, beyond nbd. */
  readonly modules?: readonly string[]
  /** Ports of servers in the machine, beyond `SERVER_PORT`. */
  readonly forwardedPorts?: readonly number[]
}

export interface ParallelWitness {
  readonly machine: VirtualMachine
  readonly log: WitnessLog
  /** The bytes of the disk as they are now, read past everything. */
  readBack(offset: number, length: number): Buffer
  /** Waits until nothing is in the disk. */
  settle(timeoutMs: number): Promise<void>
}

/** The device in the machine. */
export const WITNESS_DEVICE = '/dev/nbd0'
/** Where the server under test listens, in the machine. */
export const SERVER_PORT = 10_809

const DEFAULT_SIZE_BYTES = 64 * 1024 * 1024

export async function startParallelWitness(
  scratch: Scratch,
  options: ParallelWitnessOptions,
): Promise<ParallelWitness> {
  const directory = scratch.directory('parallel-witness')
  const backingPath = join(directory, 'back.raw')
  writeFileSync(backingPath, '')
  truncateSync(backingPath, options.sizeBytes ?? DEFAULT_SIZE_BYTES)
  const log = new WitnessLog(join(directory, 'witness.log'))
  const port = await freePort()
  const disk = startProgram(scratch, 'nbdkit', [
    ...['-f', '-i', '127.0.0.1', '-p', String(port), '--threads', '64', '--filter=log', '--filter=delay'],
    ...['file', backingPath, `wdelay=${options.writeDelayMs}ms`, `logfile=${log.path}`],
  ])
  const machine = await startVirtualMachine(scratch, {
    modules: ['nbd', ...(options.modules ?? [])],
    withProject: true,
    forwardedPorts: [SERVER_PORT, ...(options.forwardedPorts ?? [])],
  })
  if (!disk.running) throw new Error(disk.said)
  await machine.check(
    `nbd-client ${HOST_ADDRESS} ${port} ${WITNESS_DEVICE} -N '' -C ${options.connections ?? 4}
     blockdev --getsize64 ${WITNESS_DEVICE}`,
  )
  return {
    machine,
    log,
    readBack: (offset, length) => readFileSync(backingPath).subarray(offset, offset + length),
    settle: async (timeoutMs) => {
      const deadline = performance.now() + timeoutMs
      while (log.inDisk().length > 0) {
        if (performance.now() > deadline) throw new Error(`after ${timeoutMs} ms there is still work in the disk`)
        await sleep(20)
      }
    },
  }
}

/** A server that was started in the machine. */
export interface MachineServer {
  readonly address: ServerAddress
  /** In the machine. */
  readonly pid: number
  /** Everything it has said. */
  said(): Promise<string>
  /** Returns once it has ended. */
  kill(signal: 'TERM' | 'KILL'): Promise<void>
}

/** Starts a server in the machine and waits until its port answers there. */
export async function startMachineServer(
  machine: VirtualMachine,
  command: string,
  port = SERVER_PORT,
  timeoutMs = 90_000,
): Promise<MachineServer> {
  const outputPath = `/run/server-${port}.log`
  const pid = Number(await machine.check(`setsid ${command} > ${outputPath} 2>&1 < /dev/null & echo $!`))
  const said = async (): Promise<string> => (await machine.run(`cat ${outputPath}`)).stdout
  // It is asked which sockets listen, because a probing connection could be taken for a client.
  const listening = await machine.run(
    `for second in $(seq ${timeoutMs / 1_000}); do
       if ss -ltnH 'sport = :${port}' | grep -q .; then exit 0; fi
       readlink /proc/${pid}/exe > /run/starting || exit 1
       sleep 1
     done
     exit 1`,
    2 * timeoutMs,
  )
  if (listening.status !== 0) throw new Error(`in the machine, ${command} did not start:\n${await said()}`)
  return {
    address: { port: machine.hostPort(port) },
    pid,
    said,
    kill: async (signal) => {
      // Nobody reaps there: a program that has ended stays as a zombie, which has no executable.
      await machine.check(
        `kill -${signal} ${pid} || true; while readlink /proc/${pid}/exe; do sleep 0.1; done > /run/killing`,
      )
    },
  }
}

export interface MachineDaemonOptions {
  readonly port?: number
  readonly standby?: boolean
}

/** interlockd in the machine, over the witness, as `vda`. Each port has a state directory of its own. */
export interface MachineDaemon extends MachineServer {
  /** A shell script for the machine that asks the control API and says what it answered. The path starts after /v1. */
  requestScript(method: string, path: string, body: Readonly<Record<string, unknown>>): string
}

export async function startMachineDaemon(
  machine: VirtualMachine,
  engine: EngineName,
  { port = SERVER_PORT, standby = false }: MachineDaemonOptions = {},
): Promise<MachineDaemon> {
  const controlPort = port + 1_000
  const configuration = [
    `state_directory = "/run/interlockd-${port}"`,
    `control = ["tcp:127.0.0.1:${controlPort}"]`,
    `listen = ["tcp:0.0.0.0:${port}"]`,
    `engine = "${engine}"`,
    `standby = ${standby}`,
    '[ownership]',
    'kind = "none"',
    '[[export]]',
    'name = "vda"',
    `path = "${WITNESS_DEVICE}"`,
  ]
  const configurationPath = `/run/interlockd-${port}.toml`
  await machine.check(`cat > ${configurationPath} << 'END'\n${configuration.join('\n')}\nEND`)
  const daemon = join(import.meta.dirname, '../../bin/interlockd.cjs')
  const server = await startMachineServer(machine, `${process.execPath} ${daemon} --config ${configurationPath}`, port)
  return {
    ...server,
    requestScript: (method, path, body) => {
      const content = JSON.stringify(body)
      const lines = [
        `${method} /v1${path} HTTP/1.1`,
        `Host: 127.0.0.1:${controlPort}`,
        'Connection: close',
        'Content-Type: application/json',
        `Content-Length: ${content.length}`,
      ]
      const bytes = Buffer.from(`${lines.join('\r\n')}\r\n\r\n${content}`).toString('base64')
      return `bash -c 'exec 3<> /dev/tcp/127.0.0.1/${controlPort}; echo ${bytes} | base64 -d >&3; cat <&3'`
    },
  }
}
