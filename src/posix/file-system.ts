/**
 * The names of file systems by the magic number that statfs answers. Only those that matter for a decision or are
 * common enough to be worth a name in a message; anything else prints as its number.
 */

const NAMES: ReadonlyMap<number, string> = new Map([
  [0xef53, 'ext4'],
  [0x58465342, 'xfs'],
  [0x9123683e, 'btrfs'],
  [0x2fc12fc1, 'zfs'],
  [0xf2f52010, 'f2fs'],
  [0xca451a4e, 'bcachefs'],
  [0x01021994, 'tmpfs'],
  [0x858458f6, 'ramfs'],
  [0x794c7630, 'overlay'],
  [0x65735546, 'fuse'],
  [0x6969, 'nfs'],
  [0xff534d42, 'cifs'],
  [0xfe534d42, 'smb2'],
  [0x01021997, '9p'],
  [0x00c36400, 'ceph'],
  [0x01161970, 'gfs2'],
  [0x7461636f, 'ocfs2'],
  [0x0bd00bd0, 'lustre'],
  [0x47504653, 'gpfs'],
  [0xaad7aaea, 'panfs'],
  [0x73717368, 'squashfs'],
  [0x4d44, 'vfat'],
  [0x2011bab0, 'exfat'],
  [0x7366746e, 'ntfs3'],
  [0x9fa0, 'proc'],
  [0x62656572, 'sysfs'],
])

/** 'ext4' for 0xef53 (which ext2 and ext3 share); '0x1234' for one without a name here. */
export function fileSystemName(magic: number | bigint): string {
  const number = Number(BigInt.asUintN(32, BigInt(magic)))
  return NAMES.get(number) ?? `0x${number.toString(16)}`
}
