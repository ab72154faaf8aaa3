/**
 * What a signal does to a program that runs one verb: a `watch` ends in order, whatever does not end by it is ended by
 * the same signal a moment later; and a verb that has to bring something to its end first is only asked. A second signal
 * always ends the program.
 */

export interface Interruption {
  readonly interrupted: AbortSignal
  /** From now on Ctrl-C and SIGTERM only ask; what is asked ends in order. */
  readonly endInOrder: () => void
}

const PATIENCE_MS = 100

export function interruption(): Interruption {
  const controller = new AbortController()
  let inOrder = false
  // Whoever read our results has gone.
  process.stdout.on('error', () => {
    controller.abort()
  })
  process.once('SIGINT', () => {
    controller.abort()
    if (!inOrder) setTimeout(() => process.kill(process.pid, 'SIGINT'), PATIENCE_MS).unref()
  })
  return {
    interrupted: controller.signal,
    endInOrder: () => {
      inOrder = true
      process.once('SIGTERM', () => {
        controller.abort()
      })
    },
  }
}
