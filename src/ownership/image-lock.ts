/**
 * The locks by which QEMU's programs keep each other off an image, taken in QEMU's own way: whoever uses a permission
 * holds a shared lock on the byte 100 + permission, and whoever cannot bear that others use one holds 200 + permission.
 * All of them are shared locks, so they never refuse each other; a conflict is found by asking, after having taken one's
 * own, whether the opposite byte of somebody else is locked. So of two that start at once at least one gives way.
 *
 * They are courtesy between programs on hosts that share locks, and proof of nothing: generations have their own locks.
 */

import type { BlockingRunner } from '../blocking/calls.ts'
import { ERRNO } from '../posix/errno.ts'
import { LOCK_FREE } from '../posix/locks.ts'

const PERMISSION_BASE = 100n
const UNSHARED_BASE = 200n

/** The offsets that QEMU gave its permissions, which are part of its locking protocol. */
const PERMISSION = { consistentRead: 0, write: 1, writeUnchanged: 2, resize: 3 } as const
type Permission = keyof typeof PERMISSION

interface Claim {
  readonly uses: readonly Permission[]
  readonly unshared: readonly Permission[]
}

const CLAIMS = {
  /** We read and write; nobody else may write or resize. */
  write: { uses: ['consistentRead', 'write'], unshared: ['write', 'resize'] },
  /** We read, and so may others; nobody may change it under our clients. */
  'read-only': { uses: ['consistentRead'], unshared: ['write', 'resize'] },
} as const satisfies Record<string, Claim>

export type ImageClaim = keyof typeof CLAIMS

export type ImageLockOutcome =
  | { readonly kind: 'locked' }
  /** `detail` says who is in the way, as far as a lock can tell. */
  | { readonly kind: 'busy'; readonly detail: string }
  | { readonly kind: 'failed'; readonly errno: number }

/** Takes the locks, or leaves none. The descriptor must be readable; it holds them until they are released or it closes. */
export async function lockImage(
  runner: BlockingRunner,
  descriptor: number,
  claim: ImageClaim,
): Promise<ImageLockOutcome> {
  const outcome = await takeAndCheck(runner, descriptor, CLAIMS[claim])
  if (outcome.kind !== 'locked') await unlockImage(runner, descriptor)
  return outcome
}

/** Releases all of them, whichever they are; the generation's lock stays. 0 or -errno. */
export function unlockImage(runner: BlockingRunner, descriptor: number): Promise<number> {
  return runner.run({
    kind: 'unlock',
    descriptor,
    start: PERMISSION_BASE,
    length: 2n * (UNSHARED_BASE - PERMISSION_BASE),
  })
}

async function takeAndCheck(runner: BlockingRunner, descriptor: number, claim: Claim): Promise<ImageLockOutcome> {
  const own = [
    ...claim.uses.map((permission) => PERMISSION_BASE + BigInt(PERMISSION[permission])),
    ...claim.unshared.map((permission) => UNSHARED_BASE + BigInt(PERMISSION[permission])),
  ]
  const opposite = [
    ...claim.uses.map((permission) => ({ base: UNSHARED_BASE, permission, complaint: 'does not share' })),
    ...claim.unshared.map((permission) => ({ base: PERMISSION_BASE, permission, complaint: 'uses' })),
  ]
  const taking = own.map((start) => ({ kind: 'lock', descriptor, lock: 'shared', start, length: 1n }) as const)
  const asking = opposite.map(({ base, permission }) => {
    const start = base + BigInt(PERMISSION[permission])
    return { kind: 'queryLock', descriptor, lock: 'exclusive', start, length: 1n } as const
  })
  const results = await runner.run({ kind: 'inTurn', calls: [...taking, ...asking] })
  const last = results.at(-1) ?? 0
  if (results.length <= taking.length && (last === -ERRNO.EAGAIN || last === -ERRNO.EACCES)) {
    return { kind: 'busy', detail: 'another program holds an exclusive lock on the image' }
  }
  if (last < 0) return { kind: 'failed', errno: -last }
  const answers = results.slice(taking.length)
  const inTheWay = opposite.find((_asked, index) => answers[index] !== LOCK_FREE)
  if (inTheWay === undefined) return { kind: 'locked' }
  const { complaint, permission } = inTheWay
  return { kind: 'busy', detail: `another program ${complaint} the permission "${permissionName(permission)}"` }
}

function permissionName(permission: Permission): string {
  return permission.replace(/[A-Z]/, (letter) => ` ${letter.toLowerCase()}`)
}
