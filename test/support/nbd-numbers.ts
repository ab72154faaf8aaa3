/**
 * Numbers of the NBD specification, for those who speak the protocol to our servers or in place of one. They are written
 * down here once more than in src/, so that a number which is wrong there is not wrong on both sides.
 */

export const OPTION_MAGIC = 0x49484156454f5054n
export const OPTION_REPLY_MAGIC = 0x3e889045565a9n
export const REQUEST_MAGIC = 0x25609513
export const SIMPLE_REPLY_MAGIC = 0x67446698

export const OPTION_GO = 7
export const REPLY_ACK = 1
export const REPLY_INFO = 3
export const REPLY_UNSUPPORTED = 0x80000001
