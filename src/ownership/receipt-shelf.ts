/**
 * The newest receipt of each export, in the daemon's state directory: a close that is asked for again gets the same
 * receipt although another host has opened the image since, and its record has moved on. It is put here before it is
 * recorded or given to anybody, and taken away before a write of a newer generation is admitted. With it lies which image
 * it is of: another one may be exported under that name since. It proves nothing to other hosts: records do.
 */

import { join } from 'node:path'
import { runInTurn } from '../blocking/calls.ts'
import type { BlockingRunner } from '../blocking/calls.ts'
import { Malformed, Members } from '../foundation/members.ts'
import { Refusal } from '../foundation/refusal.ts'
import { readReceipt } from '../interlock/receipt-parser.ts'
import type { Receipt } from '../interlock/receipt.ts'
import { ERRNO, errnoName } from '../posix/errno.ts'
import type { ImageIdentity } from './home.ts'
import { ensureDirectory, randomIdentity } from './local-identity.ts'
import { readImageIdentity } from './record-format.ts'

const FOLDER = 'receipts'
const FILE_BYTES_MAX = 4 * 1024 * 1024
const FILE_MODE = 0o600

export interface ShelvedReceipt {
  /** As in the ownership record of that close. */
  readonly imageId: string
  readonly image: ImageIdentity
  readonly receipt: Receipt
}

export class ReceiptShelf {
  readonly #folder: string
  readonly #runner: BlockingRunner

  constructor(stateDirectory: string, runner: BlockingRunner) {
    this.#folder = join(stateDirectory, FOLDER)
    this.#runner = runner
  }

  prepare(): Promise<void> {
    return ensureDirectory(this.#folder, this.#runner)
  }

  /** Durable when it settles. Replaces the one before. */
  async put(exportName: string, shelved: ShelvedReceipt): Promise<void> {
    const path = this.#pathOf(exportName)
    const temporary = `${path}.${randomIdentity()}`
    const bytes = Buffer.from(`${JSON.stringify(shelved)}\n`, 'utf8')
    const calls = [
      { kind: 'createFile', path: temporary, bytes, mode: FILE_MODE },
      { kind: 'renameFile', path: temporary, renamedPath: path },
      { kind: 'syncDirectory', path: this.#folder },
    ] as const
    const result = await runInTurn(this.#runner, calls)
    if (result < 0) throw failure(path, result)
  }

  /** Null where there is none, or none that can be understood. */
  async get(exportName: string): Promise<ShelvedReceipt | null> {
    const path = this.#pathOf(exportName)
    const content = await this.#runner.run({ kind: 'readFile', path, lengthBytesMax: FILE_BYTES_MAX })
    if (typeof content === 'number') {
      if (content === -ERRNO.ENOENT) return null
      throw failure(path, content)
    }
    try {
      return readShelved(new Members('file', JSON.parse(Buffer.from(content).toString('utf8'))))
    } catch (error) {
      if (error instanceof Malformed || error instanceof SyntaxError) return null
      throw error
    }
  }

  async drop(exportName: string): Promise<void> {
    const path = this.#pathOf(exportName)
    const calls = [
      { kind: 'removeFile', path },
      { kind: 'syncDirectory', path: this.#folder },
    ] as const
    const [removed = 0, synced = 0] = await this.#runner.run({ kind: 'inTurn', calls })
    if (removed === -ERRNO.ENOENT) return
    if (removed < 0) throw failure(path, removed)
    if (synced < 0) throw failure(this.#folder, synced)
  }

  #pathOf(exportName: string): string {
    return join(this.#folder, `${exportName}.json`)
  }
}

function readShelved(members: Members): ShelvedReceipt {
  const shelved: ShelvedReceipt = {
    imageId: members.text('imageId'),
    image: readImageIdentity(members.object('image')),
    receipt: readReceipt(members.object('receipt')),
  }
  members.end()
  return shelved
}

function failure(path: string, result: number): Refusal {
  return new Refusal('state-directory', `cannot use ${path}: ${errnoName(result)}`)
}
