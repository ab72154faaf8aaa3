/**
 * Debian's etcd, started by a test: one node or three on the loopback, in directories and at ports of their own. A member
 * can be stopped, killed and started again with what it had; the cluster is asked by etcdctl, which shares no code with
 * ours.
 *
 * Invariant: no member outlives the scratch.
 */

import { join } from 'node:path'
import { requirePeer } from '../../scripts/peers.mjs'
import { eventually } from './eventually.ts'
import { runProgram, startProgram } from './foreign-program.ts'
import type { Outcome, Program } from './foreign-program.ts'
import { freePort } from './free-port.ts'
import type { Scratch } from './scratch.ts'

const READY_TIMEOUT_MS = 60_000

export interface EtcdOptions {
  readonly members?: 1 | 3
  /** What clients connect to. */
  readonly address?: string
  /** Files, for what clients speak; clients must then have a certificate too. */
  readonly tls?: { readonly ca: string; readonly certificate: string; readonly key: string }
  /** Where one member keeps what it has; otherwise in one of its own. */
  readonly directory?: string
  /** Further arguments of each member. */
  readonly settings?: readonly string[]
}

interface MemberPlan {
  readonly name: string
  readonly clientUrl: string
  readonly peerUrl: string
  readonly directory: string
  readonly settings: readonly string[]
}

export class EtcdMember {
  readonly name: string
  readonly endpoint: string
  readonly #scratch: Scratch
  readonly #plan: MemberPlan
  readonly #initialCluster: string
  #program: Program | null = null

  constructor(scratch: Scratch, plan: MemberPlan, initialCluster: string) {
    this.name = plan.name
    this.endpoint = plan.clientUrl
    this.#scratch = scratch
    this.#plan = plan
    this.#initialCluster = initialCluster
  }

  get program(): Program {
    if (this.#program === null) throw new Error(`${this.name} was not started`)
    return this.#program
  }

  start(): void {
    const { name, clientUrl, peerUrl, directory, settings } = this.#plan
    this.#program = startProgram(this.#scratch, requirePeer('etcd'), [
      ...['--name', name, '--data-dir', directory, '--log-level', 'warn', '--logger', 'zap'],
      ...['--listen-client-urls', clientUrl, '--advertise-client-urls', clientUrl],
      ...['--listen-peer-urls', peerUrl, '--initial-advertise-peer-urls', peerUrl],
      ...['--initial-cluster', this.#initialCluster, '--initial-cluster-state', 'new'],
      ...settings,
    ])
  }

  /** In order, as an operator does. */
  async stop(): Promise<void> {
    await this.program.stop('SIGTERM', 10_000)
  }

  async kill(): Promise<void> {
    this.program.signal('SIGKILL')
    await this.program.exited
  }
}

export class EtcdCluster {
  readonly members: readonly EtcdMember[]
  readonly #credentials: readonly string[]

  constructor(members: readonly EtcdMember[], credentials: readonly string[]) {
    this.members = members
    this.#credentials = credentials
  }

  get endpoints(): readonly string[] {
    return this.members.map(({ endpoint }) => endpoint)
  }

  /** etcdctl, at all endpoints, as whoever the credentials say. */
  ctl(commandArguments: readonly string[], credentials: readonly string[] = [], input = ''): Promise<Outcome> {
    const where = ['--endpoints', this.endpoints.join(','), ...this.#credentials, ...credentials]
    return runProgram(requirePeer('etcdctl'), [...where, ...commandArguments], {
      environment: { ETCDCTL_API: '3' },
      input,
    })
  }

  async checked(commandArguments: readonly string[], credentials: readonly string[] = []): Promise<string> {
    const { status, stdout, stderr } = await this.ctl(commandArguments, credentials)
    if (status !== 0) throw new Error(`etcdctl ${commandArguments.join(' ')} ended with ${status}: ${stdout}${stderr}`)
    return stdout
  }

  /** Until a write would go through. */
  async ready(credentials: readonly string[] = []): Promise<void> {
    await eventually(
      'etcd to be ready',
      async () => (await this.ctl(['endpoint', 'health', '--command-timeout', '2s'], credentials)).status === 0,
      { timeoutMs: READY_TIMEOUT_MS, intervalMs: 50 },
    )
  }

  /** The member that leads; where one is starting or an election runs, as soon as all of them answer and one does. */
  leader(): Promise<EtcdMember> {
    return eventually('a leader', () => this.#leaderNow(), { timeoutMs: READY_TIMEOUT_MS, intervalMs: 50 })
  }

  async #leaderNow(): Promise<EtcdMember> {
    const said = await this.checked(['endpoint', 'status', '--write-out', 'json'])
    const statuses = JSON.parse(said) as {
      Endpoint: string
      Status: { leader: number; header: { member_id: number } }
    }[]
    const leading = statuses.find(({ Status }) => Status.leader === Status.header.member_id)
    const member = this.members.find(({ endpoint }) => endpoint === leading?.Endpoint)
    if (member === undefined) throw new Error(`there is no leader: ${said}`)
    return member
  }

  /** The revision that the cluster is at. */
  async revision(): Promise<number> {
    const said = await this.checked(['get', '/nothing', '--write-out', 'json'])
    return (JSON.parse(said) as { header: { revision: number } }).header.revision
  }
}

export async function startEtcd(scratch: Scratch, options: EtcdOptions = {}): Promise<EtcdCluster> {
  const { members: count = 1, address = '127.0.0.1', tls, directory, settings = [] } = options
  const scheme = tls === undefined ? 'http' : 'https'
  const secured =
    tls === undefined
      ? []
      : ['--cert-file', tls.certificate, '--key-file', tls.key, '--trusted-ca-file', tls.ca, '--client-cert-auth']
  const plans: MemberPlan[] = []
  for (let index = 0; index < count; index++) {
    plans.push({
      name: `m${index}`,
      clientUrl: `${scheme}://${address}:${await freePort()}`,
      peerUrl: `http://127.0.0.1:${await freePort()}`,
      directory: join(directory ?? scratch.directory('etcd'), 'data'),
      settings: [...secured, ...settings],
    })
  }
  const initialCluster = plans.map(({ name, peerUrl }) => `${name}=${peerUrl}`).join(',')
  const members = plans.map((plan) => new EtcdMember(scratch, plan, initialCluster))
  const credentials = tls === undefined ? [] : ['--cacert', tls.ca, '--cert', tls.certificate, '--key', tls.key]
  for (const member of members) member.start()
  const cluster = new EtcdCluster(members, credentials)
  await cluster.ready()
  return cluster
}
