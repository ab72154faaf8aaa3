/**
 * Where an export is in its life, and what that means for its data plane: the state and why it is in it, the generation of
 * its latest opening, the receipt of its latest close. `to` is the one place where the lifecycle of an export moves; each
 * move is logged and told. What has to be done for a move is done elsewhere, before it.
 */

import { Lifecycle, acceptsNegotiation, gateSettings } from '../interlock/lifecycle.ts'
import type { ExportState, GateChoices, Verb, VerbAnswer } from '../interlock/lifecycle.ts'
import type { Receipt } from '../interlock/receipt.ts'
import type { DataSide } from './data-side.ts'
import type { ExportContext } from './export-context.ts'
import type { ExportDefinition } from './verbs.ts'

export class ExportLife {
  readonly #context: ExportContext
  readonly #definition: ExportDefinition
  readonly #data: DataSide
  readonly #lifecycle: Lifecycle
  /** Why it is in its state, where there is more to say. */
  reason: string | null = null
  /** Of its latest opening; 0 before the first. */
  generation = 0
  /** Null where its latest generation was not closed by this run. */
  lastReceipt: Receipt | null = null
  /** What the latest close does with new requests. */
  closeRequests: 'park' | 'refuse' = 'park'

  constructor(context: ExportContext, definition: ExportDefinition, data: DataSide) {
    this.#context = context
    this.#definition = definition
    this.#data = data
    this.#lifecycle = new Lifecycle(definition.name)
  }

  get state(): ExportState {
    return this.#lifecycle.state
  }

  get acceptsNegotiation(): boolean {
    return acceptsNegotiation(this.state, this.#choices)
  }

  /** Throws the refusal that the operator gets where the verb may not be used now. */
  answer(verb: Verb): VerbAnswer {
    return this.#lifecycle.answer(verb)
  }

  to(state: ExportState, reason: string | null): void {
    const { name } = this.#definition
    const from = this.#lifecycle.to(state)
    this.reason = reason
    this.#context.log.info({ export: name, from, to: state, generation: this.generation, reason }, 'transition')
    this.#context.emit(name, { kind: 'transition', from, to: state, reason })
  }

  /** Has the gate do what the state says, or the one that it is about to be in. */
  async applyGate(state = this.state): Promise<void> {
    await this.#data.setGate(gateSettings(state, this.#choices))
  }

  get #choices(): GateChoices {
    return { standbyReads: this.#definition.standbyReads, closeRequests: this.closeRequests }
  }
}
