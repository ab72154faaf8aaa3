/**
 * Assertions that stay in the shipped program. A failed one is a bug in interlockd, never bad input: it throws, and
 * whoever runs the thread ends it. Bad input is a value, a `Refusal`, or an errno.
 */

export class AssertionFailure extends Error {
  override readonly name = 'AssertionFailure'
}

/** Throws when `condition` does not hold. `message` says what was expected, in words. */
export function assert(condition: boolean, message: string): asserts condition {
  if (!condition) throw new AssertionFailure(message)
}

/** For the branch that an exhaustive switch cannot reach. */
export function unreachable(value: never): never {
  throw new AssertionFailure(`unreachable value ${JSON.stringify(value)}`)
}

/** The value, or an assertion failure where it is absent. */
export function present<T>(value: T | undefined | null, what: string): T {
  if (value === undefined || value === null) throw new AssertionFailure(`${what} is missing`)
  return value
}
