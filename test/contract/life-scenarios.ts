/**
 * How a real engine sleeps, and how it stops: by the shared stop word, whatever it is doing. These scenarios end by being stopped, so none
 * of them comes to its own end.
 */

import { deepEqual, ok } from 'node:assert/strict'
import type { Scenario } from './rig.ts'

const BLOCK = 4096
const never = (): boolean => false

export const LIFE_SCENARIOS: Readonly<Record<string, Scenario>> = {
  *'an idle engine sleeps'(rig) {
    const { file, descriptor } = rig.openImage()
    const { stream } = rig.connect()
    rig.receive(stream, 0, BLOCK)
    deepEqual(yield* rig.one(rig.read(file, 0, BLOCK, BLOCK)), BLOCK)
    yield* rig.remove(file, descriptor)
    const start = performance.now()
    const before = rig.turns.length
    rig.wakeLater(200)
    yield () => performance.now() - start > 150
    ok(rig.turns.length - before <= 3, `a few turns at most, not ${rig.turns.length - before}`)
    rig.stopLater(0)
    yield never
  },

  *'an idle engine stops'(rig) {
    rig.stopLater(30)
    yield never
  },

  *'an engine stops with streams open and a receive outstanding'(rig) {
    for (let index = 0; index < 20; index += 1) rig.receive(rig.connect().stream, index * BLOCK, BLOCK)
    rig.stopLater(30)
    yield never
  },

  *'an engine stops with a blocked send'(rig) {
    rig.send(rig.connect().stream, [0, 8 * 1024 * 1024])
    rig.stopLater(30)
    yield never
  },

  *'a busy engine stops'(rig) {
    const { file, descriptor } = rig.openImage()
    rig.stopLater(30)
    try {
      for (;;) deepEqual(yield* rig.one(rig.read(file, 0, 0, BLOCK)), BLOCK)
    } finally {
      rig.closeImage(descriptor)
    }
  },
}
