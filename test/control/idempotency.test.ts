import { describe, expect, test } from 'vitest'
import fc from 'fast-check'
import { IdempotencyMemory } from '../../src/control/idempotency.ts'
import type { Answer } from '../../src/control/idempotency.ts'
import { Refusal } from '../../src/foundation/refusal.ts'

const answerOf = (body: string, status = 200): Answer => ({ status, headers: {}, body })

describe('the memory of answers', () => {
  test('is bounded in entries: the oldest finished goes first', async () => {
    const memory = new IdempotencyMemory(2, 100_000)
    let runs = 0
    const ask = (key: string): Promise<Answer> =>
      memory.answer(key, 'r', () => Promise.resolve(answerOf(String(++runs))))
    await ask('a')
    await ask('b')
    await ask('c')
    expect((await ask('b')).body).toBe('2')
    expect((await ask('a')).body).toBe('4')
  })

  test('is bounded in bytes', async () => {
    const memory = new IdempotencyMemory(100, 3000)
    let runs = 0
    const ask = (key: string): Promise<Answer> =>
      memory.answer(key, 'r', () => Promise.resolve(answerOf(String(++runs).repeat(500))))
    await ask('a')
    await ask('b')
    await ask('c')
    expect(runs).toBe(3)
    await ask('c')
    expect(runs).toBe(3)
    await ask('a')
    expect(runs).toBe(4)
  })

  test('an answer larger than the memory is given, and forgotten', async () => {
    const memory = new IdempotencyMemory(100, 1000)
    let runs = 0
    const ask = (): Promise<Answer> =>
      memory.answer('k', 'r', () => Promise.resolve(answerOf('x'.repeat(5000 + runs++))))
    expect((await ask()).body).toHaveLength(5000)
    expect((await ask()).body).toHaveLength(5001)
  })

  test('what runs is never forgotten; beyond the bound the next is refused', async () => {
    const memory = new IdempotencyMemory(2, 100_000)
    const ends: ((answer: Answer) => void)[] = []
    const begin = (key: string): Promise<Answer> =>
      memory.answer(key, 'r', () => new Promise((resolve) => ends.push(resolve)))
    const running = [begin('a'), begin('b')]
    await expect(begin('c')).rejects.toMatchObject({ code: 'busy' })
    const joined = begin('a')
    for (const end of ends) end(answerOf('done'))
    expect((await Promise.all([...running, joined])).map(({ body }) => body)).toEqual(['done', 'done', 'done'])
    await expect(memory.answer('a', 'other', () => Promise.reject(new Error('never run')))).rejects.toBeInstanceOf(
      Refusal,
    )
  })

  test('what threw was nothing', async () => {
    const memory = new IdempotencyMemory()
    await expect(memory.answer('k', 'r', () => Promise.reject(new Error('a bug')))).rejects.toThrow('a bug')
    expect((await memory.answer('k', 'r', () => Promise.resolve(answerOf('now')))).body).toBe('now')
  })

  test('whatever is asked, each run of a request gives one answer to all who asked with its key', async () => {
    const requests = fc.array(fc.record({ key: fc.constantFrom('a', 'b', 'c'), request: fc.constantFrom('x', 'y') }), {
      maxLength: 30,
    })
    await fc.assert(
      fc.asyncProperty(requests, async (asked) => {
        const memory = new IdempotencyMemory(8, 100_000)
        const first = new Map<string, { request: string; body: string }>()
        let runs = 0
        for (const { key, request } of asked) {
          const known = first.get(key)
          const asking = memory.answer(key, request, () => Promise.resolve(answerOf(String(++runs))))
          if (known !== undefined && known.request !== request) await expect(asking).rejects.toBeInstanceOf(Refusal)
          else {
            const { body } = await asking
            expect(body).toBe(known?.body ?? String(runs))
            first.set(key, { request, body })
          }
        }
        expect(runs).toBe(first.size)
      }),
      { numRuns: 50 },
    )
  })
})
