/**
 * What npm runs after an installation from a checkout: builds dist/, so that `npm ci` alone leaves programs that work.
 * Without the compiler (`npm ci --omit=dev`) or without the sources (a published package) there is nothing to do, and
 * that is no failure.
 */

import { existsSync } from 'node:fs'
import { build, compilerPath } from './build.mjs'

const hasSources = existsSync(new URL('../src', import.meta.url))
if (hasSources && compilerPath() !== undefined) {
  try {
    await build()
  } catch (error) {
    console.error(error.message)
    process.exitCode = 1
  }
}
