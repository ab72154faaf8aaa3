/**
 * An export's end in the ownership record: what is recorded, what that allows, and who is told when it changes. It opens
 * and closes nothing. The export is shown every newer record, which is best effort: safety comes from locks and fences.
 */

import { setTimeout as sleep } from 'node:timers/promises'
import { present } from '../foundation/assert.ts'
import { Refusal } from '../foundation/refusal.ts'
import type { Receipt } from '../interlock/receipt.ts'
import { DirectoryHome } from '../ownership/directory-home.ts'
import type { Newest, OwnershipRecord, RecordHolder, RecordHome } from '../ownership/home.ts'
import { sameImage } from '../ownership/home.ts'
import type { Kinship } from '../ownership/kinship.ts'
import { isThisHost } from '../ownership/kinship.ts'
import { UnsharedHome } from '../ownership/none.ts'
import { decideStart, handedEarly } from '../ownership/opening-rule.ts'
import type { OpeningQuestion, StartDecision } from '../ownership/opening-rule.ts'
import type { ExportContext } from './export-context.ts'
import type { ImageFacts } from './image.ts'
import { imageIdentity, linksRefusal } from './image.ts'
import { RecordKeeper } from './record-keeper.ts'
import { Recovery } from './recovery.ts'
import type { ExportDefinition } from './verbs.ts'

const WATCH_INTERVAL_MS = 1000
const KEEN_INTERVAL_MS = 2
/** How often a record is asked for whose changes are told anyway. */
const TOLD_INTERVAL_MS = 500

/** File systems that no second host has mounted. A block device may be shared, whatever is behind it. */
const LOCAL_FILE_SYSTEMS = new Set(['ext4', 'xfs', 'btrfs', 'zfs', 'f2fs', 'bcachefs', 'tmpfs', 'ramfs', 'overlay'])

export type OpeningWishes = Pick<OpeningQuestion, 'takeover' | 'awaitClose'>

const NOTHING_MORE: OpeningWishes = { takeover: false, awaitClose: false }

export interface Past {
  readonly decision: StartDecision
  /**
   * The close that the last run of this host left unfinished: of the newest generation, or of one that still drains while
   * somebody else holds the image. Null where there is none, or nothing here can prove it.
   */
  readonly recovery: Recovery | null
  /** The generation that a run of this host has handed over early and then fenced, and whose entry it has left. */
  readonly leftByFence: number | null
}

export interface RecordAhead {
  /** Of the image that it is the record of. */
  readonly realPath: string
  readonly newest: Promise<Newest>
}

export class OwnershipSide {
  readonly home: RecordHome
  readonly keeper: RecordKeeper
  readonly #context: ExportContext
  readonly #definition: ExportDefinition
  #newest: OwnershipRecord | null = null
  #located: string | null = null
  #endWatch: () => void = () => undefined
  readonly #pauses = new Set<() => void>()
  /** Of a change, since the record was asked for last. */
  #wasTold = false

  constructor(context: ExportContext, definition: ExportDefinition) {
    this.#context = context
    this.#definition = definition
    this.home = context.homeOf(definition)
    this.keeper = new RecordKeeper(this.home)
  }

  /** The newest record that is known here, whoever wrote it. */
  get newest(): OwnershipRecord | null {
    const { own } = this.keeper
    if (this.#newest === null || own === null) return own ?? this.#newest
    return own.sequence > this.#newest.sequence ? own : this.#newest
  }

  /** Our newest record; only while there is one. */
  get own(): OwnershipRecord {
    return present(this.keeper.own, 'a record of our own')
  }

  get imageId(): string {
    return this.#definition.imageId ?? this.#definition.name
  }

  /** Where the image was found. From the first time on `changed` is called with what others write. */
  locate(facts: ImageFacts, changed: (record: OwnershipRecord) => void): void {
    this.home.locate(facts.realPath)
    if (this.#definition.readOnly || this.#located === facts.realPath) return
    this.#located = facts.realPath
    this.#endWatch()
    this.#endWatch =
      this.home.watch?.((newest) => {
        if (newest.kind !== 'record') return
        this.#newest = newest.record
        this.#wasTold = true
        for (const end of this.#pauses) end()
        changed(newest.record)
      }, WATCH_INTERVAL_MS) ?? ((): void => undefined)
  }

  async readNewest(): Promise<Newest> {
    this.#wasTold = false
    const newest = await this.home.readNewest()
    if (newest.kind === 'record') this.#newest = newest.record
    return newest
  }

  /** Asked for where the image was found last, before it is known that it is there still. Null where it never was. */
  readAhead(): RecordAhead | null {
    if (this.#located === null) return null
    const newest = this.readNewest()
    // Whoever needs it hears of that.
    newest.catch(() => undefined)
    return { realPath: this.#located, newest }
  }

  /**
   * Looks at the record again and again, until it is another one than was seen last, or for that long. Resolves with what it
   * saw. Only for those who wait for a moment: each look is a way to the record.
   */
  async awaitChange(withinMs: number): Promise<RecordAhead | null> {
    const deadlineMs = this.#context.now() + withinMs
    const before = this.#newest?.sequence
    let ahead: RecordAhead | null
    do {
      await sleep(KEEN_INTERVAL_MS)
      ahead = this.readAhead()
      await ahead?.newest
    } while (this.#newest?.sequence === before && this.#context.now() < deadlineMs)
    return ahead
  }

  /**
   * Before the record is asked for again: waits that long; where changes are told soon, until one is, and not at all where
   * one was since it was asked for last.
   */
  pause(intervalMs: number): Promise<unknown> {
    if (this.home.tellsSoon !== true) return sleep(intervalMs)
    if (this.#wasTold) return Promise.resolve()
    return new Promise<void>((resolve) => {
      const end = (): void => {
        clearTimeout(timer)
        this.#pauses.delete(end)
        resolve()
      }
      const timer = setTimeout(end, TOLD_INTERVAL_MS)
      this.#pauses.add(end)
    })
  }

  /** Everything that decides whether the image may be opened on top of that record. */
  async question(newest: Newest, facts: ImageFacts, wanted: OpeningWishes = NOTHING_MORE): Promise<OpeningQuestion> {
    const record = newest.kind === 'record' ? newest.record : null
    const holder = await this.#kinship(record?.holder)
    return {
      newest,
      takeover: wanted.takeover,
      awaitClose: wanted.awaitClose,
      holder,
      holderFenced: record !== null && isThisHost(holder) && (await this.#context.host.wasFenced(record.holder)),
      intentBy: await this.#kinship(record?.intent?.by),
      intentAgainst: await this.#kinship(record?.intent?.against),
      imageMatches: record === null || this.matches(record, facts),
      clusterLocks: this.#definition.clusterLocks,
      rebootIsProof: await this.rebootIsProof(facts),
    }
  }

  /** What a start finds of the past, by one look at the record. */
  async past(facts: ImageFacts): Promise<Past> {
    const newest = await this.readNewest()
    const question = await this.question(newest, facts)
    const decision = decideStart(question, this.#definition.durability)
    if (newest.kind !== 'record' || !question.imageMatches) return { decision, recovery: null, leftByFence: null }
    const { record } = newest
    const unfinished = { definition: this.#definition, ownership: this, facts, record }
    const finish = (generation: number): Recovery => new Recovery(this.#context, { ...unfinished, generation })
    if (decision.act === 'finishClose') {
      return { decision, recovery: finish(record.generation), leftByFence: null }
    }
    for (const { holder, generation } of record.draining) {
      if (!(await this.#isOver(holder, question))) continue
      if (await this.#context.host.wasFenced(holder)) return { decision, recovery: null, leftByFence: generation }
      // Whoever has opened since may be closing himself, and waits for just this.
      if (question.holder === 'other-host') return { decision, recovery: finish(generation), leftByFence: null }
    }
    return { decision, recovery: null, leftByFence: null }
  }

  /** A generation of ours that ended in a fence: everybody is to see that. Best effort, and never over somebody else's. */
  async recordFence(): Promise<void> {
    if (this.keeper.own === null) return
    try {
      await this.keeper.change((record) =>
        record.state === 'closed' || handedEarly(record) ? null : { ...record, state: 'fenced', closeReason: null },
      )
    } catch (error) {
      this.#context.log.warn({ export: this.#definition.name, error: String(error) }, 'a fence could not be recorded')
    }
  }

  /** What was recorded of an opening that failed is closed again: nothing was written after the generation given. */
  async withdraw(generationWritten: number): Promise<void> {
    if (this.keeper.own === null || this.keeper.own.generation === generationWritten) return
    try {
      await this.keeper.change((record) => ({ ...record, state: 'closed', closeReason: 'handover' }))
    } catch (error) {
      this.#context.log.warn(
        { export: this.#definition.name, error: String(error) },
        'an opening could not be withdrawn',
      )
    }
  }

  /** The nonce that a receipt must carry where nothing but a receipt can open; null where there is a shared record. */
  giveNonce(): string | null {
    return this.home instanceof UnsharedHome ? this.home.giveNonce() : null
  }

  /** Throws where there is no shared record and the receipt does not stand in for it. */
  checkReceipt(receipt: Receipt | null): void {
    if (this.home instanceof UnsharedHome && !this.#definition.readOnly) this.home.checkReceipt(receipt)
  }

  /** Throws where the image has more hard links than the record says were adopted. */
  async refuseLinks(facts: ImageFacts, known?: Newest): Promise<void> {
    if (linksRefusal(this.#definition.path, facts, 1) === null) return
    const newest = known ?? (await this.readNewest())
    const adopted = newest.kind === 'record' ? newest.record.image.links : 1
    const refusal = linksRefusal(this.#definition.path, facts, Math.max(1, adopted))
    if (refusal !== null) throw refusal
  }

  /** Beside a device is this host's /dev: no other host sees what lies there, and it goes with the boot. */
  refuseRecordInDev({ kind, realPath }: ImageFacts): void {
    if (kind !== 'block' || !(this.home instanceof DirectoryHome) || !this.home.beside) return
    const advice = "name a directory on storage that all its hosts see: [ownership] directory = '...'"
    throw new Refusal('record-io', `the record of ${realPath}, a block device, cannot lie beside it: ${advice}`)
  }

  /** A declared identity stands in place of the measured one. */
  matches(found: Pick<OwnershipRecord, 'imageId' | 'image'>, facts: ImageFacts): boolean {
    const { imageId } = this.#definition
    return imageId === null ? sameImage(found.image, imageIdentity(facts)) : found.imageId === imageId
  }

  /** Storage of this host's own, down to the disk, or the operator's word. */
  async rebootIsProof(facts: ImageFacts): Promise<boolean> {
    if (this.#context.fencing.rebootIsProof) return true
    if (facts.kind !== 'file' || !LOCAL_FILE_SYSTEMS.has(facts.fileSystem)) return false
    return this.#context.stacks.isLocal(this.#definition)
  }

  /** Of a close of this host. Durable when it settles. */
  keepReceipt(receipt: Receipt, facts: ImageFacts): Promise<void> {
    const { imageId } = this
    return this.#context.host.receipts.put(this.#definition.name, { imageId, image: imageIdentity(facts), receipt })
  }

  /**
   * The receipt of our latest close of this image, for whoever asks again: from the record, or, when that has moved on,
   * from the shelf. Null where our latest generation was not closed.
   */
  async receiptOfLastClose(facts: ImageFacts): Promise<Receipt | null> {
    const newest = await this.home.readNewest()
    if (newest.kind === 'record' && isThisHost(await this.#kinship(newest.record.holder))) return newest.record.receipt
    const shelved = await this.#context.host.receipts.get(this.#definition.name)
    if (shelved === null || !this.matches(shelved, facts) || !this.#hasMovedOn(newest, shelved.receipt)) return null
    return shelved.receipt
  }

  /** A record that is not newer than the receipt began anew, with an image that may have taken the place of ours. */
  #hasMovedOn(newest: Newest, receipt: Receipt): boolean {
    switch (newest.kind) {
      case 'absent':
        return !this.home.shared
      case 'record':
        return newest.record.generation > receipt.generation || newest.record.receipt?.nonce === receipt.nonce
      case 'unreadable':
        return true
    }
  }

  /** The refusal of a holder that stands in the way, naming it. */
  static heldBy(code: Refusal['code'], reason: string, newest: Newest): Refusal {
    if (newest.kind !== 'record') return new Refusal(code, reason)
    const { holder, generation, state } = newest.record
    const { host, boot, instance, name } = holder
    return new Refusal(code, reason, { holder: { host, boot, instance, name }, generation, recordState: state })
  }

  async close(): Promise<void> {
    this.#endWatch()
    await this.keeper.close()
  }

  /** A run of this host, or an earlier opening of this one, that writes no more once its lock is free. */
  async #isOver(holder: RecordHolder, { rebootIsProof }: OpeningQuestion): Promise<boolean> {
    const kinship = await this.#kinship(holder)
    return kinship === 'this-run' || kinship === 'dead-run' || (kinship === 'earlier-boot' && rebootIsProof)
  }

  async #kinship(holder: RecordHolder | undefined): Promise<Kinship> {
    return holder === undefined ? 'other-host' : this.#context.host.kinship(holder)
  }
}
