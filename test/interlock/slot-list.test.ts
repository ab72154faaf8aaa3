import { describe, expect, it } from 'vitest'
import { SlotList } from '../../src/interlock/slot-list.ts'

describe('a slot list', () => {
  it('is filled, read and emptied, again and again, over the same memory', () => {
    const list = new SlotList(2)
    const memory = list.items
    for (const slots of [[7, 3], [5], []]) {
      for (const slot of slots) list.push(slot)
      expect(list.toArray()).toEqual(slots)
      expect(slots.map((_, index) => list.at(index))).toEqual(slots)
      list.empty()
      expect(list.count).toBe(0)
    }
    expect(list.items).toBe(memory)
  })

  it('asserts its capacity and its end', () => {
    const list = new SlotList(1)
    expect(() => list.at(0)).toThrow('beyond its end')
    list.push(4)
    expect(() => {
      list.push(5)
    }).toThrow('overflowed')
    list.empty()
    expect(() => list.at(0)).toThrow('beyond its end')
  })
})
