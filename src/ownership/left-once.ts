/**
 * A small file that is left once and never changed, as an identity is: written whole under another name and linked, so
 * that its name never stands for half of it, and of several who leave it at once one is first.
 */

import { randomBytes } from 'node:crypto'
import type { BlockingRunner } from '../blocking/calls.ts'
import { ERRNO } from '../posix/errno.ts'

const PRIVATE_FILE = 0o600

/**
 * 0 where the name is taken now, whoever was first: read it to know what it holds. Else -errno. The name is durable once
 * its directory was synced.
 */
export async function leaveOnce(runner: BlockingRunner, path: string, text: string): Promise<number> {
  const temporary = `${path}.${randomBytes(16).toString('hex')}`
  const bytes = Buffer.from(text)
  const created = await runner.run({ kind: 'createFile', path: temporary, bytes, mode: PRIVATE_FILE })
  if (created < 0) return created
  const linked = await runner.run({ kind: 'link', existingPath: temporary, createdPath: path })
  // One that stays is in nobody's way.
  await runner.run({ kind: 'removeFile', path: temporary })
  return linked === -ERRNO.EEXIST ? 0 : linked
}
