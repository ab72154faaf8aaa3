/**
 * The log of the daemon: one line per event on standard error, JSON for machines or pretty for people. Each line is
 * written before the call returns, so that the last words before a kill are not lost. A reader of standard error that is
 * gone or too slow costs lines, never the daemon.
 */

import { writeSync } from 'node:fs'
import { pino } from 'pino'
import type { Logger } from 'pino'
import type { LogFormat, LogLevel } from '../config/configuration.ts'

const STANDARD_ERROR = 2
const TRIES_MAX = 5
const RETRY_MS = 10

const pause = new Int32Array(new SharedArrayBuffer(4))

export async function makeLog(level: LogLevel, format: LogFormat): Promise<Logger> {
  const prettify = format === 'pretty' ? await prettifier() : undefined
  const write = (line: string): void => {
    writeLine(prettify === undefined ? line : prettify(line))
  }
  const formatters = { level: (label: string) => ({ level: label }) }
  return pino({ level, base: null, timestamp: pino.stdTimeFunctions.isoTime, formatters }, { write })
}

/** Loaded only for people: a daemon that machines read starts without it. */
async function prettifier(): Promise<(line: string) => string> {
  const { prettyFactory } = await import('pino-pretty')
  return prettyFactory({ colorize: process.stderr.isTTY, sync: true })
}

/** Also for what is said before there is a log. */
export function writeLine(line: string): void {
  let rest = Buffer.from(line)
  for (let tries = 0; rest.length > 0 && tries < TRIES_MAX; tries++) {
    try {
      rest = rest.subarray(writeSync(STANDARD_ERROR, rest))
    } catch (error) {
      if (!(error instanceof Error) || !('code' in error) || error.code !== 'EAGAIN') return
      Atomics.wait(pause, 0, 0, RETRY_MS)
    }
  }
}
