/**
 * The main job, shown: a live disk is handed over between two daemons on one image while a frontend keeps writing, and
 * every block is checked afterwards. The source host stalls in the middle (its process is stopped), as hosts do.
 *
 *   npm run demo                            with the interlock: the destination opens when the source has proved to be quiet
 *   npm run demo -- --without-interlock     the same script with two servers that know nothing of each other
 *
 * Ends with one plain verdict; the exit code is 0 when no write was lost, else 1.
 */

import { spawn } from 'node:child_process'
import type { ChildProcess } from 'node:child_process'
import { once } from 'node:events'
import { closeSync, mkdtempSync, openSync, readSync, rmSync, statfsSync, writeFileSync, writeSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { dirname, join } from 'node:path'
import { createInterface } from 'node:readline'
import { setTimeout as sleep } from 'node:timers/promises'
import { fileURLToPath } from 'node:url'
import { connect as connectControl } from '../src/client/index.ts'
import type { Receipt } from '../src/client/index.ts'
import { connect } from 'node:net'
import { NbdFrontend } from '../test/support/nbd-frontend.ts'

const BLOCK_BYTES = 4096
const BLOCKS = 2048
const WARM_UP_WRITES = 2000
const IN_FLIGHT = 32
const STALL_MS = 1500

const root = dirname(dirname(fileURLToPath(import.meta.url)))
/** Memory is no disk: where the directory for temporary files is in memory, the checkout's own is taken. */
const TMPFS = 0x01021994
const parent = statfsSync(tmpdir()).type === TMPFS ? root : tmpdir()
const folder = mkdtempSync(join(parent, 'interlockd-demo-'))
const imagePath = join(folder, 'vda.raw')
const children: ChildProcess[] = []
const beganMs = performance.now()
const withInterlock = !process.argv.includes('--without-interlock')

/** The newest number that was written to each block, and whether that write was answered. */
const written = new Map<number, { number: number; answered: boolean }>()
let lastNumber = 0

function tell(text: string): void {
  const seconds = ((performance.now() - beganMs) / 1000).toFixed(2).padStart(6)
  console.log(`${seconds} s  ${text}`)
}

function makeImage(): void {
  const image = openSync(imagePath, 'wx')
  const chunk = Buffer.alloc(256 * BLOCK_BYTES)
  for (let at = 0; at < BLOCKS * BLOCK_BYTES; at += chunk.length) writeSync(image, chunk, 0, chunk.length, at)
  closeSync(image)
}

/** Starts a program and resolves with its process once it says that it is ready. */
function start(name: string, command: readonly string[]): Promise<ChildProcess> {
  const child = spawn(process.execPath, command, { cwd: root, stdio: ['ignore', 'pipe', 'pipe'] })
  children.push(child)
  return new Promise((resolve, reject) => {
    const said: string[] = []
    for (const stream of [child.stdout, child.stderr]) {
      createInterface({ input: stream }).on('line', (line) => {
        said.push(line)
        if (line.includes('"msg":"ready"')) resolve(child)
      })
    }
    child.once('exit', (code) => {
      reject(new Error(`the ${name} ended with ${String(code)}:\n${said.join('\n')}`))
    })
  })
}

function startHost(name: 'source' | 'destination'): Promise<ChildProcess> {
  const socketPath = nbdSocket(name)
  if (!withInterlock) {
    return start(name, ['--import', 'tsx', join(root, 'demo/server-without-interlock.ts'), socketPath, imagePath])
  }
  const file = join(folder, `${name}.toml`)
  writeFileSync(
    file,
    [
      `state_directory = "${join(folder, `${name}-state`)}"`,
      `listen = ["unix:${socketPath}"]`,
      `control = ["unix:${controlSocket(name)}"]`,
      '[ownership]',
      'kind = "none"',
      '[[export]]',
      'name = "vda"',
      `path = "${imagePath}"`,
      `standby = ${String(name === 'destination')}`,
    ].join('\n'),
  )
  return start(name, [join(root, 'bin/interlockd.cjs'), '--config', file])
}

function nbdSocket(name: string): string {
  return join(folder, `${name}.nbd`)
}

function controlSocket(name: string): string {
  return join(folder, `${name}.control`)
}

async function frontendTo(name: 'source' | 'destination'): Promise<NbdFrontend> {
  const socket = connect({ path: nbdSocket(name) })
  const frontend = new NbdFrontend(socket)
  await frontend.negotiate('vda')
  return frontend
}

/** Writes the next number into a block. */
function writeBlock(frontend: NbdFrontend, block: number): Promise<unknown> {
  lastNumber += 1
  const number = lastNumber
  written.set(block, { number, answered: false })
  const sent = frontend.write(block * BLOCK_BYTES, numbered(number))
  return sent.reply.then(
    () => {
      const entry = written.get(block)
      if (entry?.number === number) written.set(block, { number, answered: true })
    },
    () => undefined,
  )
}

function numbered(number: number): Buffer {
  const block = Buffer.alloc(BLOCK_BYTES)
  for (let at = 0; at < BLOCK_BYTES; at += 8) block.writeBigUInt64LE(BigInt(number), at)
  return block
}

/** Blocks whose newest answered write is not what the image holds. */
function lostBlocks(): { block: number; expected: number; found: number }[] {
  const image = openSync(imagePath, 'r')
  const bytes = Buffer.alloc(BLOCK_BYTES)
  const lost: { block: number; expected: number; found: number }[] = []
  for (const [block, { number, answered }] of written) {
    readSync(image, bytes, 0, BLOCK_BYTES, block * BLOCK_BYTES)
    const found = Number(bytes.readBigUInt64LE(0))
    const whole = bytes.equals(numbered(found))
    if (answered && (found !== number || !whole)) lost.push({ block, expected: number, found })
  }
  closeSync(image)
  return lost
}

async function warmUp(frontend: NbdFrontend): Promise<void> {
  const running = new Set<Promise<unknown>>()
  for (let count = 0; count < WARM_UP_WRITES; count += 1) {
    const write = writeBlock(frontend, (count * 37) % BLOCKS).finally(() => running.delete(write))
    running.add(write)
    if (running.size >= IN_FLIGHT) await Promise.race(running)
  }
  await Promise.all(running)
}

function printReceipt(receipt: Receipt): void {
  const { drained, elapsedMs, generation, clearedBy } = receipt
  tell(`  receipt: generation ${generation} closed, cleared by ${clearedBy}, nonce ${receipt.nonce.slice(0, 8)}…`)
  tell(
    `           drained ${drained.writes} writes (${drained.bytes} bytes); indeterminate: ${receipt.indeterminate.length}`,
  )
  tell(
    `           drain ${elapsedMs.drain.toFixed(1)} ms, fdatasync ${elapsedMs.sync.toFixed(1)} ms,` +
      ` descriptor and lock ${elapsedMs.record.toFixed(1)} ms`,
  )
}

/** With the interlock: nothing is opened before the source has proved that it is quiet. */
async function handOver(wake: () => void): Promise<void> {
  const source = connectControl(`unix:${controlSocket('source')}`)
  const destination = connectControl(`unix:${controlSocket('destination')}`)
  const { nonce } = await destination.status('vda')
  tell(`orchestrator: asks the source to close, with the nonce of the destination's standby`)
  const closing = source.close('vda', { nonce })
  setTimeout(wake, STALL_MS)
  const outcome = await closing
  if (!outcome.done) throw new Error('the close did not end')
  tell('orchestrator: has the receipt; only now may the guest run elsewhere')
  printReceipt(outcome.receipt)
  const opened = await destination.open('vda', { receipt: outcome.receipt })
  tell(`orchestrator: opened generation ${opened.generation} on the destination with that receipt`)
}

async function main(): Promise<boolean> {
  tell(`image ${imagePath}, ${(BLOCKS * BLOCK_BYTES) / 1048576} MiB`)
  makeImage()
  const sourceProcess = await startHost('source')
  await startHost('destination')
  tell(withInterlock ? 'source is open, destination waits in standby' : 'two servers without an interlock serve it')
  const before = await frontendTo('source')
  await warmUp(before)
  tell(`frontend: ${WARM_UP_WRITES} numbered writes answered by the source`)

  sourceProcess.kill('SIGSTOP')
  const inFlight: number[] = []
  for (let count = 0; count < IN_FLIGHT; count += 1) {
    inFlight.push(count * 13)
    void writeBlock(before, count * 13)
  }
  await sleep(200)
  tell(`the source host stalls with ${before.shadowRing.length} writes in flight; the guest is migrated now`)
  let wakeAtMs = 0
  const wake = (): void => {
    wakeAtMs = performance.now()
    sourceProcess.kill('SIGCONT')
    tell('the source host goes on')
  }
  if (withInterlock) await handOver(wake)
  else tell('orchestrator: asks nobody; the guest runs at the destination at once')

  const after = await frontendTo('destination')
  const reissued = after.reissue(before)
  before.drop()
  await Promise.all(reissued.map((sent) => sent.reply))
  tell(`frontend: reissued its ${reissued.length} unanswered writes to the destination`)
  await Promise.all(inFlight.map((block) => writeBlock(after, block)))
  tell(`frontend: then wrote something newer to the same ${inFlight.length} blocks, and was answered`)
  if (wakeAtMs === 0) wake()
  await sleep(1000)
  const lost = lostBlocks()
  tell(`verification: ${written.size} blocks read back from the image`)
  for (const { block, expected, found } of lost.slice(0, 4)) {
    tell(`  block ${block}: answered write ${expected} is gone, the image holds ${found}`)
  }
  await after.disconnect()
  console.log('')
  if (lost.length === 0)
    console.log('VERDICT: nothing lost. Every answered write is on the disk, and no old one came after it.')
  else console.log(`VERDICT: DATA LOST. ${lost.length} answered writes were overwritten by older ones.`)
  return lost.length === 0
}

try {
  process.exitCode = (await main()) ? 0 : 1
} catch (error) {
  console.error(error instanceof Error ? error.message : error)
  process.exitCode = 1
} finally {
  for (const child of children) {
    child.removeAllListeners('exit')
    child.kill('SIGCONT')
    child.kill('SIGTERM')
  }
  for (const child of children) {
    if (child.exitCode === null && child.signalCode === null) await once(child, 'exit')
  }
  rmSync(folder, { recursive: true, force: true })
}
