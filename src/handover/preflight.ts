/**
 * What is looked at before a handover is begun, at both ends: whether they mean one image and one record, whether their
 * versions, states and sizes fit, what is under the image, and whether the terms can be kept. Everything that would fail
 * later, with the guest waiting, is to fail here. It changes nothing but the sequence of the source's record.
 */

import { ControlProblem } from '../client/index.ts'
import type { ControlClient, StackReport } from '../client/index.ts'
import { ask, pause } from './errand.ts'
import type { ErrandOptions } from './errand.ts'
import type { End } from './ending.ts'
import type { SameImageProof } from './same-image.ts'
import { sameImageFindings } from './same-image.ts'
import type { HandoverTerms } from './terms.ts'
import type { Answering, Disk, View } from './view.ts'

/** What a busy host has not found out at once it has after a while; what hangs never has. */
const STACK_PATIENCE_MS = 10_000
const STACK_INTERVAL_MS = 100

export type FindingSeverity = 'refuses' | 'condition' | 'note'

export interface Finding {
  /** Stable; docs/orchestrating.md explains each. */
  readonly code: FindingCode
  readonly severity: FindingSeverity
  readonly end: End | 'both'
  readonly detail: string
  readonly mend: string
}

export const FINDING_CODES = [
  'end-silent',
  'export-missing',
  'read-only',
  'takeover-begun',
  'record-unreadable',
  'record-elsewhere',
  'record-format',
  'image-differs',
  'image-declared',
  'image-unproved',
  'size-differs',
  'version-differs',
  'early-impossible',
  'stack-unsafe',
  'stack-conditions',
  'stack-unknown',
  'durability-differs',
  'indeterminate',
  'predecessor-draining',
] as const
export type FindingCode = (typeof FINDING_CODES)[number]

export interface PreflightReport {
  /** No finding refuses. */
  readonly ready: boolean
  readonly sameImage: SameImageProof
  readonly findings: readonly Finding[]
}

/** `view` is a look at both ends with the source open. */
export async function preflight(
  disk: Disk,
  view: View,
  terms: HandoverTerms,
  options: ErrandOptions,
): Promise<PreflightReport> {
  const silent = [silence('source', view), silence('destination', view)].filter((finding) => finding !== null)
  if (!view.source.answers || !view.destination.answers) {
    return { ready: false, sameImage: 'none', findings: silent }
  }
  const { source, destination } = view
  const [proof, ofSource, ofDestination] = await Promise.all([
    sameImageFindings(disk, source, destination, terms, options),
    stackFindings('source', disk.name, disk.source, acceptedAt(source, terms), options),
    stackFindings('destination', disk.name, disk.destination, terms.allowUnsafe, options),
  ])
  const findings = [
    ...proof.findings,
    ...stateFindings(source, destination),
    ...termFindings(source, destination, terms),
    ...ofSource,
    ...ofDestination,
  ]
  return { ready: !findings.some(({ severity }) => severity === 'refuses'), sameImage: proof.proof, findings }
}

/** The refusing findings in one sentence each, for a message. */
export function objections({ findings }: PreflightReport): string[] {
  return findings.filter(({ severity }) => severity === 'refuses').map(sentenceOf)
}

export function sentenceOf({ end, code, detail }: Finding): string {
  return `${end === 'both' ? '' : `${end}: `}${detail} (${code})`
}

function silence(end: End, view: View): Finding | null {
  const side = view[end]
  if (side.answers) return null
  const missing = side.code === 'export-unknown'
  const mend = missing
    ? `interlockctl --control ${side.url} add ${view.name}=PATH --standby`
    : `start the daemon at ${side.url}, or mend the address`
  return { code: missing ? 'export-missing' : 'end-silent', severity: 'refuses', end, detail: side.reason, mend }
}

function stateFindings(source: Answering, destination: Answering): Finding[] {
  const findings: Finding[] = []
  const { record, unreadable, formats } = source.ownership
  if (source.status.readOnly || destination.status.readOnly) {
    const detail = 'it is exported read-only: it has no holder, and both ends may serve it at once'
    findings.push({
      code: 'read-only',
      severity: 'refuses',
      end: 'both',
      detail,
      mend: 'nothing has to be handed over',
    })
  }
  if (unreadable !== null) {
    const mend = 'interlockctl record show PATH, on the host of the source'
    findings.push({ code: 'record-unreadable', severity: 'refuses', end: 'source', detail: unreadable, mend })
  }
  if (record !== null && record.takeoverBy !== null) {
    const detail = `${record.takeoverBy} has begun to take it over`
    const mend = 'find out who does that, and why, before anything else'
    findings.push({ code: 'takeover-begun', severity: 'refuses', end: 'both', detail, mend })
  }
  const theirs = destination.ownership
  if (theirs.formats.record < formats.record || theirs.formats.receipt < formats.receipt) {
    const detail = `it reads records of version ${theirs.formats.record} and receipts of version ${theirs.formats.receipt}`
    const mend = `upgrade its daemon (${theirs.version}) to the source's ${source.ownership.version}`
    findings.push({ code: 'record-format', severity: 'refuses', end: 'destination', detail, mend })
  }
  if (theirs.version !== source.ownership.version) {
    const detail = `the source runs ${source.ownership.version}, the destination ${theirs.version}`
    findings.push({
      code: 'version-differs',
      severity: 'note',
      end: 'both',
      detail,
      mend: 'nothing, while formats fit',
    })
  }
  return findings
}

function termFindings(source: Answering, destination: Answering, terms: HandoverTerms): Finding[] {
  const findings: Finding[] = []
  const draining = source.ownership.record?.draining ?? []
  const why = whyNotEarly(source, destination, draining.length > 0)
  if (terms.early && why !== null) {
    findings.push({
      code: 'early-impossible',
      severity: 'refuses',
      end: 'source',
      detail: why,
      mend: 'without --early',
    })
  } else if (draining.length > 0) {
    const detail = `generation ${String(draining[0])}, handed over early, still drains: this close waits for it`
    findings.push({ code: 'predecessor-draining', severity: 'note', end: 'source', detail, mend: 'nothing' })
  }
  if (source.status.durability !== destination.status.durability) {
    const detail = `the source answers writes in '${source.status.durability}', the destination in '${destination.status.durability}'`
    findings.push({ code: 'durability-differs', severity: 'condition', end: 'both', detail, mend: 'as it is wanted' })
  }
  const { indeterminate } = source.status
  if (indeterminate.length > 0) {
    const detail = `${indeterminate.length} ranges of failed writes are old or new; the receipt will list them`
    const mend = 'look at the disk of the source'
    findings.push({ code: 'indeterminate', severity: 'condition', end: 'source', detail, mend })
  }
  return findings
}

function whyNotEarly(source: Answering, destination: Answering, draining: boolean): string | null {
  if (!source.ownership.home.shared || !destination.ownership.home.shared) {
    return 'there is no shared record to hand its unfinished writes over in'
  }
  if (source.status.durability === 'writeback') return 'in writeback an answered write may not be durable yet'
  return draining ? 'a predecessor that was handed over early is still draining' : null
}

/** What the source was opened with although it is not safe was accepted then, and its receipt will say so. */
function acceptedAt(source: Answering, terms: HandoverTerms): readonly string[] {
  return [...terms.allowUnsafe, ...source.status.unsafe]
}

async function stackFindings(
  end: End,
  name: string,
  client: ControlClient,
  accepted: readonly string[],
  options: ErrandOptions,
): Promise<Finding[]> {
  try {
    return judgeStack(end, await stackOf(name, client, options), accepted)
  } catch (error) {
    if (!(error instanceof ControlProblem)) throw error
    return [{ code: 'stack-unknown', severity: 'refuses', end, detail: error.message, mend: 'as the detail says' }]
  }
}

async function stackOf(name: string, client: ControlClient, options: ErrandOptions): Promise<StackReport> {
  const deadlineMs = performance.now() + STACK_PATIENCE_MS
  for (;;) {
    const report = await ask(client, (daemon, signal) => daemon.stack(name, { signal }), options)
    if (report.waitingFor === null || performance.now() >= deadlineMs) return report
    await pause(STACK_INTERVAL_MS, options)
  }
}

function judgeStack(end: End, report: StackReport, accepted: readonly string[]): Finding[] {
  if (report.waitingFor !== null) {
    const detail = `what is under the image is not known yet: no answer to ${report.waitingFor}`
    const mend = `interlockctl check ${report.path}, there`
    return [{ code: 'stack-unknown', severity: 'refuses', end, detail, mend }]
  }
  const found = report.layers.flatMap(({ findings }) => findings)
  const unsafe = found
    .filter(({ severity }) => severity === 'unsafe')
    .map(({ code, detail, mend }): Finding => ({
      code: 'stack-unsafe',
      severity: accepted.includes(code) ? 'condition' : 'refuses',
      end,
      detail: `${code}: ${detail}`,
      mend,
    }))
  const conditions = [...new Set(found.filter(({ severity }) => severity === 'condition').map(({ code }) => code))]
  if (conditions.length === 0) return unsafe
  const detail = `safe on the conditions ${conditions.join(', ')}`
  return [
    ...unsafe,
    { code: 'stack-conditions', severity: 'note', end, detail, mend: `interlockctl check ${report.path}, there` },
  ]
}
