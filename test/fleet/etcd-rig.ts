/**
 * Homes and records in an etcd that a test has started: homes with a client of their own each, as on different hosts, and
 * the places of records for tests that run over every home. What is in etcd is read by etcdctl, at once or not at all.
 */

import { spawnSync } from 'node:child_process'
import { createHash } from 'node:crypto'
import { afterAll, beforeAll } from 'vitest'
import { requirePeer } from '../../scripts/peers.mjs'
import { EtcdClient } from '../../src/ownership/etcd/client.ts'
import type { EtcdSettings } from '../../src/ownership/etcd/settings.ts'
import { EtcdWatch } from '../../src/ownership/etcd/watch.ts'
import { EtcdHome } from '../../src/ownership/etcd-home.ts'
import type { OwnershipRecord } from '../../src/ownership/home.ts'
import { inlineRunner } from '../blocking/inline-runner.ts'
import { keepRecordsIn, NO_RECORD, recordsIn } from '../exports/ownership-rig.ts'
import type { RecordPlace, RecordPlaces } from '../exports/ownership-rig.ts'
import { startEtcd } from '../support/etcd-cluster.ts'
import type { EtcdCluster, EtcdOptions } from '../support/etcd-cluster.ts'
import { Scratch } from '../support/scratch.ts'
import { scratchOfTest } from '../support/temporary-directory.ts'
import { startUnreliableGateway } from '../support/unreliable-gateway.ts'

const silent = { info: () => undefined, warn: () => undefined }

export function settingsOf(endpoints: readonly string[], overrides: Partial<EtcdSettings> = {}): EtcdSettings {
  const files = { caFile: null, certificateFile: null, keyFile: null, user: null, userFile: null, passwordFile: null }
  return { endpoints, prefix: '/test/', timeoutMs: 10_000, ...files, ...overrides }
}

/** What a daemon has for all its exports. Ends with the test. */
export function connectionTo(
  endpoints: readonly string[],
  overrides: Partial<EtcdSettings> = {},
): { readonly client: EtcdClient; readonly watch: EtcdWatch } {
  const client = new EtcdClient(settingsOf(endpoints, overrides), inlineRunner, silent)
  const watch = new EtcdWatch(client)
  scratchOfTest().defer('etcd client', async () => {
    await watch.close()
    client.close()
  })
  return { client, watch }
}

/** Ends with the test. */
export function homeAt(key: string, endpoints: readonly string[], overrides: Partial<EtcdSettings> = {}): EtcdHome {
  const { client, watch } = connectionTo(endpoints, overrides)
  return new EtcdHome(client, watch, key)
}

interface PastKey {
  readonly text: string
  readonly revision: number
}

/** `cluster` is asked for when a test runs: it may not be there before. */
export function placesIn(cluster: () => EtcdCluster): RecordPlaces {
  const place = (prefix: string): RecordPlace => {
    const keyOf = (imageId: string): string => `${prefix}${imageId}`
    return {
      ownership: 'etcd',
      get settings() {
        return [`endpoints = ${JSON.stringify(cluster().endpoints)}`, `prefix = "${prefix}"`]
      },
      records: (imageId) => {
        const texts: string[] = []
        let found = read(cluster(), keyOf(imageId), 0)
        while (found !== null) {
          texts.unshift(found.text)
          found = found.revision === 1 ? null : read(cluster(), keyOf(imageId), found.revision - 1)
        }
        return recordsIn(texts)
      },
      newest: (imageId) => {
        const found = read(cluster(), keyOf(imageId), 0)
        return found === null ? undefined : (JSON.parse(found.text) as OwnershipRecord)
      },
      home: (imageId) => homeAt(keyOf(imageId), cluster().endpoints),
      spoil: (imageId) => {
        etcdctl(cluster(), ['put', keyOf(imageId), NO_RECORD])
      },
      forget: (imageId) => {
        etcdctl(cluster(), ['del', keyOf(imageId)])
      },
    }
  }
  const named = (what: string): RecordPlace => place(`/test/${createHash('sha256').update(what).digest('hex')}/`)
  return {
    ownership: 'etcd',
    ofImage: named,
    apart: (scratch) => named(scratch.directory('place')),
    within: async (scratch, directory) => {
      const there = await startEtcd(scratch, { directory })
      return placesIn(() => there).apart(scratch)
    },
    stalling: async (scratch) => {
      const gateway = await startUnreliableGateway(scratch, cluster().endpoints[0] ?? '')
      const prefix = `${scratch.directory('place')}/`
      const settings = [`endpoints = ["${gateway.endpoint}"]`, `prefix = "${prefix}"`, 'timeout = "2s"']
      const key = Buffer.from(`${prefix}vda`).toString('base64')
      const stall = (stalled: boolean): Promise<void> => {
        const writes = (path: string, body: string): boolean => path === '/v3/kv/txn' && body.includes(key)
        gateway.fate = (path, body) => (stalled && writes(path, body) ? 'swallow' : 'pass')
        return Promise.resolve()
      }
      return { place: { ...place(prefix), settings }, stall }
    },
    passing: async (scratch) => {
      const passing = await startEtcd(scratch)
      const comeBack = (): Promise<void> => {
        for (const member of passing.members) member.start()
        return passing.ready()
      }
      const leave = async (): Promise<void> => {
        for (const member of passing.members) await member.stop()
      }
      return { place: placesIn(() => passing).apart(scratch), leave, comeBack }
    },
  }
}

/** There when the tests of the file run, and not before. */
export interface EtcdOfFile {
  readonly cluster: EtcdCluster
  /** Each test has keys of its own. */
  newKey(): string
}

/** One etcd for all the tests of a file. */
export function etcdOfFile(options: EtcdOptions = {}): EtcdOfFile {
  const shared = new Scratch()
  let cluster: EtcdCluster | null = null
  let lastKey = 0
  beforeAll(async () => {
    cluster = await startEtcd(shared, options)
  })
  afterAll(() => shared.dispose())
  return {
    get cluster() {
      if (cluster === null) throw new Error('etcd is started when the tests run')
      return cluster
    },
    newKey: () => {
      lastKey += 1
      return `/test/${lastKey}`
    },
  }
}

/**
 * The tests of a file that knows no home of records, with their records in an etcd of their own. Returns what tells the
 * keys that they have left there.
 */
export async function withRecordsInEtcd(loadTests: () => Promise<unknown>): Promise<() => Promise<string>> {
  const etcd = etcdOfFile()
  keepRecordsIn(placesIn(() => etcd.cluster))
  await loadTests()
  return async () => (await etcd.cluster.checked(['get', '/test/', '--prefix', '--keys-only'])).trim()
}

/** Revision 0 is now. Null where there was no such key. */
function read(cluster: EtcdCluster, key: string, revision: number): PastKey | null {
  const said = etcdctl(cluster, ['get', key, '--rev', String(revision), '--write-out', 'json'])
  const { kvs } = JSON.parse(said) as { kvs?: { value: string; mod_revision: number }[] }
  const [found] = kvs ?? []
  if (found === undefined) return null
  return { text: Buffer.from(found.value, 'base64').toString('utf8'), revision: found.mod_revision }
}

function etcdctl(cluster: EtcdCluster, commandArguments: readonly string[]): string {
  const asked = ['--endpoints', cluster.endpoints.join(','), ...commandArguments]
  const environment = { ...process.env, ETCDCTL_API: '3' }
  const { status, stdout, stderr } = spawnSync(requirePeer('etcdctl'), asked, { encoding: 'utf8', env: environment })
  if (status !== 0) throw new Error(`etcdctl ${commandArguments.join(' ')} ended with ${String(status)}: ${stderr}`)
  return stdout
}
