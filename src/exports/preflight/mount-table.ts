/**
 * The mount table of this process, from the text of /proc/self/mountinfo. Pure: it looks at no path, so it can say which
 * file system a path is on even when that file system does not answer.
 */

export interface Mount {
  /** 'major:minor'; 0 as the major is a file system without a device of its own. */
  readonly device: string
  /** Which directory of the file system is mounted. */
  readonly root: string
  readonly mountPoint: string
  readonly type: string
  readonly source: string
  /** Those of the mount first, then those of the file system. */
  readonly options: readonly string[]
}

/** Lines that do not look like mounts are left out. */
export function parseMountTable(text: string): readonly Mount[] {
  return text.split('\n').flatMap((line) => {
    const mount = parseLine(line)
    return mount === null ? [] : [mount]
  })
}

function parseLine(line: string): Mount | null {
  const [before = '', after] = line.split(' - ', 2)
  const [, , device, root, mountPoint, mountOptions] = before.split(' ')
  const [type, source, superOptions = ''] = (after ?? '').split(' ')
  if (device === undefined || root === undefined || mountPoint === undefined || mountOptions === undefined) return null
  if (type === undefined || type === '' || source === undefined) return null
  return {
    device,
    root: unescaped(root),
    mountPoint: unescaped(mountPoint),
    type,
    source: unescaped(source),
    options: [...mountOptions.split(','), ...superOptions.split(',')].filter((option) => option !== '').map(unescaped),
  }
}

/** Spaces, tabs, line ends and backslashes come as three octal digits, of bytes. */
function unescaped(text: string): string {
  if (!text.includes('\\')) return text
  return text.replace(/\\([0-7]{3})/gu, (_whole, digits: string) => String.fromCharCode(Number.parseInt(digits, 8)))
}

/** The mount that a path without symbolic links is on: the deepest one, and of several on one place the last. */
export function mountOf(mounts: readonly Mount[], path: string): Mount | null {
  let best: Mount | null = null
  for (const mount of mounts) {
    if (!isWithin(mount.mountPoint, path)) continue
    if (best === null || mount.mountPoint.length >= best.mountPoint.length) best = mount
  }
  return best
}

/** Where a device is mounted. */
export function mountPointsOf(mounts: readonly Mount[], device: string): readonly string[] {
  return mounts.filter((mount) => mount.device === device).map((mount) => mount.mountPoint)
}

/** The value of `name=value`; '' for an option without one; null where it is not there. */
export function mountOption(options: readonly string[], name: string): string | null {
  for (const option of options) {
    if (option === name) return ''
    if (option.startsWith(`${name}=`)) return option.slice(name.length + 1)
  }
  return null
}

function isWithin(folder: string, path: string): boolean {
  return folder === '/' || path === folder || path.startsWith(`${folder}/`)
}
