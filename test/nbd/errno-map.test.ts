import { constants } from 'node:os'
import { describe, expect, it } from 'vitest'
import { nbdErrorOfErrno } from '../../src/nbd/errno-map.ts'

const { EPERM, EROFS, EIO, ENOMEM, EINVAL, ENOSPC, EFBIG, EDQUOT, EOVERFLOW, EOPNOTSUPP, EACCES, EBADF } =
  constants.errno

describe('errno map', () => {
  it.each([
    ['EPERM', EPERM, 1],
    ['EROFS', EROFS, 1],
    ['EIO', EIO, 5],
    ['ENOMEM', ENOMEM, 12],
    ['EINVAL', EINVAL, 22],
    ['ENOSPC', ENOSPC, 28],
    ['EFBIG', EFBIG, 28],
    ['EDQUOT', EDQUOT, 28],
    ['EOVERFLOW', EOVERFLOW, 75],
    ['EOPNOTSUPP', EOPNOTSUPP, 95],
    ['ESHUTDOWN', 108, 108],
    ['EACCES', EACCES, 5],
    ['EBADF', EBADF, 5],
  ])('maps %s of either sign', (_name, errno, error) => {
    expect(nbdErrorOfErrno(errno)).toBe(error)
    expect(nbdErrorOfErrno(-errno)).toBe(error)
  })

  it('knows only success, and the eight errors of the protocol', () => {
    const allowed = new Set([1, 5, 12, 22, 28, 75, 95, 108])
    expect(nbdErrorOfErrno(0)).toBe(0)
    for (let errno = 1; errno < 4096; errno++) expect(allowed.has(nbdErrorOfErrno(-errno))).toBe(true)
  })
})
