/**
 * The one place where Linux's errno becomes an error of the NBD protocol, which knows eight. Everything it does not
 * know is an I/O error. It says nothing about whether an error may be sent: NBD_ENOTSUP belongs only to a fast zero,
 * so whoever gets EOPNOTSUPP for anything else must do the work another way.
 */

import {
  NBD_EINVAL,
  NBD_EIO,
  NBD_ENOMEM,
  NBD_ENOSPC,
  NBD_ENOTSUP,
  NBD_EOVERFLOW,
  NBD_EPERM,
  NBD_ESHUTDOWN,
  NBD_SUCCESS,
} from './constants.ts'

const EPERM = 1
const EIO = 5
const ENOMEM = 12
const EINVAL = 22
const EFBIG = 27
const ENOSPC = 28
const EROFS = 30
const EOVERFLOW = 75
const EOPNOTSUPP = 95
const ESHUTDOWN = 108
const EDQUOT = 122

/** The NBD error for an errno of either sign; 0 for 0. */
export function nbdErrorOfErrno(errno: number): number {
  switch (Math.abs(errno)) {
    case 0:
      return NBD_SUCCESS
    case EPERM:
    case EROFS:
      return NBD_EPERM
    case EIO:
      return NBD_EIO
    case ENOMEM:
      return NBD_ENOMEM
    case EINVAL:
      return NBD_EINVAL
    case ENOSPC:
    case EFBIG:
    case EDQUOT:
      return NBD_ENOSPC
    case EOVERFLOW:
      return NBD_EOVERFLOW
    case EOPNOTSUPP:
      return NBD_ENOTSUP
    case ESHUTDOWN:
      return NBD_ESHUTDOWN
    default:
      return NBD_EIO
  }
}
