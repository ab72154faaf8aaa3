/**
 * What an operator is told when an image cannot be opened: the path, what failed, and what could be done. It only
 * words; the facts come from the measurement.
 */

import { unreachable } from '../foundation/assert.ts'
import { Refusal } from '../foundation/refusal.ts'
import type { ImageFault } from '../blocking/image-measurement.ts'
import { ERRNO, errnoName } from '../posix/errno.ts'

/** The refusal for a measurement that stopped. `path` is as configured; the real path is added where it differs. */
export function faultRefusal(path: string, write: boolean, fault: ImageFault): Refusal {
  const image = fault.realPath === path ? path : `${path} (${fault.realPath})`
  switch (fault.step) {
    case 'resolve':
      return resolveRefusal(image, fault)
    case 'kind':
      return new Refusal('image-kind', `${image} is ${fault.what}, neither a regular file nor a block device`)
    case 'open':
      return openRefusal(image, write, fault)
    case 'direct':
      return new Refusal(
        'image-no-direct',
        `${image} takes no direct I/O (${fault.what}${cause(fault)}); move it to a file system that does, or export it` +
          ' with cache = "buffered", which cannot be migrated safely',
      )
    case 'measure':
      return new Refusal('image-io', `${image} was opened but could not be read (${fault.what}${cause(fault)})`)
    case 'changed':
      return new Refusal('image-changed', `${image} was replaced by another file while it was opened`)
    default:
      return unreachable(fault.step)
  }
}

function resolveRefusal(image: string, fault: ImageFault): Refusal {
  switch (fault.errno) {
    case ERRNO.ENOENT:
    case ERRNO.ENOTDIR:
      return new Refusal('image-missing', `${image} does not exist`)
    case ERRNO.ELOOP:
    case ERRNO.ENAMETOOLONG:
    case ERRNO.EINVAL:
      return new Refusal('image-missing', `${image} cannot be resolved: ${errnoName(fault.errno)}`)
    case ERRNO.EACCES:
    case ERRNO.EPERM:
      return new Refusal('image-permission', `${image} cannot be reached: ${errnoName(fault.errno)} on its path`)
    default:
      return new Refusal('image-io', `${image} cannot be looked up: ${errnoName(fault.errno)}`)
  }
}

function openRefusal(image: string, write: boolean, fault: ImageFault): Refusal {
  const purpose = write ? 'reading and writing' : 'reading'
  switch (fault.errno) {
    case ERRNO.ENOENT:
      return new Refusal('image-missing', `${image} was removed while it was opened`)
    case ERRNO.ELOOP:
      return new Refusal('image-changed', `${image} was replaced by a symbolic link while it was opened`)
    case ERRNO.EROFS:
      return new Refusal('image-permission', `${image} lies on a read-only file system (${fault.what})`)
    case ERRNO.EACCES:
    case ERRNO.EPERM:
      return new Refusal('image-permission', permissionDetail(image, purpose, write, fault))
    case ERRNO.EBUSY:
      return new Refusal(
        'image-in-use',
        `${image} is in use: mounted, or part of another device, or opened exclusively`,
      )
    case ERRNO.ETXTBSY:
      return new Refusal('image-in-use', `${image} is in use as a swap file or a running program`)
    default:
      return new Refusal('image-io', `${image} cannot be opened for ${purpose} (${fault.what}${cause(fault)})`)
  }
}

function permissionDetail(image: string, purpose: string, write: boolean, fault: ImageFault): string {
  const reasons = [`the daemon's user may not (${errnoName(fault.errno)})`]
  if (write && fault.what === 'block device') reasons.push('or the device is read-only')
  if (write) reasons.push('or it is marked immutable')
  return `${image} cannot be opened for ${purpose}: ${reasons.join(', ')}`
}

function cause(fault: ImageFault): string {
  return fault.errno === 0 ? '' : `, ${errnoName(fault.errno)}`
}
