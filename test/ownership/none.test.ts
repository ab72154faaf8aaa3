import { expect, test } from 'vitest'
import type { Receipt } from '../../src/interlock/receipt.ts'
import { sameImage, sequenceOf } from '../../src/ownership/home.ts'
import type { ImageIdentity, RecordDraft, RecordHolder } from '../../src/ownership/home.ts'
import { UnsharedHome } from '../../src/ownership/none.ts'

const HOLDER: RecordHolder = { host: 'h', boot: 'b', instance: 'i', openToken: 't', name: 'n' }
const FILE: ImageIdentity = { realPath: '/srv/vda.raw', kind: 'file', device: '8:1', inode: 12, wwid: null, links: 1 }
const OPENING: RecordDraft = {
  imageId: 'vda',
  image: FILE,
  generation: 1,
  state: 'opening',
  holder: HOLDER,
  closeReason: null,
  receipt: null,
  draining: [],
  intent: null,
  cleared: null,
}
const HANDED_OVER: RecordDraft = { ...OPENING, state: 'closed', closeReason: 'handover' }

function receiptWith(nonce: string): Receipt {
  return {
    version: 1,
    export: 'vda',
    image: { path: FILE.realPath, size: 512, device: FILE.device, inode: FILE.inode },
    generation: 1,
    holder: { host: 'h', boot: 'b', instance: 'i' },
    state: 'closed',
    closedAt: '2026-01-01T00:00:00.000Z',
    durability: 'sync',
    drained: { requests: 0, writes: 0, bytes: 0 },
    aborted: [],
    indeterminate: [],
    reason: 'handover',
    nonce,
    clearedBy: 'drain',
    elapsedMs: { drain: 0, sync: 0, record: 0, total: 0 },
  }
}

test('a swap wins only against the sequence that it has seen', async () => {
  const home = new UnsharedHome()
  const absent = await home.readNewest()
  expect(absent).toEqual({ kind: 'absent' })
  const first = await home.compareAndSwap(sequenceOf(absent), OPENING)
  expect(first).toEqual({ won: true, record: { ...OPENING, version: 1, sequence: 1 } })
  const newest = await home.readNewest()
  expect(await home.compareAndSwap(0, { ...OPENING, generation: 9 })).toEqual({ won: false, newest, superseded: null })
  expect(await home.compareAndSwap(2, { ...OPENING, generation: 9 })).toEqual({ won: false, newest, superseded: null })
  expect(await home.compareAndSwap(1, { ...OPENING, state: 'open' })).toMatchObject({
    won: true,
    record: { sequence: 2 },
  })
  expect(sequenceOf(await home.readNewest())).toBe(2)
  expect(home.shared).toBe(false)
})

test('after a handover only a receipt with the nonce of this standby opens', async () => {
  const home = new UnsharedHome()
  expect(() => home.checkReceipt(null)).not.toThrow()
  expect(() => home.checkReceipt(receiptWith('x'))).toThrow('does not carry the nonce')
  await home.compareAndSwap(0, HANDED_OVER)
  expect(home.receiptRequired).toBe(true)
  expect(() => home.checkReceipt(null)).toThrow('handed over')
  const nonce = home.giveNonce()
  expect(home.giveNonce()).toBe(nonce)
  expect(() => home.checkReceipt(receiptWith('x'))).toThrow('does not carry the nonce')
  expect(() => home.checkReceipt(receiptWith(nonce))).not.toThrow()
})

test('a nonce is used up by the opening it was given for', async () => {
  const home = new UnsharedHome()
  const nonce = home.giveNonce()
  await home.compareAndSwap(0, OPENING)
  await home.compareAndSwap(1, HANDED_OVER)
  expect(() => home.checkReceipt(receiptWith(nonce))).toThrow('does not carry the nonce')
  expect(home.giveNonce()).not.toBe(nonce)
})

test('a shutdown is no handover', async () => {
  const home = new UnsharedHome()
  await home.compareAndSwap(0, { ...HANDED_OVER, closeReason: 'shutdown' })
  expect(home.receiptRequired).toBe(false)
  expect(() => home.checkReceipt(null)).not.toThrow()
})

test('an image is recognised by inode, by what the hardware says, or else by path', () => {
  const moved = { ...FILE, realPath: '/mnt/vda.raw', device: '0:45' }
  expect(sameImage(FILE, moved)).toBe(true)
  expect(sameImage(FILE, { ...FILE, inode: 13 })).toBe(false)
  const disk: ImageIdentity = {
    realPath: '/dev/sdb',
    kind: 'block',
    device: '8:16',
    inode: 99,
    wwid: 'naa.5000c5',
    links: 1,
  }
  expect(sameImage(disk, { ...disk, realPath: '/dev/sdc', device: '8:32', inode: 7 })).toBe(true)
  expect(sameImage(disk, { ...disk, wwid: 'naa.other' })).toBe(false)
  expect(sameImage(disk, { ...disk, wwid: null })).toBe(false)
  const loop = { ...disk, wwid: null }
  expect(sameImage(loop, { ...loop, inode: 7 })).toBe(true)
  expect(sameImage(loop, { ...loop, realPath: '/dev/loop9' })).toBe(false)
  expect(sameImage(loop, { ...loop, kind: 'file' })).toBe(false)
})
