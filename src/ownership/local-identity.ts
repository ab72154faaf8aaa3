/**
 * Who "this host", "this boot" and "this run" are. The host is a random identity that was left in the daemon's state
 * directory, not the machine id, which cloned machines share: without the file it is another host. The boot is the
 * kernel's own; the run is drawn anew each time.
 *
 * Each opening also leaves a random token in the state directory before any record names it. A record whose token is not
 * here was not written from this directory, whatever else it claims. Beside the token of a generation that was fenced lies
 * that it was: a record may not be able to say so.
 */

import { randomBytes } from 'node:crypto'
import { readFileSync } from 'node:fs'
import { hostname } from 'node:os'
import { dirname, join } from 'node:path'
import type { BlockingRunner } from '../blocking/calls.ts'
import { Refusal } from '../foundation/refusal.ts'
import type { Holder } from '../interlock/receipt.ts'
import { ERRNO, errnoName } from '../posix/errno.ts'
import { leaveOnce } from './left-once.ts'

const IDENTITY_FILE = 'host-identity'
const TOKEN_FOLDER = 'open-tokens'
const FENCED_SUFFIX = '.fenced'
const IDENTITY_BYTES = 16
const TOKEN_PATTERN = /^[0-9a-f]{32}$/
const IDENTITY_PATTERN = /^[0-9a-f]{32}\n$/
const FILE_BYTES_MAX = 256
const PRIVATE_FILE = 0o600
const PRIVATE_DIRECTORY = 0o700

export interface LocalIdentity extends Holder {
  /** For people. Identifies nothing. */
  readonly name: string
}

/**
 * Reads the host's identity, or creates it durably when there is none. The state directory is created too; its parent
 * must exist. An identity that is there but not readable as one is refused: a new one would make this host a stranger to
 * its own records.
 */
export async function establishIdentity(stateDirectory: string, runner: BlockingRunner): Promise<LocalIdentity> {
  await ensureDirectory(stateDirectory, runner)
  const path = join(stateDirectory, IDENTITY_FILE)
  let host = await readIdentity(path, runner)
  if (host === null) {
    await createIdentity(stateDirectory, path, runner)
    host = await readIdentity(path, runner)
  } else {
    // It may have been created by a run that died before its name was durable.
    await demand(runner.run({ kind: 'syncDirectory', path: stateDirectory }), 'make durable', stateDirectory)
  }
  if (host === null) throw failure('read', path, ERRNO.ENOENT)
  return { host, boot: bootIdentity(), instance: randomIdentity(), name: hostname() }
}

/** Where tokens are left. */
export function prepareOpenTokens(stateDirectory: string, runner: BlockingRunner): Promise<void> {
  return ensureDirectory(join(stateDirectory, TOKEN_FOLDER), runner)
}

/** A fresh open token, durable in the state directory before this answers. */
export async function leaveOpenToken(stateDirectory: string, runner: BlockingRunner): Promise<string> {
  const folder = join(stateDirectory, TOKEN_FOLDER)
  const token = randomIdentity()
  const path = join(folder, token)
  const calls = [
    { kind: 'createFile', path, bytes: new Uint8Array(0), mode: PRIVATE_FILE },
    { kind: 'syncDirectory', path: folder },
  ] as const
  const [created = 0, synced = 0] = await runner.run({ kind: 'inTurn', calls })
  if (created < 0) throw failure('create', path, created)
  if (synced < 0) throw failure('make durable', folder, synced)
  return token
}

/** Whether that token was left here. */
export function hasOpenToken(stateDirectory: string, token: string, runner: BlockingRunner): Promise<boolean> {
  return isLeft(join(stateDirectory, TOKEN_FOLDER), token, '', runner)
}

async function isLeft(folder: string, token: string, suffix: string, runner: BlockingRunner): Promise<boolean> {
  if (!TOKEN_PATTERN.test(token)) return false
  const path = join(folder, `${token}${suffix}`)
  const result = await runner.run({ kind: 'readFile', path, lengthBytesMax: FILE_BYTES_MAX })
  if (typeof result !== 'number') return true
  if (result === -ERRNO.ENOENT) return false
  throw failure('read', path, result)
}

/** That what was opened with this token has been fenced. Durable before this answers. */
export async function leaveFenceMark(stateDirectory: string, token: string, runner: BlockingRunner): Promise<void> {
  const folder = join(stateDirectory, TOKEN_FOLDER)
  const path = join(folder, `${token}${FENCED_SUFFIX}`)
  const created = await runner.run({ kind: 'createFile', path, bytes: new Uint8Array(0), mode: PRIVATE_FILE })
  if (created < 0 && created !== -ERRNO.EEXIST) throw failure('create', path, created)
  await demand(runner.run({ kind: 'syncDirectory', path: folder }), 'make durable', folder)
}

export function hasFenceMark(stateDirectory: string, token: string, runner: BlockingRunner): Promise<boolean> {
  return isLeft(join(stateDirectory, TOKEN_FOLDER), token, FENCED_SUFFIX, runner)
}

/** Forgets a token that no record names any more. */
export async function dropOpenToken(stateDirectory: string, token: string, runner: BlockingRunner): Promise<void> {
  for (const name of [token, `${token}${FENCED_SUFFIX}`]) {
    const path = join(stateDirectory, TOKEN_FOLDER, name)
    const result = await runner.run({ kind: 'removeFile', path })
    if (result < 0 && result !== -ERRNO.ENOENT) throw failure('remove', path, result)
  }
}

export function randomIdentity(): string {
  return randomBytes(IDENTITY_BYTES).toString('hex')
}

/** The kernel's identity of this boot. */
export function bootIdentity(): string {
  return readFileSync('/proc/sys/kernel/random/boot_id', 'utf8').trim()
}

/** Creates it durably where it is missing; its parent must exist. */
export async function ensureDirectory(path: string, runner: BlockingRunner): Promise<void> {
  const result = await runner.run({ kind: 'makeDirectory', path, mode: PRIVATE_DIRECTORY })
  if (result === -ERRNO.EEXIST) return
  if (result < 0) throw failure('create', path, result)
  const parent = dirname(path)
  await demand(runner.run({ kind: 'syncDirectory', path: parent }), 'make durable', parent)
}

async function readIdentity(path: string, runner: BlockingRunner): Promise<string | null> {
  const content = await runner.run({ kind: 'readFile', path, lengthBytesMax: FILE_BYTES_MAX })
  if (typeof content === 'number') {
    if (content === -ERRNO.ENOENT) return null
    throw failure('read', path, content)
  }
  const text = Buffer.from(content).toString('latin1')
  if (!IDENTITY_PATTERN.test(text)) {
    throw new Refusal(
      'state-directory',
      `${path} does not hold a host identity (32 hexadecimal digits); restore it, or remove it to make this another host`,
    )
  }
  return text.trim()
}

/** Where another run was first, its identity is the host's. */
async function createIdentity(stateDirectory: string, path: string, runner: BlockingRunner): Promise<void> {
  await demand(leaveOnce(runner, path, `${randomIdentity()}\n`), 'create', path)
  await demand(runner.run({ kind: 'syncDirectory', path: stateDirectory }), 'make durable', stateDirectory)
}

async function demand(outcome: Promise<number>, verb: string, path: string): Promise<void> {
  const result = await outcome
  if (result < 0) throw failure(verb, path, result)
}

function failure(verb: string, path: string, errno: number): Refusal {
  return new Refusal('state-directory', `cannot ${verb} ${path}: ${errnoName(errno)}`)
}
