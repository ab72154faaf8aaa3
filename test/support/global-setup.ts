/**
 * Runs before the tests that start a worker, a daemon or a foreign program: those run dist/, so dist/ is built first and
 * a type error fails the run. INTERLOCK_BUILT=1 says that dist/ is good as it is (other Node versions test one build).
 */

import { build } from '../../scripts/build.mjs'

export default async function setup(): Promise<void> {
  if (process.env['INTERLOCK_BUILT'] !== '1') await build()
}
