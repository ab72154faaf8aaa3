/**
 * A process that holds a generation of an image and, if told so, has a write on its way: for tests that kill it. It says
 * 'locked' or 'submitted', and then lives until it is killed.
 */

import { write } from 'node:fs'
import { setInterval, setTimeout } from 'node:timers'
import { perform } from '../../dist/blocking/calls.js'
import { openImage } from '../../dist/exports/image.js'
import { claimGenerations } from '../../dist/ownership/generation-lock.js'
import { mapMemory } from '../../dist/posix/mapping.js'

const runner = { run: (call) => Promise.resolve(perform(call)) }
const [path, generation, then] = process.argv.slice(2)

const image = await openImage(runner, path, 'write')
const claim = await claimGenerations(runner, image.descriptor.number, [])
if (claim.kind !== 'claimed') throw new Error(`the claim is ${claim.kind}`)
const narrowed = await claim.lock.narrow(Number(generation))
if (narrowed !== 0) throw new Error(`narrowing failed: ${narrowed}`)
if (then === 'write') {
  const memory = mapMemory(4096)
  memory.bytes.fill(0xee)
  write(image.descriptor.number, memory.bytes, 0, 4096, 0, () => console.log('written'))
  // The pool's thread must have entered the kernel before the test is told.
  setTimeout(() => console.log('submitted'), 300)
} else {
  console.log('locked')
}
setInterval(() => undefined, 1000)
