/**
 * Who we are to etcd, from files: authorities and a client certificate for TLS, a user and his password. The files are
 * read when they are first needed and again from time to time, so that a certificate or a password that was renewed is
 * taken up without a restart. What they hold is never logged.
 */

import { Agent as HttpAgent } from 'node:http'
import { Agent as HttpsAgent } from 'node:https'
import type { BlockingRunner } from '../../blocking/calls.ts'
import { errnoName } from '../../posix/errno.ts'
import { EtcdFailure } from './failure.ts'
import type { EtcdSettings } from './settings.ts'

const FILE_BYTES_MAX = 1024 * 1024
const FRESH_MS = 60_000
/** Connections to one endpoint, for calls; a stream has its own. */
const SOCKETS_MAX = 16

export interface EtcdUser {
  readonly name: string
  readonly password: string
}

interface Agents {
  readonly calls: HttpAgent
  readonly streams: HttpAgent
}

export class EtcdAccess {
  readonly #settings: EtcdSettings
  readonly #runner: BlockingRunner
  readonly #secure: boolean
  #agents: Agents | null = null
  /** What the agents were made of. */
  #material = ''
  #readAtMs = -Infinity
  #reading: Promise<Agents> | null = null

  constructor(settings: EtcdSettings, runner: BlockingRunner) {
    this.#settings = settings
    this.#runner = runner
    this.#secure = settings.endpoints.some((endpoint) => endpoint.startsWith('https:'))
  }

  /** Rejects with an EtcdFailure where a file cannot be read. */
  agents(): Promise<Agents> {
    if (this.#agents !== null && (!this.#secure || performance.now() - this.#readAtMs < FRESH_MS)) {
      return Promise.resolve(this.#agents)
    }
    this.#reading ??= this.#renew().finally(() => {
      this.#reading = null
    })
    return this.#reading
  }

  /** Null where none is configured. Read anew each time: it is asked for once per token. */
  async user(): Promise<EtcdUser | null> {
    const { user, userFile, passwordFile } = this.#settings
    const name = user ?? (await this.#line('user_file', userFile))
    if (name === null) return null
    return { name, password: (await this.#line('password_file', passwordFile)) ?? '' }
  }

  close(): void {
    this.#agents?.calls.destroy()
    this.#agents?.streams.destroy()
    this.#agents = null
    this.#material = ''
  }

  async #renew(): Promise<Agents> {
    const { caFile, certificateFile, keyFile } = this.#settings
    const ca = this.#secure ? await this.#content('ca_file', caFile) : null
    const cert = this.#secure ? await this.#content('certificate_file', certificateFile) : null
    const key = this.#secure ? await this.#content('key_file', keyFile) : null
    this.#readAtMs = performance.now()
    const material = JSON.stringify([ca, cert, key])
    if (this.#agents !== null && material === this.#material) return this.#agents
    this.close()
    this.#material = material
    const tls = { ...(ca !== null && { ca }), ...(cert !== null && { cert }), ...(key !== null && { key }) }
    const calls = { keepAlive: true, maxSockets: SOCKETS_MAX }
    this.#agents = this.#secure
      ? { calls: new HttpsAgent({ ...calls, ...tls }), streams: new HttpsAgent(tls) }
      : { calls: new HttpAgent(calls), streams: new HttpAgent() }
    return this.#agents
  }

  async #line(key: string, path: string | null): Promise<string | null> {
    return (await this.#content(key, path))?.replace(/\r?\n$/u, '') ?? null
  }

  async #content(key: string, path: string | null): Promise<string | null> {
    if (path === null) return null
    const bytes = await this.#runner.run({ kind: 'readFile', path, lengthBytesMax: FILE_BYTES_MAX })
    if (typeof bytes !== 'number') return Buffer.from(bytes).toString('utf8')
    const detail = `${key} ${path} cannot be read: ${errnoName(bytes)}`
    throw new EtcdFailure(detail, { outcome: 'notDone', passing: false })
  }
}
