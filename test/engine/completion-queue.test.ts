/** The queue against the simplest model of one: an array. */

import fc from 'fast-check'
import { expect, test } from 'vitest'
import { CompletionQueue } from '../../src/engine/completion-queue.ts'

const steps = fc.array(
  fc.oneof(
    fc.record({ push: fc.integer({ min: 1, max: 700 }) }),
    fc.record({ shift: fc.integer({ min: 1, max: 700 }) }),
  ),
  { maxLength: 40 },
)

test('completions come out in the order in which they went in, however many there are', () => {
  fc.assert(
    fc.property(steps, (sequence) => {
      const queue = new CompletionQueue()
      const model: [number, number][] = []
      const into = { token: -1, result: 0 }
      let token = 2 ** 52
      for (const step of sequence) {
        if ('push' in step) {
          for (let count = 0; count < step.push; count += 1) {
            token += 1
            queue.push(token, 7 - (token % 133))
            model.push([token, 7 - (token % 133)])
          }
        } else {
          for (let count = 0; count < step.shift; count += 1) {
            const expected = model.shift()
            expect(queue.shift(into)).toBe(expected !== undefined)
            if (expected !== undefined) expect([into.token, into.result]).toEqual(expected)
          }
        }
        expect(queue.count).toBe(model.length)
      }
    }),
  )
})
