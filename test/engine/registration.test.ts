/** Which kernels let go of each registered file by itself. */

import { expect, test } from 'vitest'
import { releasesSeparately } from '../../src/engine/io-uring/registration.ts'

test.each([
  ['5.15.0-91-generic', false],
  ['6.1.0-18-amd64', false],
  ['6.12.9', false],
  ['6.13.0-rc1', true],
  ['6.18.44-fc-v669', true],
  ['7.0.1', true],
  ['unknown', false],
])('%s: %s', (kernelRelease, separately) => {
  expect(releasesSeparately(kernelRelease)).toBe(separately)
})
