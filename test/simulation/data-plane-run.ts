/**
 * One run of the simulation that `data-plane.test.ts` describes: exports that live through random rounds, clients that
 * behave as badly as clients may, and the checks that hold all the time or at the end. Everything follows from the seed.
 */

import { Phase } from '../../src/interlock/request-tracker.ts'
import type { ServedExport } from '../../src/data/served-export.ts'
import { assert, present } from '../../src/foundation/assert.ts'
import type { ClientGone, Notice } from '../../src/plane-link/reports.ts'
import type { FrontendRequest } from '../support/simulated-frontend.ts'
import { COMMAND, ERROR, FLAG } from '../support/simulated-frontend.ts'
import type { DiskRecord } from '../support/simulated-engine.ts'
import type { DiskSubmission } from '../support/simulated-plane.ts'
import { SimulatedPlane } from '../support/simulated-plane.ts'
import { SeededRandom } from '../support/seeded-random.ts'
import { ExportLife } from './export-life.ts'
import { ImageModel } from './image-model.ts'
import type { ModelWrite } from './image-model.ts'
import { EIO, ENOSPC, EOPNOTSUPP } from './run-facts.ts'
import type { RunSummary } from './run-facts.ts'
import { NOISE, RequestMix } from './request-mix.ts'
import { UnrulyClient } from './unruly-client.ts'

const BLOCK_BYTES = 512
const PART_BYTES = 48 * 1024
const STEPS_MAX = 60_000

export class DataPlaneRun {
  readonly #random: SeededRandom
  readonly #mix: RequestMix
  readonly #harness: SimulatedPlane
  readonly #lives: ExportLife[] = []
  readonly #models = new Map<number, ImageModel>()
  readonly #clients: UnrulyClient[] = []
  readonly #writes = new Map<FrontendRequest, ModelWrite>()
  /** By slot: the write in it. */
  readonly #slots = new Map<number, ModelWrite>()
  readonly #aborted: ModelWrite[] = []
  readonly #faultChance: number
  #faultsAllowed = true
  /** Counts events; orders them. */
  #now = 1
  #faults = 0
  #frozenFor = 0

  constructor(seed: number) {
    const random = new SeededRandom(seed)
    this.#random = random
    this.#mix = new RequestMix(random, PART_BYTES)
    this.#faultChance = random.pick([0, 0, 0.01, 0.05])
    const exportsCount = random.between(1, 3)
    const slotsMax = random.pick([4, 8, 16, 48])
    this.#harness = new SimulatedPlane({
      seed,
      parts: exportsCount,
      partBytes: PART_BYTES,
      limits: {
        slotsMax,
        connectionsMax: random.pick([4, 8]),
        requestsPerConnectionMax: Math.min(slotsMax, random.pick([2, 4, 16])),
        arenaBytes: random.pick([128, 256, 1024]) * 1024,
        inboxBytes: random.pick([4096, 8192, 65536]),
        payloadBytesMax: PART_BYTES,
        stalledPeerMs: 400,
        farewellMs: 60,
      },
      engine: {
        blockBytes: BLOCK_BYTES,
        diskDepth: random.pick([1, 2, 8, 32]),
        socketBufferBytes: random.pick([64, 4096, 65536]),
        shortChance: random.pick([0, 0.1, 0.5]),
        batchChance: random.pick([0.1, 0.6, 0.9]),
        plan: (record) => this.#plan(record),
      },
    })
    this.#harness.engine.disk.format(NOISE.subarray(0, PART_BYTES * exportsCount))
    for (let exportId = 1; exportId <= exportsCount; exportId += 1) this.#begin(exportId)
    this.#watch()
  }

  run(): RunSummary {
    const cutAt = this.#random.chance(0.3) ? this.#random.between(20, 700) : Infinity
    for (let steps = 0; steps < STEPS_MAX; steps += 1) {
      if (steps === cutAt) return this.#powerCut()
      this.#act()
      this.#step()
      if (this.#lives.every((life) => life.isOver) && this.#clients.every((client) => this.#isDone(client))) break
      assert(steps < STEPS_MAX - 1, 'the run comes to its end')
    }
    this.#finish()
    return this.#summary(false)
  }

  // Set up.

  #begin(exportId: number): void {
    const random = this.#random
    const life = new ExportLife(this.#harness, random, {
      exportId,
      durability: random.pick(['sync', 'sync', 'writeback']),
      clients: random.pick(['exclusive', 'exclusive', 'shared']),
      sizeBytes: PART_BYTES,
      readOnly: random.chance(0.08),
      alignmentBytes: random.pick([512, 512, 1024, 4096]),
      rounds: random.between(1, 4),
    })
    const model = new ImageModel(PART_BYTES, BLOCK_BYTES, (position, length) =>
      this.#harness.disk(position, length, exportId),
    )
    life.onHolds = (holds) => {
      model.holds = holds
    }
    life.onSynced = (since) => {
      model.synced(since)
    }
    life.onDrained = (indeterminate) => {
      model.checkIndeterminate(indeterminate)
    }
    life.clock = () => this.#tick()
    life.onAttached = (served) => {
      this.#watchLedger(served, model)
    }
    life.onAborted = (aborted) => {
      for (const { client, cookie } of aborted) this.#wasAborted(client, Number(`0x${cookie}`))
    }
    this.#models.set(exportId, model)
    this.#lives.push(life)
  }

  #watch(): void {
    const harness = this.#harness
    harness.onDisk = (submission) => {
      this.#submitted(submission)
    }
    harness.onNotice = (notice) => {
      this.#noticed(notice)
    }
    harness.onTurn = () => {
      for (const model of this.#models.values()) model.checkUntouched()
    }
  }

  /** The ledger is where a write is admitted and where it leaves; what it answers is its own affair. */
  #watchLedger(served: ServedExport, model: ImageModel): void {
    const { ledger } = served
    const admit = ledger.admit.bind(ledger)
    const clear = ledger.clear.bind(ledger)
    ledger.admit = (slot, offset, length) => {
      const write = this.#writeIn(slot, { offset, length })
      this.#slots.set(slot, write)
      model.admit(write)
      return admit(slot, offset, length)
    }
    ledger.clear = (slot, ready) => {
      const write = present(this.#slots.get(slot), `the write in slot ${slot}`)
      this.#slots.delete(slot)
      model.clear(write, this.#tick())
      clear(slot, ready)
    }
  }

  #writeIn(slot: number, wide: { readonly offset: number; readonly length: number }): ModelWrite {
    const { state } = this.#harness.plane
    const client = this.#clientOf(state.connectionOf(slot).clientId)
    client.life.wrote(client.frontend.clientId)
    const cookie = Number(`0x${state.tracker.cookieText(slot)}`)
    const request = present(client.frontend.requests.get(cookie), `the request with cookie ${cookie}`)
    const write: ModelWrite = {
      what: `${request.cookie.toString(16)} (command ${request.command}, ${request.offset}+${request.length})`,
      command: request.command,
      range: { offset: request.offset, length: request.length },
      wide,
      payload: request.payload,
      submissions: 0,
      cleared: false,
      clearedAt: 0,
      failed: false,
      applied: false,
    }
    this.#writes.set(request, write)
    return write
  }

  #clientOf(clientId: number): UnrulyClient {
    return present(
      this.#clients.find(({ frontend }) => frontend.clientId === clientId),
      `client ${clientId}`,
    )
  }

  // What happens, and what must be so.

  #tick(): number {
    this.#now += 1
    return this.#now
  }

  #plan(record: DiskRecord): number {
    if (!this.#faultsAllowed) return 0
    if (record.kind === 'discard' || record.kind === 'zero') {
      if (this.#random.chance(0.2)) return -EOPNOTSUPP
    }
    if (!this.#random.chance(this.#faultChance)) return 0
    if (record.kind === 'sync' && this.#random.chance(0.5)) return 0
    return this.#random.pick([-EIO, -ENOSPC])
  }

  #submitted(submission: DiskSubmission): void {
    const { kind, part, generation, token, position, lengthBytes } = submission
    const exportId = part + 1
    const life = present(this.#lives[part], 'the life of an export')
    if (kind === 'sync') return
    assert(!life.isQuiet, `export ${exportId}: nothing is submitted after its drain was reported`)
    if (kind === 'read') return
    const allowed = Atomics.load(present(this.#harness.cells.get(exportId), 'a cell'), 0)
    assert(generation > 0 && allowed === generation, `export ${exportId}: generation ${generation} may write`)
    const slot = (token >> 3) & 0xffff
    const write = present(this.#slots.get(slot), `the write in slot ${slot}`)
    present(this.#models.get(exportId), 'a model').submit(write, { offset: position, length: lengthBytes })
  }

  #wasAborted(clientId: number, cookie: number): void {
    const request = present(this.#clientOf(clientId).frontend.requests.get(cookie), 'a request that was aborted')
    assert(request.reply === undefined, 'what was aborted was not answered')
    const write = this.#writes.get(request)
    if (write !== undefined) this.#aborted.push(write)
  }

  #noticed(notice: Notice): void {
    if (notice.kind === 'exportFaulted') {
      this.#faults += 1
      assert(this.#faultsAllowed, 'an export is faulted only by its disk')
      present(this.#lives[notice.exportId - 1], 'the life of an export').fault()
    }
    if (notice.kind === 'writeFailed') {
      const life = present(this.#lives[notice.exportId - 1], 'the life of an export')
      if (life.durability === 'sync') present(this.#models.get(notice.exportId), 'a model').failed(notice.range)
    }
    if (notice.kind === 'clientGone') this.#clientGone(notice)
  }

  #clientGone(notice: ClientGone): void {
    const { frontend, life, departed } = this.#clientOf(notice.clientId)
    if (notice.reason === 'starved') {
      const stands = !frontend.isReading || frontend.unsentBytes > 0 || departed || !life.isAdmitting
      assert(stands, `client ${notice.clientId} was cut as stalled and stood still: ${notice.detail}`)
    }
    if (notice.reason === 'lost') assert(frontend.hasFinished, 'a connection is lost only when its client cuts it')
    if (notice.reason === 'protocol') assert(departed, 'only who breaks the protocol is cut for it')
    if (notice.reason === 'evicted' || notice.reason === 'barred') {
      assert(life.clients === 'exclusive', 'nobody is evicted where all may write')
    }
  }

  #replied(client: UnrulyClient, request: FrontendRequest): void {
    const { error, data } = present(request.reply, 'a reply')
    const sentAt = present(client.sentAt.get(request.cookie), 'when it was sent')
    const what = `client ${client.frontend.clientId}, cookie ${request.cookie.toString(16)}`
    const deserved = client.deserved.get(request.cookie)
    if (deserved !== undefined) {
      assert(error === deserved, `${what}: error ${error}, and ${deserved} was due`)
      return
    }
    const write = this.#writes.get(request)
    if (write !== undefined) assert(!this.#aborted.includes(write), `${what}: what was aborted is not answered`)
    if (error !== 0) {
      this.#checkError(client, request, error, what)
      return
    }
    const model = present(this.#models.get(client.life.exportId), 'a model')
    if (request.command === COMMAND.READ) model.checkRead(what, request.offset, data, sentAt)
    if (request.command === COMMAND.FLUSH && client.life.generationEver > 0) model.flushed(sentAt)
    if (write === undefined) return
    const promised = client.life.durability === 'sync' || (request.flags & FLAG.FUA) !== 0
    model.answered(write, promised && request.command !== COMMAND.TRIM)
  }

  #checkError(client: UnrulyClient, request: FrontendRequest, error: number, what: string): void {
    switch (error) {
      case ERROR.EIO:
      case ERROR.ENOSPC:
        assert(this.#faultChance > 0, `${what}: error ${error} on a good disk`)
        return
      case ERROR.ESHUTDOWN:
        assert(client.life.everRefused, `${what}: refused by a gate that never refused`)
        return
      case ERROR.ENOTSUP:
        assert((request.flags & FLAG.FAST_ZERO) !== 0, `${what}: NBD_ENOTSUP belongs to a fast zero`)
        return
      default:
        throw new Error(`${what}: unexpected error ${error}`)
    }
  }

  // The world around the plane.

  #step(): void {
    this.#harness.step()
    if (this.#random.chance(0.5)) this.#harness.nowMs += this.#random.between(0, 4)
    if (this.#random.chance(0.01)) {
      // Before much time passes, all that takes little time has happened.
      this.#harness.settle()
      this.#harness.nowMs += this.#random.between(0, 500)
      if (this.#harness.clockWanted) this.#harness.engine.wake()
    }
    for (const { frontend } of this.#clients) frontend.poll()
    for (const life of this.#lives) life.step()
  }

  #act(): void {
    const random = this.#random
    this.#freezeOrThaw()
    if (random.chance(0.08)) this.#connect()
    for (const client of this.#clients) {
      if (this.#harness.gone.has(client.frontend.clientId)) continue
      if (random.chance(0.4)) client.act()
    }
  }

  #freezeOrThaw(): void {
    if (this.#frozenFor > 0) {
      this.#frozenFor -= 1
      if (this.#frozenFor === 0) this.#harness.engine.setDiskFrozen(false)
    } else if (this.#random.chance(0.005)) {
      this.#frozenFor = this.#random.between(1, 80)
      this.#harness.engine.setDiskFrozen(true)
    }
  }

  #connect(): void {
    const random = this.#random
    const live = this.#clients.filter(({ frontend }) => !this.#harness.gone.has(frontend.clientId)).length
    if (live >= this.#harness.limits.connectionsMax || this.#clients.length > 40) return
    const life = random.pick(this.#lives)
    if (!life.isAttached || life.isOver) return
    // In an exclusive export every newcomer that writes ends somebody: not too many of them, or nothing gets done.
    const rivals = this.#clients.filter((one) => one.life === life && !this.#harness.gone.has(one.frontend.clientId))
    if (life.clients === 'exclusive' && rivals.length > 0 && !random.chance(0.1)) return
    const identity = `host-${random.between(1, 3)}`
    const { frontend, adoption } = this.#harness.connectLater(life.exportId, { peerIdentity: identity })
    const client = new UnrulyClient(frontend, life, random, this.#mix, () => this.#tick())
    this.#clients.push(client)
    frontend.onReply = (request) => {
      this.#replied(client, request)
    }
    for (let count = random.between(0, 3); count > 0; count -= 1) client.request()
    const unread = random.chance(0.5) ? frontend.takeUnsent(random.between(0, frontend.unsentBytes)) : new Uint8Array(0)
    this.#harness.post({ ...adoption, unread })
  }

  #isDone({ frontend, isIdle }: UnrulyClient): boolean {
    return isIdle || this.#harness.gone.has(frontend.clientId)
  }

  // The end.

  /** Power goes; what was promised must be there. */
  #powerCut(): RunSummary {
    for (const { frontend } of this.#clients) frontend.poll()
    this.#harness.engine.powerCut()
    for (const model of this.#models.values()) model.checkSurvivors()
    return this.#summary(true)
  }

  #finish(): void {
    const harness = this.#harness
    this.#faultsAllowed = false
    harness.engine.setDiskFrozen(false)
    for (const life of this.#lives) life.reopen(() => this.#settle())
    for (const { frontend, departed } of this.#clients) {
      if (!departed) frontend.deliver()
      if (!departed && !frontend.isReading && this.#random.chance(0.7)) frontend.setReading(true)
    }
    // Whoever stands still is cut after a while, one after the other.
    for (let round = 0; round < 50; round += 1) {
      this.#settle()
      harness.pass(harness.limits.stalledPeerMs + 1)
    }
    this.#settle()
    this.#checkAnswered()
    for (const life of this.#lives) life.close(() => this.#settle())
    this.#checkImages()
    this.#disposeOfAll()
  }

  #settle(): void {
    this.#harness.settle()
    for (const { frontend } of this.#clients) frontend.poll()
    this.#harness.settle()
  }

  /** Whoever kept to the rules and is still there has every answer. */
  #checkAnswered(): void {
    for (const { frontend, departed } of this.#clients) {
      if (departed || this.#harness.gone.has(frontend.clientId) || !frontend.isReading) continue
      const first = frontend.unanswered[0]
      assert(
        first === undefined,
        `client ${frontend.clientId} has ${frontend.unanswered.length} requests unanswered, from ${first?.cookie.toString(16) ?? ''}`,
      )
    }
    const { tracker } = this.#harness.plane.state
    for (const phase of tracker.phase) {
      assert(phase === Phase.FREE || phase === Phase.CLEARED || phase === Phase.PARSED, 'nothing admitted is left')
    }
  }

  #checkImages(): void {
    for (const model of this.#models.values()) {
      assert(model.unclearedCount === 0, 'every admitted write has cleared')
      model.checkUntouched()
    }
    for (const write of this.#aborted) assert(write.submissions === 0, `${write.what} was aborted and not submitted`)
    // Everything was synced by the closes: pulling the plug changes nothing.
    this.#harness.engine.disk.powerCut()
    for (const model of this.#models.values()) model.checkUntouched()
  }

  #disposeOfAll(): void {
    const harness = this.#harness
    const half = this.#lives.filter(() => this.#random.chance(0.5))
    for (const { exportId } of half) harness.order({ kind: 'detachExport', exportId })
    const stop = harness.post({ kind: 'stop' })
    this.#settle()
    harness.pass(harness.limits.farewellMs + 1)
    this.#settle()
    assert(harness.hasReported(stop), 'the worker stops whatever its clients do')
    harness.assertNothingLeft()
  }

  #summary(powerCut: boolean): RunSummary {
    const reasons = new Map<string, number>()
    for (const { reason } of this.#harness.gone.values()) reasons.set(reason, (reasons.get(reason) ?? 0) + 1)
    const requests = this.#clients.flatMap(({ frontend }) => [...frontend.requests.values()])
    return {
      requests: requests.length,
      answered: requests.filter((request) => request.reply !== undefined).length,
      reasons,
      rounds: this.#lives.reduce((sum, life) => sum + life.roundsDone, 0),
      faults: this.#faults,
      powerCut,
    }
  }
}
