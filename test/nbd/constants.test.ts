import { describe, expect, it } from 'vitest'
import * as constants from '../../src/nbd/constants.ts'

describe('names of the NBD specification', () => {
  it('has the values that the specification gives', () => {
    expect(Buffer.from(constants.NBDMAGIC.toString(16), 'hex').toString()).toBe('NBDMAGIC')
    expect(Buffer.from(constants.IHAVEOPT.toString(16), 'hex').toString()).toBe('IHAVEOPT')
    expect(constants.NBD_REP_MAGIC).toBe(0x0003e889045565a9n)
    expect(constants.NBD_FLAG_SEND_FAST_ZERO).toBe(1 << 11)
    expect(constants.NBD_FLAG_CAN_MULTI_CONN).toBe(1 << 8)
    expect(constants.NBD_REP_ERR_EXT_HEADER_REQD).toBe(2 ** 31 + 10)
    expect(constants.NBD_PAYLOAD_BYTES_MAX).toBe(32 * 1024 * 1024)
  })

  it('derives printable names', () => {
    expect(constants.commandName(1)).toBe('WRITE')
    expect(constants.commandName(6)).toBe('WRITE_ZEROES')
    expect(constants.optionName(7)).toBe('GO')
    expect(constants.replyTypeName(2 ** 31 + 7)).toBe('ERR_SHUTDOWN')
    expect(constants.errorName(28)).toBe('ENOSPC')
    expect(constants.errorName(0)).toBe('SUCCESS')
  })

  it('prints what has no name in hexadecimal, and says what it is', () => {
    expect(constants.commandName(99)).toBe('command 0x63')
    expect(constants.optionName(0xffffffff)).toBe('option 0xffffffff')
    expect(constants.replyTypeName(77)).toBe('reply type 0x4d')
    expect(constants.errorName(4)).toBe('error 0x4')
  })

  it('prints flags one by one', () => {
    expect(constants.commandFlagNames(0)).toBe('')
    expect(constants.commandFlagNames(0x13)).toBe('FUA|NO_HOLE|FAST_ZERO')
    expect(constants.commandFlagNames(0x8001)).toBe('FUA|0x8000')
    expect(constants.transmissionFlagNames(0x103)).toBe('HAS_FLAGS|READ_ONLY|CAN_MULTI_CONN')
  })
})
