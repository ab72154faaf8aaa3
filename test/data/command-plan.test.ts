import fc from 'fast-check'
import { describe, expect, test } from 'vitest'
import {
  alignDown,
  alignUp,
  bufferBytesFor,
  innerLength,
  innerOffset,
  isAligned,
  isWriteCommand,
  wideLength,
} from '../../src/data/command-plan.ts'
import {
  NBD_CMD_CACHE,
  NBD_CMD_FLUSH,
  NBD_CMD_READ,
  NBD_CMD_TRIM,
  NBD_CMD_WRITE,
  NBD_CMD_WRITE_ZEROES,
} from '../../src/nbd/constants.ts'

const alignments = fc.constantFrom(1, 512, 4096)
const offsets = fc.integer({ min: 0, max: Number.MAX_SAFE_INTEGER - 2 ** 33 })
const lengths = fc.integer({ min: 1, max: 0xffffffff })

describe('the plan of a command', () => {
  test('widens to whole blocks, by less than a block at each end', () => {
    fc.assert(
      fc.property(offsets, lengths, alignments, (offset, length, alignment) => {
        const start = alignDown(offset, alignment)
        const wide = wideLength(offset, length, alignment)
        expect(isAligned(start, wide, alignment)).toBe(true)
        expect(start).toBeLessThanOrEqual(offset)
        expect(offset - start).toBeLessThan(alignment)
        expect(start + wide).toBeGreaterThanOrEqual(offset + length)
        expect(start + wide - (offset + length)).toBeLessThan(alignment)
        expect(start + wide).toBe(alignUp(offset + length, alignment))
      }),
    )
  })

  test('finds the whole blocks inside, or none', () => {
    fc.assert(
      fc.property(offsets, lengths, alignments, (offset, length, alignment) => {
        const inner = innerLength(offset, length, alignment)
        if (inner === 0) {
          expect(alignUp(offset, alignment) + alignment).toBeGreaterThan(offset + length)
          return
        }
        const start = innerOffset(offset, alignment)
        expect(isAligned(start, inner, alignment)).toBe(true)
        expect(start).toBeGreaterThanOrEqual(offset)
        expect(start - offset).toBeLessThan(alignment)
        expect(start + inner).toBeLessThanOrEqual(offset + length)
        expect(offset + length - start - inner).toBeLessThan(alignment)
      }),
    )
  })

  test('reserves exactly what the disk fills, what the client sends, and a block to read the ends in', () => {
    fc.assert(
      fc.property(offsets, fc.integer({ min: 1, max: 2 ** 25 }), alignments, (offset, length, alignment) => {
        const wide = wideLength(offset, length, alignment)
        const whole = isAligned(offset, length, alignment)
        expect(bufferBytesFor(NBD_CMD_READ, offset, length, alignment)).toBe(wide)
        expect(bufferBytesFor(NBD_CMD_WRITE, offset, length, alignment)).toBe(whole ? length : wide + alignment)
        expect(bufferBytesFor(NBD_CMD_WRITE_ZEROES, offset, length, alignment)).toBe(whole ? 0 : alignment)
        for (const command of [NBD_CMD_TRIM, NBD_CMD_FLUSH, NBD_CMD_CACHE]) {
          expect(bufferBytesFor(command, offset, length, alignment)).toBe(0)
        }
      }),
    )
    expect(bufferBytesFor(NBD_CMD_WRITE, 3, 0, 512)).toBe(0)
  })

  test('knows what changes the image', () => {
    const writes = [NBD_CMD_WRITE, NBD_CMD_TRIM, NBD_CMD_WRITE_ZEROES]
    for (let command = 0; command < 256; command += 1) expect(isWriteCommand(command)).toBe(writes.includes(command))
  })
})
