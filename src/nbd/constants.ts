/**
 * The names and values of the NBD specification, each once, in its order. Printable names are derived from them, so
 * that no log or status ever shows a bare number. What is listed here is not thereby served: see request-check.ts and
 * negotiation.ts for that.
 *
 * Source: the protocol document of the NBD project, https://github.com/NetworkBlockDevice/nbd/blob/master/doc/proto.md
 */

/** Eight bytes each; 'NBDMAGIC' and 'IHAVEOPT'. */
export const NBDMAGIC = 0x4e42444d41474943n
export const IHAVEOPT = 0x49484156454f5054n
export const NBD_REP_MAGIC = 0x3e889045565a9n
export const NBD_REQUEST_MAGIC = 0x25609513
export const NBD_SIMPLE_REPLY_MAGIC = 0x67446698

// Handshake flags, 16 bits, server to client.
export const NBD_FLAG_FIXED_NEWSTYLE = 0x1
export const NBD_FLAG_NO_ZEROES = 0x2

// Client flags, 32 bits, client to server.
export const NBD_FLAG_C_FIXED_NEWSTYLE = 0x1
export const NBD_FLAG_C_NO_ZEROES = 0x2

// Transmission flags, 16 bits.
export const NBD_FLAG_HAS_FLAGS = 0x1
export const NBD_FLAG_READ_ONLY = 0x2
export const NBD_FLAG_SEND_FLUSH = 0x4
export const NBD_FLAG_SEND_FUA = 0x8
export const NBD_FLAG_ROTATIONAL = 0x10
export const NBD_FLAG_SEND_TRIM = 0x20
export const NBD_FLAG_SEND_WRITE_ZEROES = 0x40
export const NBD_FLAG_SEND_DF = 0x80
export const NBD_FLAG_CAN_MULTI_CONN = 0x100
export const NBD_FLAG_SEND_RESIZE = 0x200
export const NBD_FLAG_SEND_CACHE = 0x400
export const NBD_FLAG_SEND_FAST_ZERO = 0x800
export const NBD_FLAG_BLOCK_STATUS_PAYLOAD = 0x1000

// Options of the haggling phase.
export const NBD_OPT_EXPORT_NAME = 0x1
export const NBD_OPT_ABORT = 0x2
export const NBD_OPT_LIST = 0x3
export const NBD_OPT_PEEK_EXPORT = 0x4
export const NBD_OPT_STARTTLS = 0x5
export const NBD_OPT_INFO = 0x6
export const NBD_OPT_GO = 0x7
export const NBD_OPT_STRUCTURED_REPLY = 0x8
export const NBD_OPT_LIST_META_CONTEXT = 0x9
export const NBD_OPT_SET_META_CONTEXT = 0xa
export const NBD_OPT_EXTENDED_HEADERS = 0xb

// Types of option replies; errors have the highest bit set.
export const NBD_REP_ACK = 0x1
export const NBD_REP_SERVER = 0x2
export const NBD_REP_INFO = 0x3
export const NBD_REP_META_CONTEXT = 0x4
export const NBD_REP_ERR_UNSUP = 0x80000001
export const NBD_REP_ERR_POLICY = 0x80000002
export const NBD_REP_ERR_INVALID = 0x80000003
export const NBD_REP_ERR_PLATFORM = 0x80000004
export const NBD_REP_ERR_TLS_REQD = 0x80000005
export const NBD_REP_ERR_UNKNOWN = 0x80000006
export const NBD_REP_ERR_SHUTDOWN = 0x80000007
export const NBD_REP_ERR_BLOCK_SIZE_REQD = 0x80000008
export const NBD_REP_ERR_TOO_BIG = 0x80000009
export const NBD_REP_ERR_EXT_HEADER_REQD = 0x8000000a

// Types of information in NBD_REP_INFO.
export const NBD_INFO_EXPORT = 0x0
export const NBD_INFO_NAME = 0x1
export const NBD_INFO_DESCRIPTION = 0x2
export const NBD_INFO_BLOCK_SIZE = 0x3

// Command flags, 16 bits.
export const NBD_CMD_FLAG_FUA = 0x1
export const NBD_CMD_FLAG_NO_HOLE = 0x2
export const NBD_CMD_FLAG_DF = 0x4
export const NBD_CMD_FLAG_REQ_ONE = 0x8
export const NBD_CMD_FLAG_FAST_ZERO = 0x10
export const NBD_CMD_FLAG_PAYLOAD_LEN = 0x20

// Commands.
export const NBD_CMD_READ = 0x0
export const NBD_CMD_WRITE = 0x1
export const NBD_CMD_DISC = 0x2
export const NBD_CMD_FLUSH = 0x3
export const NBD_CMD_TRIM = 0x4
export const NBD_CMD_CACHE = 0x5
export const NBD_CMD_WRITE_ZEROES = 0x6
export const NBD_CMD_BLOCK_STATUS = 0x7
export const NBD_CMD_RESIZE = 0x8

// Errors of the transmission phase.
export const NBD_SUCCESS = 0x0
export const NBD_EPERM = 0x1
export const NBD_EIO = 0x5
export const NBD_ENOMEM = 0xc
export const NBD_EINVAL = 0x16
export const NBD_ENOSPC = 0x1c
export const NBD_EOVERFLOW = 0x4b
export const NBD_ENOTSUP = 0x5f
export const NBD_ESHUTDOWN = 0x6c

/** A string of the protocol (a name, a description, an error's text) is UTF-8 without NUL, of at most so many bytes. */
export const NBD_STRING_BYTES_MAX = 4096
/** What every server should take, and what this one takes: the largest payload of one request or reply. */
export const NBD_PAYLOAD_BYTES_MAX = 0x2000000

/** 'WRITE_ZEROES' for 0x6; 'command 0x63' for what the specification does not name. */
export function commandName(command: number): string {
  return commandNames.get(command) ?? `command 0x${command.toString(16)}`
}

/** 'GO' for 0x7; 'option 0x63' for what the specification does not name. */
export function optionName(option: number): string {
  return optionNames.get(option) ?? `option 0x${option.toString(16)}`
}

/** 'ERR_UNSUP' for 0x80000001. */
export function replyTypeName(type: number): string {
  return replyTypeNames.get(type) ?? `reply type 0x${type.toString(16)}`
}

/** 'ENOSPC' for 0x1c, 'SUCCESS' for 0. */
export function errorName(error: number): string {
  return errorNames.get(error) ?? `error 0x${error.toString(16)}`
}

/** 'FUA|NO_HOLE' for 0x3, '' for none. */
export function commandFlagNames(flags: number): string {
  return flagNames(flags, commandFlags)
}

/** 'HAS_FLAGS|READ_ONLY' for 0x3, '' for none. */
export function transmissionFlagNames(flags: number): string {
  return flagNames(flags, transmissionFlags)
}

/** Value to name, with what all names of the family begin with taken off. */
function namesOf(prefix: string, values: Readonly<Record<string, number>>): ReadonlyMap<number, string> {
  return new Map(Object.entries(values).map(([name, value]) => [value, name.slice(prefix.length)]))
}

function flagNames(flags: number, names: ReadonlyMap<number, string>): string {
  const found: string[] = []
  for (let bit = 1; bit <= flags; bit *= 2) {
    if ((flags & bit) !== 0) found.push(names.get(bit) ?? `0x${bit.toString(16)}`)
  }
  return found.join('|')
}

const commandNames = namesOf('NBD_CMD_', {
  NBD_CMD_READ,
  NBD_CMD_WRITE,
  NBD_CMD_DISC,
  NBD_CMD_FLUSH,
  NBD_CMD_TRIM,
  NBD_CMD_CACHE,
  NBD_CMD_WRITE_ZEROES,
  NBD_CMD_BLOCK_STATUS,
  NBD_CMD_RESIZE,
})

const optionNames = namesOf('NBD_OPT_', {
  NBD_OPT_EXPORT_NAME,
  NBD_OPT_ABORT,
  NBD_OPT_LIST,
  NBD_OPT_PEEK_EXPORT,
  NBD_OPT_STARTTLS,
  NBD_OPT_INFO,
  NBD_OPT_GO,
  NBD_OPT_STRUCTURED_REPLY,
  NBD_OPT_LIST_META_CONTEXT,
  NBD_OPT_SET_META_CONTEXT,
  NBD_OPT_EXTENDED_HEADERS,
})

const replyTypeNames = namesOf('NBD_REP_', {
  NBD_REP_ACK,
  NBD_REP_SERVER,
  NBD_REP_INFO,
  NBD_REP_META_CONTEXT,
  NBD_REP_ERR_UNSUP,
  NBD_REP_ERR_POLICY,
  NBD_REP_ERR_INVALID,
  NBD_REP_ERR_PLATFORM,
  NBD_REP_ERR_TLS_REQD,
  NBD_REP_ERR_UNKNOWN,
  NBD_REP_ERR_SHUTDOWN,
  NBD_REP_ERR_BLOCK_SIZE_REQD,
  NBD_REP_ERR_TOO_BIG,
  NBD_REP_ERR_EXT_HEADER_REQD,
})

const errorNames = namesOf('NBD_', {
  NBD_SUCCESS,
  NBD_EPERM,
  NBD_EIO,
  NBD_ENOMEM,
  NBD_EINVAL,
  NBD_ENOSPC,
  NBD_EOVERFLOW,
  NBD_ENOTSUP,
  NBD_ESHUTDOWN,
})

const commandFlags = namesOf('NBD_CMD_FLAG_', {
  NBD_CMD_FLAG_FUA,
  NBD_CMD_FLAG_NO_HOLE,
  NBD_CMD_FLAG_DF,
  NBD_CMD_FLAG_REQ_ONE,
  NBD_CMD_FLAG_FAST_ZERO,
  NBD_CMD_FLAG_PAYLOAD_LEN,
})

const transmissionFlags = namesOf('NBD_FLAG_', {
  NBD_FLAG_HAS_FLAGS,
  NBD_FLAG_READ_ONLY,
  NBD_FLAG_SEND_FLUSH,
  NBD_FLAG_SEND_FUA,
  NBD_FLAG_ROTATIONAL,
  NBD_FLAG_SEND_TRIM,
  NBD_FLAG_SEND_WRITE_ZEROES,
  NBD_FLAG_SEND_DF,
  NBD_FLAG_CAN_MULTI_CONN,
  NBD_FLAG_SEND_RESIZE,
  NBD_FLAG_SEND_CACHE,
  NBD_FLAG_SEND_FAST_ZERO,
  NBD_FLAG_BLOCK_STATUS_PAYLOAD,
})
