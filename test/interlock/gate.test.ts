import { describe, expect, it } from 'vitest'
import { Gate } from '../../src/interlock/gate.ts'
import type { GateSetting } from '../../src/interlock/gate.ts'
import { RequestKind, changesBytes, requestKind } from '../../src/interlock/request-kind.ts'
import * as nbd from '../../src/nbd/constants.ts'

const READS = [nbd.NBD_CMD_READ, nbd.NBD_CMD_CACHE, nbd.NBD_CMD_BLOCK_STATUS]
const WRITES = [nbd.NBD_CMD_WRITE, nbd.NBD_CMD_TRIM, nbd.NBD_CMD_WRITE_ZEROES]

describe('kinds of requests', () => {
  it('are those of the protocol', () => {
    expect(READS.map(requestKind)).toEqual(READS.map(() => RequestKind.READ))
    expect(WRITES.map(requestKind)).toEqual(WRITES.map(() => RequestKind.WRITE))
    expect(requestKind(nbd.NBD_CMD_FLUSH)).toBe(RequestKind.FLUSH)
    expect([nbd.NBD_CMD_DISC, nbd.NBD_CMD_RESIZE, 99].map(requestKind)).toEqual([
      RequestKind.NONE,
      RequestKind.NONE,
      RequestKind.NONE,
    ])
  })

  it('only writes change bytes', () => {
    const commands = Array.from({ length: 16 }, (_, command) => command)
    expect(commands.filter(changesBytes)).toEqual([...WRITES].sort((a, b) => a - b))
  })
})

describe('a gate', () => {
  it('decides reads and writes each by its own setting', () => {
    const gate = new Gate({ reads: 'admit', writes: 'park' })
    expect(READS.map((command) => gate.decide(command))).toEqual(['admit', 'admit', 'admit'])
    expect(WRITES.map((command) => gate.decide(command))).toEqual(['park', 'park', 'park'])
    gate.set('park', 'refuse')
    expect([gate.reads, gate.writes]).toEqual(['park', 'refuse'])
    expect(gate.decide(nbd.NBD_CMD_READ)).toBe('park')
    expect(gate.decide(nbd.NBD_CMD_TRIM)).toBe('refuse')
  })

  it('never lets a FLUSH overtake writes that are parked or refused', () => {
    const expected: [GateSetting, GateSetting, GateSetting][] = [
      ['admit', 'admit', 'admit'],
      ['admit', 'park', 'park'],
      ['admit', 'refuse', 'refuse'],
      ['park', 'admit', 'park'],
      ['park', 'park', 'park'],
      ['park', 'refuse', 'refuse'],
      ['refuse', 'admit', 'refuse'],
      ['refuse', 'park', 'refuse'],
      ['refuse', 'refuse', 'refuse'],
    ]
    for (const [reads, writes, flush] of expected) {
      expect(new Gate({ reads, writes }).decide(nbd.NBD_CMD_FLUSH), `reads ${reads}, writes ${writes}`).toBe(flush)
    }
  })

  it('is shut when it admits neither reads nor writes', () => {
    expect(new Gate({ reads: 'admit', writes: 'park' }).isShut).toBe(false)
    expect(new Gate({ reads: 'park', writes: 'admit' }).isShut).toBe(false)
    expect(new Gate({ reads: 'park', writes: 'refuse' }).isShut).toBe(true)
  })

  it('is no place for a DISC', () => {
    expect(() => new Gate({ reads: 'admit', writes: 'admit' }).decide(nbd.NBD_CMD_DISC)).toThrow('does not come')
  })
})
