/**
 * The kernel's interface for rings, as linux/io_uring.h defines it: numbers, and where each field lies. Everything that
 * depends on the kernel's layouts is in this folder, and every offset used is checked here, when the program loads,
 * against the layout that a C compiler gives the same structure.
 *
 * Entries are written and read as 32-bit words, so this is for little-endian machines.
 */

import koffi from 'koffi'
import { endianness } from 'node:os'
import { assert } from '../../foundation/assert.ts'

export const SYSTEM_CALL = { io_uring_setup: 425, io_uring_enter: 426, io_uring_register: 427 } as const

export const IORING_SETUP = {
  CQSIZE: 1 << 3,
  CLAMP: 1 << 4,
  SUBMIT_ALL: 1 << 7,
  COOP_TASKRUN: 1 << 8,
  SINGLE_ISSUER: 1 << 12,
  DEFER_TASKRUN: 1 << 13,
} as const

export const IORING_FEAT = {
  SINGLE_MMAP: 1 << 0,
  NODROP: 1 << 1,
  SUBMIT_STABLE: 1 << 2,
  FAST_POLL: 1 << 5,
  RSRC_TAGS: 1 << 10,
} as const

export const IORING_OFF_SQ_RING = 0
export const IORING_OFF_SQES = 0x1000_0000

export const IORING_ENTER_GETEVENTS = 1 << 0

export const IORING_SQ_CQ_OVERFLOW = 1 << 1

export const IORING_OP = {
  FSYNC: 3,
  READ_FIXED: 4,
  WRITE_FIXED: 5,
  POLL_ADD: 6,
  SENDMSG: 9,
  ASYNC_CANCEL: 14,
  FALLOCATE: 17,
  READ: 22,
  WRITE: 23,
  SEND: 26,
  RECV: 27,
} as const

export const IOSQE_FIXED_FILE = 1 << 0

export const IORING_CQE_F_MORE = 1 << 1

export const IORING_FSYNC_DATASYNC = 1 << 0
export const IORING_POLL_ADD_MULTI = 1 << 0
export const RWF_DSYNC = 0x2
export const MSG_WAITALL = 0x100
export const MSG_NOSIGNAL = 0x4000
export const POLLIN = 0x1

export const IORING_REGISTER = {
  PROBE: 8,
  FILES2: 13,
  FILES_UPDATE2: 14,
  BUFFERS2: 15,
  BUFFERS_UPDATE: 16,
} as const

export const IO_URING_OP_SUPPORTED = 1 << 0

/** struct io_uring_params; offsets in bytes. */
export const PARAMS = {
  BYTES: 120,
  sq_entries: 0,
  cq_entries: 4,
  flags: 8,
  features: 20,
  sq_head: 40,
  sq_tail: 44,
  sq_mask: 48,
  sq_flags: 56,
  sq_array: 64,
  cq_head: 80,
  cq_tail: 84,
  cq_mask: 88,
  cq_cqes: 100,
} as const

/** struct io_uring_sqe; offsets in 32-bit words. 64-bit fields take two, the lower first. */
export const SQE = {
  WORDS: 16,
  /** opcode, flags and ioprio: 8, 8 and 16 bits. */
  first: 0,
  fd: 1,
  off: 2,
  addr: 4,
  len: 6,
  op_flags: 7,
  user_data: 8,
  buf_index: 10,
} as const

/** struct io_uring_cqe; offsets in 32-bit words. */
export const CQE = { WORDS: 4, user_data: 0, res: 2, flags: 3 } as const

/** struct io_uring_probe and its array of struct io_uring_probe_op; bytes. */
export const PROBE = { HEADER_BYTES: 16, OP_BYTES: 8, op_flags: 2, OPS_MAX: 256 } as const

/** struct io_uring_rsrc_register, struct io_uring_rsrc_update2; bytes. */
export const RSRC_REGISTER = { BYTES: 32, nr: 0, data: 16, tags: 24 } as const
export const RSRC_UPDATE2 = { BYTES: 32, offset: 0, data: 8, tags: 16, nr: 24 } as const

/** struct iovec and struct msghdr; bytes. */
export const IOVEC = { BYTES: 16, base: 0, len: 8 } as const
export const MSGHDR = { BYTES: 56, iov: 16, iovlen: 24 } as const

const layout = (fields: Record<string, string>): ReturnType<typeof koffi.struct> => koffi.struct(fields)

const ring = { head: 'uint32', tail: 'uint32', mask: 'uint32', entries: 'uint32' }
const sqOffsets = layout({
  ...ring,
  flags: 'uint32',
  dropped: 'uint32',
  array: 'uint32',
  resv: 'uint32',
  user: 'uint64',
})
const cqOffsets = layout({
  ...ring,
  overflow: 'uint32',
  cqes: 'uint32',
  flags: 'uint32',
  resv: 'uint32',
  user: 'uint64',
})
const params = koffi.struct({
  sq_entries: 'uint32',
  cq_entries: 'uint32',
  flags: 'uint32',
  sq_thread_cpu: 'uint32',
  sq_thread_idle: 'uint32',
  features: 'uint32',
  wq_fd: 'uint32',
  resv: koffi.array('uint32', 3),
  sq: sqOffsets,
  cq: cqOffsets,
})
const sqe = layout({
  opcode: 'uint8',
  flags: 'uint8',
  ioprio: 'uint16',
  fd: 'int32',
  off: 'uint64',
  addr: 'uint64',
  len: 'uint32',
  op_flags: 'uint32',
  user_data: 'uint64',
  buf_index: 'uint16',
  personality: 'uint16',
  file_index: 'uint32',
  addr3: 'uint64',
  pad: 'uint64',
})
const cqe = layout({ user_data: 'uint64', res: 'int32', flags: 'uint32' })
const probeOp = layout({ op: 'uint8', resv: 'uint8', flags: 'uint16', resv2: 'uint32' })
const rsrcRegister = layout({ nr: 'uint32', flags: 'uint32', resv2: 'uint64', data: 'uint64', tags: 'uint64' })
const rsrcUpdate2 = layout({
  offset: 'uint32',
  resv: 'uint32',
  data: 'uint64',
  tags: 'uint64',
  nr: 'uint32',
  resv2: 'uint32',
})
const iovec = layout({ base: 'uintptr_t', len: 'size_t' })
const msghdr = layout({
  name: 'uintptr_t',
  namelen: 'uint32',
  iov: 'uintptr_t',
  iovlen: 'size_t',
  control: 'uintptr_t',
  controllen: 'size_t',
  flags: 'int',
})

function assertLayout(
  name: string,
  structure: ReturnType<typeof koffi.struct>,
  lengthBytes: number,
  offsets: Readonly<Record<string, number>>,
): void {
  assert(koffi.sizeof(structure) === lengthBytes, `struct ${name} has ${lengthBytes} bytes`)
  for (const [field, offset] of Object.entries(offsets)) {
    assert(koffi.offsetof(structure, field) === offset, `${field} of struct ${name} is at ${offset}`)
  }
}

assert(endianness() === 'LE', 'entries are written as little-endian words')
assertLayout('io_uring_params', params, PARAMS.BYTES, {
  sq_entries: PARAMS.sq_entries,
  cq_entries: PARAMS.cq_entries,
  flags: PARAMS.flags,
  features: PARAMS.features,
  sq: PARAMS.sq_head,
  cq: PARAMS.cq_head,
})
assertLayout('io_sqring_offsets', sqOffsets, 40, {
  tail: PARAMS.sq_tail - PARAMS.sq_head,
  mask: PARAMS.sq_mask - PARAMS.sq_head,
  flags: PARAMS.sq_flags - PARAMS.sq_head,
  array: PARAMS.sq_array - PARAMS.sq_head,
})
assertLayout('io_cqring_offsets', cqOffsets, 40, {
  tail: PARAMS.cq_tail - PARAMS.cq_head,
  mask: PARAMS.cq_mask - PARAMS.cq_head,
  cqes: PARAMS.cq_cqes - PARAMS.cq_head,
})
assertLayout('io_uring_sqe', sqe, SQE.WORDS * 4, {
  opcode: SQE.first * 4,
  flags: SQE.first * 4 + 1,
  fd: SQE.fd * 4,
  off: SQE.off * 4,
  addr: SQE.addr * 4,
  len: SQE.len * 4,
  op_flags: SQE.op_flags * 4,
  user_data: SQE.user_data * 4,
  buf_index: SQE.buf_index * 4,
})
assertLayout('io_uring_cqe', cqe, CQE.WORDS * 4, { user_data: 0, res: CQE.res * 4, flags: CQE.flags * 4 })
assertLayout('io_uring_probe_op', probeOp, PROBE.OP_BYTES, { flags: PROBE.op_flags })
assertLayout('io_uring_rsrc_register', rsrcRegister, RSRC_REGISTER.BYTES, {
  nr: RSRC_REGISTER.nr,
  data: RSRC_REGISTER.data,
  tags: RSRC_REGISTER.tags,
})
assertLayout('io_uring_rsrc_update2', rsrcUpdate2, RSRC_UPDATE2.BYTES, {
  offset: RSRC_UPDATE2.offset,
  data: RSRC_UPDATE2.data,
  tags: RSRC_UPDATE2.tags,
  nr: RSRC_UPDATE2.nr,
})
assertLayout('iovec', iovec, IOVEC.BYTES, { base: IOVEC.base, len: IOVEC.len })
assertLayout('msghdr', msghdr, MSGHDR.BYTES, { iov: MSGHDR.iov, iovlen: MSGHDR.iovlen })
