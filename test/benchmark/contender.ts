/**
 * Who is measured: interlockd with each of its engines, the other servers, each in the mode in which it promises what
 * the row asks for, and the bare file as the limit. A contender starts, says where it serves, and is gone when the
 * scratch is disposed.
 */

import { readFileSync, writeFileSync } from 'node:fs'
import { connect } from 'node:net'
import { join } from 'node:path'
import { requirePeer } from '../../scripts/peers.mjs'
import { startDaemon } from '../support/daemon.ts'
import type { EngineName } from '../support/daemon.ts'
import { eventually } from '../support/eventually.ts'
import { runChecked, startProgram } from '../support/foreign-program.ts'
import { freePort } from '../support/free-port.ts'
import type { Scratch } from '../support/scratch.ts'
import type { Target } from './fio.ts'
import { isAlive } from './process-usage.ts'
import type { Row, Transport } from './row.ts'

export const EXPORT_NAME = 'vda'

/** Where a contender serves, and the root of its processes; the bare file has none. */
export interface Serving {
  readonly target: Target
  readonly pid: number | null
}

/** The parts of a row that a server must know. */
export type ServingTerms = Pick<Row, 'mode' | 'transport' | 'connections'>

export interface Contender {
  readonly name: ContenderName
  readonly label: string
  readonly ours: boolean
  /** Ways to run it of which the best counts, found by a short trial; one means there is nothing to try. */
  readonly variants: readonly string[]
  /** In this mode its I/O goes through the page cache: its figures are shown, and are not a fair comparison. */
  cached(mode: Row['mode']): boolean
  start(scratch: Scratch, image: string, terms: ServingTerms, variant: string): Promise<Serving>
}

export const CONTENDER_NAMES = ['io_uring', 'file', 'qemu-nbd', 'nbd-server', 'nbdkit', 'bare'] as const
export type ContenderName = (typeof CONTENDER_NAMES)[number]

const START_TIMEOUT_MS = 10_000
const STOP_TIMEOUT_MS = 10_000
const PLAIN = ['']

export const CONTENDERS: Readonly<Record<ContenderName, Contender>> = {
  io_uring: interlockd('io_uring', 'interlockd, io_uring'),
  file: interlockd('file', 'interlockd, file engine'),
  'qemu-nbd': {
    name: 'qemu-nbd',
    label: 'qemu-nbd',
    ours: false,
    variants: ['io_uring', 'native', 'threads'],
    cached: () => false,
    start: startQemuNbd,
  },
  'nbd-server': {
    name: 'nbd-server',
    label: 'nbd-server',
    ours: false,
    variants: PLAIN,
    cached: () => true,
    start: startNbdServer,
  },
  nbdkit: {
    name: 'nbdkit',
    label: 'nbdkit file',
    ours: false,
    variants: PLAIN,
    cached: () => true,
    start: startNbdkit,
  },
  bare: {
    name: 'bare',
    label: 'fio on the bare file',
    ours: false,
    variants: PLAIN,
    cached: () => false,
    start: (_scratch, image) => Promise.resolve({ target: { path: image }, pid: null }),
  },
}

function interlockd(engine: EngineName, label: string): Contender {
  return {
    name: engine,
    label,
    ours: true,
    variants: PLAIN,
    cached: () => false,
    start: async (scratch, image, terms) => {
      const daemon = await startDaemon(scratch, {
        engine,
        exports: [exportEntry(image, terms)],
      })
      const uri =
        terms.transport === 'unix' ? daemon.uri(EXPORT_NAME) : `nbd://127.0.0.1:${daemon.nbdPort}/${EXPORT_NAME}`
      return { target: { uri }, pid: daemon.pid }
    },
  }
}

export function exportEntry(image: string, terms: Pick<Row, 'mode' | 'connections'>) {
  return {
    name: EXPORT_NAME,
    path: image,
    durability: terms.mode === 'durable' ? 'sync' : 'writeback',
    clients: terms.connections > 1 ? 'shared' : 'exclusive',
  }
}

async function startQemuNbd(scratch: Scratch, image: string, terms: ServingTerms, variant: string): Promise<Serving> {
  const place = await newPlace(scratch, terms.transport)
  const cache = terms.mode === 'durable' ? 'directsync' : 'none'
  const program = startProgram(scratch, requirePeer('qemu-nbd'), [
    ...['--format=raw', `--cache=${cache}`, `--aio=${variant}`, '--discard=unmap', '--persistent'],
    ...[`--shared=${terms.connections + 1}`, '--export-name', EXPORT_NAME],
    ...(terms.transport === 'unix' ? ['--socket', place.path] : ['--bind=127.0.0.1', `--port=${place.port}`]),
    image,
  ])
  await program.until('listening qemu-nbd', START_TIMEOUT_MS, knocking(place))
  return { target: { uri: place.uri }, pid: program.pid }
}

async function startNbdkit(scratch: Scratch, image: string, terms: ServingTerms): Promise<Serving> {
  const place = await newPlace(scratch, terms.transport)
  const plugin = ['file', image]
  const program = startProgram(scratch, requirePeer('nbdkit'), [
    ...['--foreground', '--exit-with-parent'],
    ...(terms.transport === 'unix' ? ['--unix', place.path] : ['--ipaddr=127.0.0.1', `--port=${place.port}`]),
    ...(terms.mode === 'durable' ? ['--filter=fua', ...plugin, 'fuamode=force'] : [...plugin, 'cache=none']),
  ])
  await program.until('listening nbdkit', START_TIMEOUT_MS, knocking(place))
  return { target: { uri: place.uri }, pid: program.pid }
}

/** nbd-server serves more than one connection only as a daemon: its process is nobody's child, and ended by its pid. */
async function startNbdServer(scratch: Scratch, image: string, terms: ServingTerms): Promise<Serving> {
  const directory = scratch.directory('nbd-server')
  const place = await newPlace(scratch, terms.transport)
  const configuration = join(directory, 'nbd-server.conf')
  const pidFile = join(directory, 'nbd-server.pid')
  const durable = terms.mode === 'durable'
  const port = terms.transport === 'tcp' ? place.port : await freePort()
  writeFileSync(
    configuration,
    [
      '[generic]',
      `port = ${port}`,
      'listenaddr = 127.0.0.1',
      ...(terms.transport === 'unix' ? [`unixsock = ${place.path}`] : []),
      `[${EXPORT_NAME}]`,
      `exportname = ${image}`,
      'flush = true',
      'fua = true',
      ...(durable ? ['sync = true'] : []),
      '',
    ].join('\n'),
  )
  await runChecked(requirePeer('nbd-server'), ['-C', configuration, '-p', pidFile])
  const pid = await eventually('pid of nbd-server', () => Number(readFileSync(pidFile, 'utf8')) || undefined)
  scratch.defer('nbd-server', () => endByPid(pid))
  const knock = knocking(place)
  await eventually('listening nbd-server', knock, { timeoutMs: START_TIMEOUT_MS })
  return { target: { uri: place.uri }, pid }
}

async function endByPid(pid: number): Promise<void> {
  process.kill(pid, 'SIGTERM')
  await eventually(`end of process ${pid}`, () => !isAlive(pid), { timeoutMs: STOP_TIMEOUT_MS })
}

interface Place {
  readonly path: string
  readonly port: number
  readonly transport: Transport
  readonly uri: string
}

async function newPlace(scratch: Scratch, transport: Transport): Promise<Place> {
  if (transport === 'tcp') {
    const port = await freePort()
    return { path: '', port, transport, uri: `nbd://127.0.0.1:${port}/${EXPORT_NAME}` }
  }
  const path = join(scratch.directory('socket'), 'nbd.sock')
  return { path, port: 0, transport, uri: `nbd+unix:///${EXPORT_NAME}?socket=${path}` }
}

/** A question: does somebody listen there? Each time it is asked without success it knocks again. */
function knocking(place: Place): () => boolean {
  let open = false
  const knock = (): void => {
    const socket = connect(place.transport === 'tcp' ? { port: place.port, host: '127.0.0.1' } : { path: place.path })
    socket.on('connect', () => {
      open = true
      socket.destroy()
    })
    socket.on('error', () => undefined)
  }
  return () => {
    if (!open) knock()
    return open
  }
}
