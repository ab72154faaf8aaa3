/**
 * How a real engine stops: by the shared stop word, whatever it is doing. These scenarios end by being stopped, so none
 * of them comes to its own end.
 */

import { deepEqual } from 'node:assert/strict'
import type { Scenario } from './rig.ts'

const BLOCK = 4096
const never = (): boolean => false

export const LIFE_SCENARIOS: Readonly<Record<string, Scenario>> = {
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
