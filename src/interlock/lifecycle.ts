/**
 * The life of an export, in tables: which state may follow which, what each verb does in each state, and what each state
 * means for reads, writes, negotiating clients and Xen. `Lifecycle.to` is the only line of the program that assigns the
 * state of an export; docs/lifecycle.md is generated from here.
 *
 * What each state guarantees:
 *   standby   nothing of ours can write: the image is open for reading at most, and no generation is claimed.
 *   opening   the locks and the record are being taken; nothing is written to the image yet.
 *   open      we hold the newest generation, and writes are served.
 *   closing   nothing new is admitted; what was admitted is running to its end.
 *   closed    nothing of the generation is queued, in the kernel or on its way; the record says so and has the receipt.
 *   fenced    nothing is admitted, and that generation is never reported closed.
 */

import { Refusal } from '../foundation/refusal.ts'
import { TransitionTable } from '../foundation/transition-table.ts'
import type { GateSetting, GateSettings } from './gate.ts'

export type ExportState = 'standby' | 'opening' | 'open' | 'closing' | 'closed' | 'fenced'
export type XenbusState = 2 | 3 | 4 | 5 | 6

export const LIFECYCLE = new TransitionTable<ExportState>('an export', {
  standby: { opening: 'open', fenced: 'fence' },
  opening: { open: 'locked and recorded', standby: 'refused', fenced: 'fence, or a failure after the record' },
  open: { closing: 'close', fenced: 'fence, failed sync, lost ownership' },
  closing: { closed: 'proved and recorded', open: 'open, before the image is let go', fenced: 'fence, failed sync' },
  closed: { standby: 'standby', opening: 'open', fenced: 'fence' },
  fenced: { standby: 'standby', opening: 'open' },
})

/** The names of Xen's xenbus_state values, for those who watch a backend as the toolstack does. */
export const XENBUS_STATE = {
  standby: 2, // InitWait
  opening: 3, // Initialised
  open: 4, // Connected
  closing: 5, // Closing
  closed: 6, // Closed
  fenced: 6, // Closed
} as const satisfies Record<ExportState, XenbusState>

export const VERBS = ['open', 'close', 'standby', 'clear', 'adopt', 'fence', 'remove'] as const
export type Verb = (typeof VERBS)[number]

/**
 * begin: start doing it. join: it is under way already, wait for the same outcome. repeat: it has been done, answer what
 * was answered then. Anything else is the advice that goes with the refusal.
 */
export type VerbAnswer = 'begin' | 'join' | 'repeat'
type VerbEntry = VerbAnswer | { readonly advice: string }

const OPEN_FIRST = { advice: "'open' it first" }
const CLOSE_FIRST = { advice: "'close' it first" }
const WAIT_FOR_OPEN = { advice: "wait until it is open, or 'fence' it" }
const WAIT_FOR_CLOSED = { advice: "wait until it is closed, or 'fence' it" }
const NOTHING_HELD = { advice: 'it holds nothing back' }

export const VERB_TABLE: Readonly<Record<Verb, Readonly<Record<ExportState, VerbEntry>>>> = {
  open: {
    standby: 'begin',
    opening: 'join',
    open: 'repeat',
    closing: 'begin', // cancels the close, as long as that can be cancelled
    closed: 'begin',
    fenced: 'begin',
  },
  close: {
    standby: 'repeat', // a restarted daemon waits in standby, and its record may have the receipt
    opening: WAIT_FOR_OPEN,
    open: 'begin',
    closing: 'join',
    closed: 'repeat',
    fenced: { advice: "a fenced generation is never reported closed; 'open' or 'standby' leave this state" },
  },
  standby: {
    standby: 'repeat',
    opening: WAIT_FOR_OPEN,
    open: CLOSE_FIRST,
    closing: WAIT_FOR_CLOSED,
    closed: 'begin',
    fenced: 'begin',
  },
  clear: {
    standby: 'begin',
    opening: WAIT_FOR_OPEN,
    open: 'begin',
    closing: 'begin', // a close waits for its predecessor too
    closed: NOTHING_HELD,
    fenced: OPEN_FIRST,
  },
  adopt: {
    standby: 'begin',
    opening: WAIT_FOR_OPEN,
    open: CLOSE_FIRST,
    closing: WAIT_FOR_CLOSED,
    closed: 'begin',
    fenced: 'begin',
  },
  fence: {
    standby: 'begin',
    opening: 'begin',
    open: 'begin',
    closing: 'begin',
    closed: 'begin',
    fenced: 'repeat',
  },
  remove: {
    standby: 'begin',
    opening: WAIT_FOR_OPEN,
    open: CLOSE_FIRST,
    closing: WAIT_FOR_CLOSED,
    closed: 'begin',
    fenced: 'begin',
  },
}

/** What the gate does in each state, where the answer may be the export's or the close's to give. */
type GateRule = GateSetting | 'as standbyReads says' | 'as the close said'

export const GATE_TABLE: Readonly<Record<ExportState, { readonly reads: GateRule; readonly writes: GateRule }>> = {
  standby: { reads: 'as standbyReads says', writes: 'park' },
  opening: { reads: 'as standbyReads says', writes: 'park' },
  open: { reads: 'admit', writes: 'admit' },
  closing: { reads: 'as the close said', writes: 'as the close said' },
  closed: { reads: 'as the close said', writes: 'as the close said' },
  fenced: { reads: 'refuse', writes: 'refuse' },
}

/** Whether NBD_OPT_GO is accepted (and what the client then sends goes to the gate) or answered ERR_SHUTDOWN. */
export const NEGOTIATION_TABLE: Readonly<Record<ExportState, 'accept' | 'shutdown' | 'accept if parked'>> = {
  standby: 'accept',
  opening: 'accept',
  open: 'accept',
  closing: 'accept if parked',
  closed: 'shutdown',
  fenced: 'shutdown',
}

/** What the states leave open: the export's `standbyReads`, and what the latest close does with new requests. */
export interface GateChoices {
  readonly standbyReads: 'serve' | 'park'
  readonly closeRequests: 'park' | 'refuse'
}

export function gateSettings(state: ExportState, choices: GateChoices): GateSettings {
  const { reads, writes } = GATE_TABLE[state]
  return { reads: resolveGate(reads, choices), writes: resolveGate(writes, choices) }
}

export function acceptsNegotiation(state: ExportState, choices: GateChoices): boolean {
  const rule = NEGOTIATION_TABLE[state]
  return rule === 'accept' || (rule === 'accept if parked' && choices.closeRequests === 'park')
}

/** The sentence of the 409, or null where the verb may be used. */
export function verbProblem(name: string, state: ExportState, verb: Verb): string | null {
  const entry = VERB_TABLE[verb][state]
  if (typeof entry === 'string') return null
  return `export '${name}' is ${state} and cannot '${verb}': ${entry.advice}`
}

export class Lifecycle {
  readonly name: string
  #state: ExportState

  constructor(name: string, state: ExportState = 'standby') {
    this.name = name
    this.#state = state
  }

  get state(): ExportState {
    return this.#state
  }

  get xenbusState(): XenbusState {
    return XENBUS_STATE[this.#state]
  }

  /** Where the table does not allow it: an assertion failure. Returns the state that was left. */
  to(next: ExportState): ExportState {
    const from = this.#state
    LIFECYCLE.assertAllowed(from, next)
    this.#state = next
    return from
  }

  /** What the verb means now. Throws the `Refusal` that the operator gets where it may not be used. */
  answer(verb: Verb): VerbAnswer {
    const entry = VERB_TABLE[verb][this.#state]
    if (typeof entry === 'string') return entry
    const problem = verbProblem(this.name, this.#state, verb) ?? ''
    throw new Refusal('wrong-state', problem, { export: this.name, state: this.#state, verb })
  }
}

function resolveGate(rule: GateRule, choices: GateChoices): GateSetting {
  switch (rule) {
    case 'as standbyReads says':
      return choices.standbyReads === 'serve' ? 'admit' : 'park'
    case 'as the close said':
      return choices.closeRequests
    case 'admit':
    case 'park':
    case 'refuse':
      return rule
  }
}
