#!/usr/bin/env node
'use strict'

/**
 * Sizes libuv's pool of threads, then starts the daemon. Nothing else may be loaded before: the pool takes its size when
 * it is first used, and an ES module entry has used it by the time its first line runs.
 *
 * V8 is told not to enlarge the space of young objects: loading the daemon's modules would make it grow by some 15 MiB
 * that are never given back, and nothing that is fast here allocates.
 */

const { setFlagsFromString } = require('node:v8')

const DEFAULT_THREADS = 24
const THREADS_MIN = 8
const THREADS_MAX = 1024

const setting = process.env.UV_THREADPOOL_SIZE
const threads = setting === undefined || setting === '' ? DEFAULT_THREADS : Number(setting)

if (!Number.isInteger(threads) || threads < THREADS_MIN || threads > THREADS_MAX) {
  console.error(`UV_THREADPOOL_SIZE is ${setting}; it must be a whole number from ${THREADS_MIN} to ${THREADS_MAX}`)
  process.exitCode = 2
} else {
  process.env.UV_THREADPOOL_SIZE = String(threads)
  setFlagsFromString('--semi-space-growth-factor=1')
  import('../dist/cli/interlockd.js')
}
