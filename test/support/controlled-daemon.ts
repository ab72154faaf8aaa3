/**
 * A daemon as its operators reach it, wherever it runs: through its control socket, by interlockctl or by plain HTTP that
 * shares no code with the client under src/. What starts and ends it is in daemon.ts and container-host.ts.
 */

import { request } from 'node:http'
import { join } from 'node:path'
import type { ExportStatus } from '../../src/exports/verbs.ts'
import type { Receipt } from '../../src/interlock/receipt.ts'
import { eventually } from './eventually.ts'
import { runProgram } from './foreign-program.ts'
import type { Outcome } from './foreign-program.ts'

export const PROJECT = join(import.meta.dirname, '../..')

export interface ApiAnswer {
  readonly status: number
  readonly body: unknown
}

export interface Closed {
  readonly receipt: Receipt
  /** Date.now() at the answer, rounded up. */
  readonly answeredMs: number
}

export class ControlledDaemon {
  readonly controlPath: string

  constructor(controlPath: string) {
    this.controlPath = controlPath
  }

  /** interlockctl against this daemon, with results as JSON. */
  ctl(commandArguments: readonly string[], timeoutMs = 60_000): Promise<Outcome> {
    return runProgram(
      process.execPath,
      [
        join(PROJECT, 'bin/interlockctl.cjs'),
        '--control',
        `unix:${this.controlPath}`,
        '-o',
        'json',
        ...commandArguments,
      ],
      { timeoutMs },
    )
  }

  /** One request to the control API. `path` starts after /v1. */
  api(method: string, path: string, body?: unknown, timeoutMs = 60_000): Promise<ApiAnswer> {
    return askOverSocket(this.controlPath, method, `/v1${path}`, body, timeoutMs)
  }

  /** As `api`, and the answer must be a success. */
  async ask<T = Readonly<Record<string, unknown>>>(
    method: string,
    path: string,
    body?: unknown,
    timeoutMs = 60_000,
  ): Promise<T> {
    const answer = await this.api(method, path, body, timeoutMs)
    if (answer.status >= 300) throw new Error(`${method} ${path}: ${answer.status} ${JSON.stringify(answer.body)}`)
    return answer.body as T
  }

  status(exportName: string): Promise<ExportStatus> {
    return this.ask<ExportStatus>('GET', `/exports/${exportName}`)
  }

  /** Closes, and waits for the receipt. */
  async close(exportName: string, options: Readonly<Record<string, unknown>> = {}): Promise<Closed> {
    const receipt = await this.ask<Receipt>('POST', `/exports/${exportName}/close`, options)
    return { receipt, answeredMs: Date.now() + 1 }
  }

  open(exportName: string, options: Readonly<Record<string, unknown>> = {}): Promise<ExportStatus> {
    return this.ask<ExportStatus>('POST', `/exports/${exportName}/open`, options)
  }

  /** Waits for an opening that goes on by itself, such as that of a start. */
  async untilOpen(exportName: string, timeoutMs = 60_000): Promise<ExportStatus> {
    return eventually(
      `the opening of ${exportName}`,
      async () => {
        const status = await this.status(exportName)
        return status.state === 'open' && status
      },
      { timeoutMs },
    )
  }

  /** Waits until the export has at least so many requests that are admitted and not cleared. */
  async untilInFlight(exportName: string, count: number, timeoutMs = 30_000): Promise<ExportStatus> {
    return eventually(
      `${count} requests in flight on ${exportName}`,
      async () => {
        const status = await this.status(exportName)
        const { admitted, held, submitted } = status.outstanding
        return admitted + held + submitted >= count && status
      },
      { timeoutMs },
    )
  }
}

/** One exchange of HTTP over a Unix socket. */
export function askOverSocket(
  socketPath: string,
  method: string,
  path: string,
  body: unknown,
  timeoutMs: number,
): Promise<ApiAnswer> {
  return new Promise((resolve, reject) => {
    const text = body === undefined ? undefined : JSON.stringify(body)
    const asked = request(
      {
        socketPath,
        method,
        path,
        agent: false,
        headers:
          text === undefined ? {} : { 'content-type': 'application/json', 'content-length': Buffer.byteLength(text) },
      },
      (answer) => {
        let heard = ''
        answer.setEncoding('utf8').on('data', (part: string) => (heard += part))
        answer.on('end', () => {
          clearTimeout(timer)
          resolve({ status: answer.statusCode ?? 0, body: heard === '' ? undefined : (JSON.parse(heard) as unknown) })
        })
        answer.on('error', reject)
      },
    )
    const timer = setTimeout(() => {
      asked.destroy(new Error(`${method} ${path} was not answered within ${timeoutMs} ms`))
    }, timeoutMs)
    asked.on('error', (error) => {
      clearTimeout(timer)
      reject(error)
    })
    asked.end(text)
  })
}
