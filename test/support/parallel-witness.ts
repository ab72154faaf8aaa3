/**
 * A real, parallel block device that keeps its writes as long as a test likes, with an independent log: /dev/nbd0 of a
 * virtual machine, attached to an nbdkit (filter log) on this machine. The server under test runs inside and serves that
 * device; its clients run here. Two writes to the same blocks that are in the disk at once show in the log.
 *
 * It is one connection, which carries any number of requests at once: with several of them Linux sends what has not been
 * answered for half a minute again over another.
 */

import { readFileSync, rmSync, truncateSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import type { ExportStatus } from '../../src/exports/verbs.ts'
import type { EngineName } from './daemon.ts'
import { startProgram } from './foreign-program.ts'
import { freePort } from './free-port.ts'
import type { ServerAddress } from './nbd-frontend.ts'
import type { Scratch } from './scratch.ts'
import { HOST_ADDRESS, startVirtualMachine } from './virtual-machine.ts'
import type { VirtualMachine } from './virtual-machine.ts'
import { scriptedPlugin } from './witness-disk.ts'
import { WitnessLog } from './witness-log.ts'

export interface ParallelWitnessOptions {
  /** Ports of servers in the machine, beyond `SERVER_PORT`. */
  readonly forwardedPorts?: readonly number[]
}

export interface ParallelWitness {
  readonly machine: VirtualMachine
  readonly log: WitnessLog
  /** Writes stay in the disk until they are let go of; what else it is asked it answers. */
  holdWrites(holding: boolean): void
  /** The bytes of the disk as they are now, read past everything. */
  readBack(offset: number, length: number): Buffer
  /** Waits until nothing is in the disk. */
  settle(timeoutMs: number): Promise<void>
}

/** The device in the machine. */
export const WITNESS_DEVICE = '/dev/nbd0'
/** Where the server under test listens, in the machine. */
export const SERVER_PORT = 10_809

const SIZE_BYTES = 64 * 1024 * 1024

export async function startParallelWitness(
  scratch: Scratch,
  options: ParallelWitnessOptions = {},
): Promise<ParallelWitness> {
  const directory = scratch.directory('parallel-witness')
  const backingPath = join(directory, 'back.raw')
  writeFileSync(backingPath, '')
  truncateSync(backingPath, SIZE_BYTES)
  const log = new WitnessLog(join(directory, 'witness.log'))
  const holdTrigger = join(directory, 'hold-writes')
  const port = await freePort()
  const disk = startProgram(scratch, 'nbdkit', [
    ...['-f', '-i', '127.0.0.1', '-p', String(port), '--threads', '64', '--filter=log'],
    ...scriptedPlugin(backingPath, join(directory, 'fail-flushes'), holdTrigger),
    `logfile=${log.path}`,
  ])
  const machine = await startVirtualMachine(scratch, {
    modules: ['nbd'],
    withProject: true,
    forwardedPorts: [SERVER_PORT, ...(options.forwardedPorts ?? [])],
  })
  if (!disk.running) throw new Error(disk.said)
  await machine.check(
    `nbd-client ${HOST_ADDRESS} ${port} ${WITNESS_DEVICE} -N ''
     blockdev --getsize64 ${WITNESS_DEVICE}`,
  )
  return {
    machine,
    log,
    holdWrites: (holding) => {
      if (holding) writeFileSync(holdTrigger, '')
      else rmSync(holdTrigger, { force: true })
    },
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
  timeoutMs = 240_000,
): Promise<MachineServer> {
  const outputPath = `/run/server-${port}.log`
  const pid = Number(await machine.check(`setsid ${command} > ${outputPath} 2>&1 < /dev/null & echo $!`))
  const said = async (): Promise<string> => (await machine.run(`cat ${outputPath}`)).stdout
  // It is asked which sockets listen, because a probing connection could be taken for a client.
  const listening = await machine.run(
    `deadline=$(($(date +%s) + ${timeoutMs / 1_000}))
     while test "$(date +%s)" -lt "$deadline"; do
       if ss -ltnH 'sport = :${port}' | grep -q .; then exit 0; fi
       readlink /proc/${pid}/exe > /run/starting || exit 1
       sleep 1
     done
     exit 1`,
    timeoutMs + 60_000,
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

/** interlockd in the machine, over the witness, as `vda`. */
export interface MachineDaemon extends MachineServer {
  status(): Promise<ExportStatus>
}

/** Its record and its state are in the machine's memory: whoever runs with the same engine is a run of the same host. */
export async function startMachineDaemon(
  machine: VirtualMachine,
  engine: EngineName,
  port = SERVER_PORT,
): Promise<MachineDaemon> {
  const controlPort = port + 1_000
  const directory = `/run/interlockd-${engine}`
  const configuration = [
    `state_directory = "${directory}/state"`,
    `control = ["tcp:127.0.0.1:${controlPort}"]`,
    `listen = ["tcp:0.0.0.0:${port}"]`,
    `engine = "${engine}"`,
    '[ownership]',
    'kind = "directory"',
    `directory = "${directory}/records"`,
    '[[export]]',
    'name = "vda"',
    'image_id = "disk"',
    `path = "${WITNESS_DEVICE}"`,
  ]
  const configurationPath = `${directory}/${port}.toml`
  await machine.check(
    `mkdir -p ${directory}/records; cat > ${configurationPath} << 'END'\n${configuration.join('\n')}\nEND`,
  )
  const daemon = join(import.meta.dirname, '../../bin/interlockd.cjs')
  // What V8 compiles and collects beside the program only delays it on emulated processors: a third of its start.
  const command = `${process.execPath} --single-threaded ${daemon} --config ${configurationPath}`
  const server = await startMachineServer(machine, command, port)
  const question = `GET /v1/exports/vda HTTP/1.1\r\nHost: 127.0.0.1:${controlPort}\r\nConnection: close\r\n\r\n`
  const script = `exec 3<> /dev/tcp/127.0.0.1/${controlPort}; echo ${Buffer.from(question).toString('base64')} | base64 -d >&3; cat <&3`
  return {
    ...server,
    status: async () => {
      const answer = await machine.check(`bash -c '${script}'`)
      return JSON.parse(answer.slice(answer.indexOf('\r\n\r\n'))) as ExportStatus
    },
  }
}
