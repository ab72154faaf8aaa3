/**
 * A client of the simulation, as bad as clients may be: it sends in pieces, stops reading, breaks the framing, ends its
 * half, closes or resets at any moment, and says DISC with requests outstanding. Everything follows from the run's seed.
 */

import type { FrontendRequest, SimulatedFrontend } from '../support/simulated-frontend.ts'
import { COMMAND } from '../support/simulated-frontend.ts'
import type { SeededRandom } from '../support/seeded-random.ts'
import type { ExportLife } from './export-life.ts'
import type { RequestMix, RequestMixture } from './request-mix.ts'

export class UnrulyClient {
  readonly frontend: SimulatedFrontend
  readonly life: ExportLife
  /** It made a promise with NBD_CMD_DISC, broke the protocol, or cut the connection: it is owed nothing any more. */
  departed = false
  /** By cookie, in the run's count of events. */
  readonly sentAt = new Map<number, number>()
  /** Errors that the request deserves whatever happens, by cookie; absent for a good one. */
  readonly deserved = new Map<number, number>()
  readonly #random: SeededRandom
  readonly #mix: RequestMix
  readonly #tick: () => number
  /** Requests that it means to make. */
  readonly #wants: number
  /** In hundreds of bytes: how much it sends at once. */
  readonly #patience: number

  constructor(
    frontend: SimulatedFrontend,
    life: ExportLife,
    random: SeededRandom,
    mix: RequestMix,
    tick: () => number,
  ) {
    this.frontend = frontend
    this.life = life
    this.#random = random
    this.#mix = mix
    this.#tick = tick
    this.#wants = random.between(1, 25)
    this.#patience = random.pick([1, 1, 30, 5000])
  }

  /** It has asked for all it wanted. */
  get isIdle(): boolean {
    return this.departed || this.frontend.requests.size >= this.#wants
  }

  act(): void {
    const random = this.#random
    const { frontend } = this
    if (this.departed || frontend.hasFinished) {
      if (!frontend.isReading && random.chance(0.02)) frontend.setReading(true)
      if (frontend.unsentBytes > 0 && !frontend.hasFinished) this.#deliver()
      else if (!frontend.hasFinished && random.chance(0.05)) frontend.close()
      return
    }
    if (!this.isIdle && random.chance(0.5)) this.request()
    this.#deliver()
    if (random.chance(0.01)) frontend.setReading(!frontend.isReading)
    if (random.chance(0.004)) this.#cut()
    if (this.isIdle && random.chance(0.05)) this.#leave()
  }

  /** Makes a request, good or bad. */
  request(): void {
    const { fields, deserved } = this.#mix.next(this.life.readOnly)
    const request = this.#queue(fields)
    if (deserved !== 0) this.deserved.set(request.cookie, deserved)
  }

  #deliver(): void {
    const { frontend } = this
    if (frontend.unsentBytes === 0) return
    frontend.deliver(Math.min(frontend.unsentBytes, this.#random.between(1, this.#patience * 100)))
  }

  #cut(): void {
    const { frontend } = this
    this.departed = true
    switch (this.#random.between(1, 4)) {
      case 1:
        frontend.reset()
        return
      case 2:
        frontend.close()
        return
      case 3:
        frontend.finish()
        return
      default:
        // A header that is none.
        frontend.queueBytes(Uint8Array.from({ length: 28 }, () => 7))
    }
  }

  #leave(): void {
    const { frontend } = this
    this.departed = true
    frontend.queue({ command: COMMAND.DISC })
    if (this.#random.chance(0.5)) {
      frontend.deliver()
      if (this.#random.chance(0.5)) frontend.finish()
    }
  }

  #queue(fields: RequestMixture['fields']): FrontendRequest {
    const { payload, length, ...rest } = fields
    const request = this.frontend.queue({
      ...rest,
      length: length < 0 ? (payload?.length ?? 0) : length,
      ...(payload === undefined ? {} : { payload }),
    })
    this.sentAt.set(request.cookie, this.#tick())
    return request
  }
}
