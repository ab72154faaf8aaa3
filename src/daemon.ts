/**
 * The composition root: builds both planes from a configuration, and takes them apart in reverse. Nothing else creates a
 * worker, a listener or a control server, and nothing else knows all of them.
 *
 * Stopping: the listeners close, then every export is closed (drained, durable, recorded), then the workers and the
 * control server end. What cannot be closed in time is named; it is then open in the record, as after a crash.
 */

import { readFileSync } from 'node:fs'
import { setTimeout as sleep } from 'node:timers/promises'
import type { Logger } from 'pino'
import { BlockingPool } from './blocking/blocking-pool.ts'
import type { Configuration } from './config/configuration.ts'
import { ControlServer } from './control/control-server.ts'
import type { DaemonFacts } from './control/daemon-facts.ts'
import { chooseEngine } from './engine/choice.ts'
import { Preflight } from './exports/preflight/preflight.ts'
import { ExportRegistry } from './exports/registry.ts'
import { ExportStacks } from './exports/stacks.ts'
import { within } from './exports/within.ts'
import { WorkerPool } from './exports/worker-pool.ts'
import { eachAtOnce } from './foundation/at-once.ts'
import { formatEndpoint } from './foundation/endpoint.ts'
import type { Refusal } from './foundation/refusal.ts'
import { ConnectionAllowance } from './intake/connection-allowance.ts'
import { Listener } from './intake/listener.ts'
import type { LocalIdentity } from './ownership/local-identity.ts'
import { LocalHost } from './ownership/local-host.ts'
import { notifySystemd } from './posix/process.ts'
import { claimProcessLimits } from './process-limits.ts'
import { RecordHomes } from './record-homes.ts'
import { reload } from './reload.ts'
import type { ReloadOutcome } from './reload.ts'

export interface StopOutcome {
  /** One sentence for each export that could not be closed. */
  readonly unclosed: readonly string[]
}

/** A stopped daemon is started again by its caller, never by itself. */
export interface Daemon {
  /** As URLs, with the ports that the kernel chose. */
  readonly listening: { readonly nbd: readonly string[]; readonly control: readonly string[] }
  /** Settles when the daemon has stopped, whoever asked for it. */
  readonly stopped: Promise<StopOutcome>
  /** Closes all exports, then everything else. Asked again it is the same stop. */
  stop(): Promise<StopOutcome>
  /**
   * Takes over what can change while it runs, and says what did not. One at a time; a stop comes before. Rejects as `read`
   * throws, and then nothing has changed.
   */
  reload(read: () => Configuration): Promise<ReloadOutcome>
  /** For a process that is about to kill itself: wakes whoever sleeps in the kernel. */
  abandon(): void
}

/** How long a start waits for a lock that the last run's writes may still hold. */
const START_LOCK_TIMEOUT_MS = 30_000
/** A start in which no export gets any further for so long serves those that have answered. */
const START_PATIENCE_MS = 10_000
const START_LOOK_MS = 500
/** As many as there are threads that can wait for their records. */
const STARTS_AT_ONCE = 16
/** After every close has ended nothing can be lost any more, and nobody waits long for a standby's dead image. */
const DISPOSAL_TIMEOUT_MS = 5_000
/** A dead image keeps one for its standby, and one for an opening. */
const IMAGE_THREADS_MAX = 32
/** A record on a dead file server keeps one for as long as it is dead. */
const RECORD_THREADS_MAX = 16
/** For looks that no opening waits for: one at a dead mount keeps a thread for as long as the mount is dead. */
const PREFLIGHT_THREADS_MAX = 8

export async function startDaemon(configuration: Configuration, log: Logger): Promise<Daemon> {
  const building = new DaemonBuild(configuration, log)
  try {
    return await building.start()
  } catch (error) {
    await building.dispose()
    throw error
  }
}

class DaemonBuild {
  /** What is in force: after a reload it differs from what the daemon was started with. */
  #configuration: Configuration
  readonly #log: Logger
  /** What to end, newest first. */
  readonly #disposals: (() => Promise<void>)[] = []
  #phase = 'starting'
  #stopping: Promise<StopOutcome> | null = null
  #reloading: Promise<unknown> = Promise.resolve()
  #resolveStopped: (outcome: StopOutcome) => void = () => undefined
  readonly #stopped = new Promise<StopOutcome>((resolve) => {
    this.#resolveStopped = resolve
  })

  constructor(configuration: Configuration, log: Logger) {
    this.#configuration = configuration
    this.#log = log
  }

  async start(): Promise<Daemon> {
    const configuration = this.#configuration
    claimProcessLimits(configuration, this.#log)
    const records = this.#own(new BlockingPool('records', RECORD_THREADS_MAX))
    const images = this.#own(new BlockingPool('images', IMAGE_THREADS_MAX))
    const stacks = new ExportStacks({
      ofOpenings: new Preflight(images),
      ofOthers: new Preflight(this.#preflightThreads()),
    })
    const host = this.#own(await LocalHost.establish(configuration.stateDirectory, records))
    const { identity } = host
    const homes = this.#own(new RecordHomes(configuration, records, this.#log, 'host'))
    // Changed in place by a reload: a takeover asks it when it begins.
    const fencing = { ...configuration.fencing }
    const workers = this.#startWorkers()
    await workers.pool.start()
    const registry = new ExportRegistry({
      host,
      fencing,
      log: this.#log,
      engine: workers.engine,
      images,
      stacks,
      workersCount: configuration.workers,
      holdAlarmMs: configuration.limits.holdAlarmMs,
      now: () => performance.now(),
      homeOf: ({ imageId, name }) => homes.homeOf(imageId ?? name),
      place: (index) => workers.pool.place(index),
    })
    this.#disposals.push(() => registry.dispose())
    workers.serve(registry)
    const allowance = new ConnectionAllowance(configuration.limits.connectionsMax, () => registry.connectionsCount)
    const control = this.#makeControl(registry, homes, identity, workers.pool, allowance)
    await this.#addExports(registry)
    const controlUrls: string[] = []
    for (const endpoint of configuration.control) controlUrls.push(formatEndpoint(await control.listen(endpoint)))
    const listeners = await this.#listen(registry, allowance)
    this.#phase = 'ready'
    const listening = { nbd: listeners.map((listener) => listener.address), control: controlUrls }
    notifySystemd('READY=1')
    this.#log.info({ ...listening, exports: configuration.exports.length, engine: workers.engine }, 'ready')
    return {
      listening,
      stopped: this.#stopped,
      stop: () => this.#stop(registry, listeners),
      reload: (read) => this.#reload(read, registry, fencing),
      abandon: () => {
        workers.pool.abandon()
      },
    }
  }

  async dispose(): Promise<void> {
    for (const end of this.#disposals.splice(0).reverse()) await end()
  }

  #own<T extends { close(): Promise<void> }>(part: T): T {
    this.#disposals.push(() => part.close())
    return part
  }

  /** Nothing that they do has to be finished: one that hangs is not waited for. */
  #preflightThreads(): BlockingPool {
    const threads = new BlockingPool('preflight', PREFLIGHT_THREADS_MAX, 0)
    this.#disposals.push(async () => {
      if (threads.busyCount === 0) await threads.close()
    })
    return threads
  }

  #startWorkers(): {
    pool: WorkerPool
    engine: ReturnType<typeof chooseEngine>
    serve(registry: ExportRegistry): void
  } {
    const engine = chooseEngine(this.#configuration.engine)
    let registry: ExportRegistry | null = null
    const pool = new WorkerPool({
      count: this.#configuration.workers,
      engine,
      limits: this.#configuration.limits,
      threadPoolSize: Number(process.env['UV_THREADPOOL_SIZE'] ?? 4),
      log: this.#log,
      onNotice: (_worker, notice) => registry?.noticed(notice),
      onDeath: (worker, cause) => registry?.workerDied(worker, cause),
    })
    this.#disposals.push(() => pool.stop())
    return {
      pool,
      engine,
      serve: (served) => {
        registry = served
      },
    }
  }

  #makeControl(
    registry: ExportRegistry,
    homes: RecordHomes,
    identity: LocalIdentity,
    pool: WorkerPool,
    allowance: ConnectionAllowance,
  ): ControlServer {
    const facts: DaemonFacts = {
      version: packageVersion(),
      instance: identity.instance,
      notReady: () => (this.#phase === 'ready' ? null : `the daemon is ${this.#phase}`),
      negotiating: () => allowance.negotiating,
      recordsUnreachableMs: () => homes.unreachableMs,
      workers: () =>
        pool.workers.map((worker) => ({
          worker: worker.index,
          alive: worker.alive,
          connections: registry.connectionsOn(worker.index),
          arenaBytes: this.#configuration.limits.arenaBytes,
          arenaUsedBytes: worker.alive ? worker.arenaUsedBytes : 0,
          turns: worker.turns,
        })),
    }
    return this.#own(new ControlServer({ verbs: registry, facts, log: this.#log }))
  }

  /**
   * An export that cannot be opened waits and says why. If that is true of all of them, the start has failed. A lock that
   * is held delays nobody, an image that does not answer not for long: the others are served, and it can be asked about.
   */
  async #addExports(registry: ExportRegistry): Promise<void> {
    const { exports } = this.#configuration
    const refusals: Refusal[] = []
    let progressMs = performance.now()
    const added = eachAtOnce(exports, STARTS_AT_ONCE, async (definition) => {
      const refusal = await registry.addAtStart(definition, START_LOCK_TIMEOUT_MS)
      if (refusal !== null) refusals.push(refusal)
      progressMs = performance.now()
    }).then(() => true)
    while ((await within(added, START_LOOK_MS)) === null) {
      if (performance.now() - progressMs < START_PATIENCE_MS) continue
      this.#log.warn('an image or a record does not answer: the start goes on without it')
      void added.then(() => {
        this.#log.info('every export has been started')
      })
      return
    }
    const [first] = refusals
    if (first !== undefined && refusals.length === exports.length) throw first
  }

  async #listen(registry: ExportRegistry, allowance: ConnectionAllowance): Promise<readonly Listener[]> {
    const listeners: Listener[] = []
    for (const endpoint of this.#configuration.listen) {
      const listener = new Listener({
        catalogue: registry.catalogue,
        onConnection: (connection) => {
          registry.takeConnection(connection)
        },
        log: this.#log,
        allowance,
        handshakeTimeoutMs: this.#configuration.limits.handshakeTimeoutMs,
      })
      this.#own(listener)
      await listener.listen(formatEndpoint(endpoint))
      listeners.push(listener)
    }
    return listeners
  }

  #reload(
    read: () => Configuration,
    registry: ExportRegistry,
    fencing: Configuration['fencing'],
  ): Promise<ReloadOutcome> {
    const reloading = this.#reloading.then(async () => {
      if (this.#phase !== 'ready') return { applied: [], notApplied: [`the daemon is ${this.#phase}`] }
      notifySystemd(`RELOADING=1\nMONOTONIC_USEC=${process.hrtime.bigint() / 1000n}`)
      try {
        const { inForce, ...outcome } = await reload(this.#configuration, read(), {
          registry,
          setLogLevel: (level) => {
            this.#log.level = level
          },
          setFencing: (changed) => Object.assign(fencing, changed),
          lockTimeoutMs: START_LOCK_TIMEOUT_MS,
        })
        this.#configuration = inForce
        return outcome
      } finally {
        notifySystemd('READY=1')
      }
    })
    this.#reloading = reloading.catch(() => undefined)
    return reloading
  }

  #stop(registry: ExportRegistry, listeners: readonly Listener[]): Promise<StopOutcome> {
    this.#stopping ??= this.#stopAll(registry, listeners).then((outcome) => {
      this.#resolveStopped(outcome)
      return outcome
    })
    return this.#stopping
  }

  async #stopAll(registry: ExportRegistry, listeners: readonly Listener[]): Promise<StopOutcome> {
    this.#phase = 'stopping'
    notifySystemd('STOPPING=1')
    this.#log.info('stopping: closing all exports')
    await Promise.all(listeners.map((listener) => listener.close()))
    const unclosed = await this.#closeExports(registry)
    for (const sentence of unclosed) this.#log.error({ export: sentence }, 'an export was not closed')
    if (
      unclosed.length === 0 &&
      (await within(
        this.dispose().then(() => true),
        DISPOSAL_TIMEOUT_MS,
      )) === null
    ) {
      this.#log.warn('everything is closed, and something that only reads does not end: an image that does not answer')
    }
    this.#log.info({ unclosed: unclosed.length }, 'stopped')
    return { unclosed }
  }

  async #closeExports(registry: ExportRegistry): Promise<readonly string[]> {
    const { closeTimeoutMs } = this.#configuration.limits
    const bound = new AbortController()
    const late = sleep(closeTimeoutMs, null, { signal: bound.signal }).catch(() => null)
    const closed = await Promise.race([registry.closeAll(), late])
    bound.abort()
    if (closed !== null) return closed
    const states = await registry.list()
    return states
      .filter(({ state }) => state !== 'closed' && state !== 'standby')
      .map(({ name, state }) => `${name}: still ${state} after ${closeTimeoutMs} ms`)
  }
}

function packageVersion(): string {
  const text = readFileSync(new URL('../package.json', import.meta.url), 'utf8')
  const parsed: unknown = JSON.parse(text)
  return typeof parsed === 'object' && parsed !== null && 'version' in parsed ? String(parsed.version) : 'unknown'
}
