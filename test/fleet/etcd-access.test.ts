/**
 * Who may talk to etcd: TLS with client certificates, a user and his password from files that change, tokens that are not
 * valid any more, endpoints that are of another cluster.
 */

import { writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { expect, test } from 'vitest'
import { draftOf } from '../ownership/record-samples.ts'
import { makeCertificates } from '../support/certificates.ts'
import { startDaemon } from '../support/daemon.ts'
import { startEtcd } from '../support/etcd-cluster.ts'
import type { EtcdCluster } from '../support/etcd-cluster.ts'
import { eventually } from '../support/eventually.ts'
import { makeImage, MEBIBYTE } from '../support/image.ts'
import { scratchOfTest } from '../support/temporary-directory.ts'
import { homeAt } from './etcd-rig.ts'

/** Since TLS 1.3 a server says it after the handshake, and the connection may be gone before that is read. */
const NO_CERTIFICATE = /certificate|hang up|ECONNRESET|EPIPE/iu
const ADMINISTRATOR = ['--user', 'root:root']

/** A user who may use the keys under /test/ and nothing else. */
async function requireUsers(etcd: EtcdCluster, password: string): Promise<void> {
  await etcd.checked(['user', 'add', 'root:root'])
  await etcd.checked(['user', 'grant-role', 'root', 'root'])
  await etcd.checked(['user', 'add', `interlockd:${password}`])
  await etcd.checked(['role', 'add', 'records'])
  await etcd.checked(['role', 'grant-permission', 'records', '--prefix=true', 'readwrite', '/test/'])
  await etcd.checked(['user', 'grant-role', 'interlockd', 'records'])
  await etcd.checked(['auth', 'enable'])
}

test('a daemon with a client certificate and a password opens and closes; without them nobody gets in', async () => {
  const scratch = scratchOfTest()
  const { ca, server, client } = await makeCertificates(scratch)
  const etcd = await startEtcd(scratch, { tls: { ca, ...server } })
  await requireUsers(etcd, 'first')
  const secrets = scratch.directory('secrets')
  const [userFile, passwordFile] = [join(secrets, 'user'), join(secrets, 'password')]
  writeFileSync(userFile, 'interlockd\n')
  writeFileSync(passwordFile, 'first\n')
  const path = makeImage(scratch, MEBIBYTE)
  const ownershipSettings = [
    `endpoints = ${JSON.stringify(etcd.endpoints)}`,
    'prefix = "/test/"',
    `ca_file = "${ca}"`,
    `certificate_file = "${client.certificate}"`,
    `key_file = "${client.key}"`,
    `user_file = "${userFile}"`,
    `password_file = "${passwordFile}"`,
  ]
  const exports = [{ name: 'vda', path }]
  const daemon = await startDaemon(scratch, {
    exports,
    engine: 'file',
    tcp: false,
    ownership: 'etcd',
    ownershipSettings,
  })
  expect(await daemon.status('vda')).toMatchObject({ state: 'open', generation: 1 })
  expect((await daemon.close('vda')).receipt.generation).toBe(1)
  const tls = { caFile: ca, certificateFile: client.certificate, keyFile: client.key, timeoutMs: 15_000 }
  const user = { user: 'interlockd', passwordFile }
  expect(await homeAt('/test/vda', etcd.endpoints, { ...tls, ...user }).readNewest()).toMatchObject({
    record: { state: 'closed' },
  })
  const refused = async (settings: Parameters<typeof homeAt>[2], code: string, words: RegExp): Promise<void> => {
    await expect(homeAt('/test/vda', etcd.endpoints, settings).readNewest()).rejects.toMatchObject({
      code,
      message: expect.stringMatching(words) as string,
    })
  }
  // Which is tried again for as long.
  const unreachable = { ...tls, ...user, timeoutMs: 4_000 }
  await refused({ ...unreachable, certificateFile: null, keyFile: null }, 'record-unreachable', NO_CERTIFICATE)
  await refused({ ...unreachable, caFile: null }, 'record-unreachable', /certificate/iu)
  await refused({ ...tls, ...user, keyFile: join(secrets, 'none') }, 'record-io', /key_file .*ENOENT/u)
  writeFileSync(passwordFile, 'wrong')
  await refused({ ...tls, ...user }, 'record-io', /authentication failed/u)
  const elsewhere = homeAt('/elsewhere/vda', etcd.endpoints, { ...tls, ...user })
  writeFileSync(passwordFile, 'first')
  await expect(elsewhere.readNewest()).rejects.toMatchObject({ code: 'record-io', message: /permission denied/u })
})

test('a token that is not valid any more is replaced, with the password that the file has now', async () => {
  const scratch = scratchOfTest()
  const etcd = await startEtcd(scratch)
  await requireUsers(etcd, 'first')
  const passwordFile = join(scratch.directory('secrets'), 'password')
  writeFileSync(passwordFile, 'first')
  const home = homeAt('/test/vda', etcd.endpoints, { user: 'interlockd', passwordFile })
  const seen: string[] = []
  home.watch((newest) => seen.push(newest.kind))
  expect((await home.compareAndSwap(0, draftOf())).won).toBe(true)
  const changed = await etcd.ctl(['user', 'passwd', 'interlockd', '--interactive=false'], ADMINISTRATOR, 'second\n')
  expect(changed.status).toBe(0)
  writeFileSync(passwordFile, 'second')
  // Restarted, the member knows none of the tokens that it gave out.
  const [member] = etcd.members
  await member?.stop()
  member?.start()
  await etcd.ready(ADMINISTRATOR)
  expect((await home.compareAndSwap(1, draftOf())).won).toBe(true)
  expect((await home.compareAndSwap(2, draftOf())).won).toBe(true)
  await eventually('the watch to go on', () => seen.filter((kind) => kind === 'record').length >= 3, {
    timeoutMs: 30_000,
  })
})

test('an endpoint of another cluster is refused, and nothing is written to it', async () => {
  const scratch = scratchOfTest()
  const [own, foreign] = [await startEtcd(scratch), await startEtcd(scratch)]
  const home = homeAt('/test/vda', [...own.endpoints, ...foreign.endpoints], { timeoutMs: 2_000 })
  expect((await home.compareAndSwap(0, draftOf())).won).toBe(true)
  await own.members[0]?.kill()
  await expect(home.compareAndSwap(1, draftOf())).rejects.toMatchObject({
    code: 'record-io',
    message: expect.stringContaining('another cluster') as string,
  })
  expect((await foreign.checked(['get', '', '--from-key', '--keys-only'])).trim()).toBe('')
})
