/**
 * From recorded trees of /sys and /proc and recorded answers of ioctls to a verdict: what no kernel at hand has, and the
 * ways in which a machine can be silent about itself. Nothing of this machine is looked at.
 */

import fc from 'fast-check'
import { describe, expect, test } from 'vitest'
import { mountOf, parseMountTable } from '../../../src/exports/preflight/mount-table.ts'
import { blockDevice, lookAt, plainFile } from './recorded-machine.ts'
import type { Recording } from './recorded-machine.ts'

const IMAGE = '/srv/image.raw'

function onMount(device: string, type: string, source: string, options: string): Recording {
  return {
    mounts: [`36 35 ${device} / /srv rw,relatime shared:1 - ${type} ${source} ${options}`],
    stats: { [IMAGE]: plainFile(device) },
  }
}

/** A device as the image, with what its folder in /sys holds. */
function device(number: string, link: string, texts: Readonly<Record<string, string>>): Recording {
  const folder = `/sys/dev/block/${link}`.replace('/sys/dev/block/../..', '/sys')
  return {
    mounts: ['22 1 8:1 / / rw - ext4 /dev/sda1 rw'],
    stats: { '/dev/image': blockDevice(number) },
    links: { [`/sys/dev/block/${number}`]: link },
    texts: Object.fromEntries(
      Object.entries({ size: '131072\n', ro: '0\n', ...texts }).map(([name, text]) => [`${folder}/${name}`, text]),
    ),
  }
}

const codesOn = async (recording: Recording): Promise<readonly string[]> => (await lookAt(recording, IMAGE)).codes
const codesOf = async (recording: Recording): Promise<readonly string[]> =>
  (await lookAt(recording, '/dev/image')).codes

describe('file systems', () => {
  const NFS = 'rw,vers=4.2,rsize=1048576,proto=tcp,timeo=600,retrans=2,sec=sys'

  test.each([
    ['a hard NFS', 'nfs4', `${NFS},hard,local_lock=none`, ['nfs-server']],
    ['a soft NFS', 'nfs4', `${NFS},soft,local_lock=none`, ['nfs-server', 'nfs-soft']],
    ['an NFS with softerr', 'nfs4', `${NFS},softerr,local_lock=none`, ['nfs-server', 'nfs-soft']],
    ['softreval is not soft', 'nfs4', `${NFS},hard,softreval`, ['nfs-server']],
    ['an NFS 3 whose locks are local', 'nfs', 'rw,vers=3,hard,nolock,local_lock=all', ['nfs-server', 'local-locks']],
    ['flock alone stays local', 'nfs4', `${NFS},hard,local_lock=flock`, ['nfs-server']],
    ['SMB as it comes', 'cifs', 'rw,vers=3.1.1,cache=strict,soft', ['network-file-system', 'smb-soft']],
    ['a hard SMB', 'cifs', 'rw,vers=3.1.1,cache=strict,hard', ['network-file-system']],
    ['ceph', 'ceph', 'rw,name=admin,acl', ['cluster-file-system']],
    ['gfs2', 'gfs2', 'rw', ['cluster-file-system']],
    ['9p', '9p', 'rw,cache=loose', ['network-file-system']],
    ['zfs', 'zfs', 'rw,xattr', ['local-file-system', 'copy-on-write']],
    ['a program', 'fuse.sshfs', 'rw,user_id=0', ['fuse']],
    ['eCryptfs', 'ecryptfs', 'rw,ecryptfs_cipher=aes', ['stacked-file-system']],
    ['ramfs', 'ramfs', 'rw', ['volatile-memory']],
    ['one from the future', 'quantumfs', 'rw', ['unknown-file-system']],
    ['an overlay in a container', 'overlay', 'rw,lowerdir=l,upperdir=/var/u,workdir=w', ['overlay']],
    ['an overlay without an upper layer', 'overlay', 'ro,lowerdir=a:b', ['overlay', 'read-only']],
    ['a volatile overlay', 'overlay', 'rw,lowerdir=l,upperdir=/u,workdir=w,volatile', ['overlay-volatile']],
    ['f2fs without barriers', 'f2fs', 'rw,fsync_mode=nobarrier', ['local-file-system', 'no-barrier']],
    ['ext4 with barrier=0', 'ext4', 'rw,barrier=0', ['local-file-system', 'no-barrier']],
  ])('%s', async (_what, type, options, codes) => {
    expect(await codesOn(onMount('0:44', type, 'source', options))).toEqual(codes)
  })

  test.each([
    ['nfs4', 'rw,hard,local_lock=none', 'every host'],
    ['nfs', 'rw,hard,nolock', 'this host'],
    ['ocfs2', 'rw,localflocks', 'this host'],
    ['xfs', 'rw', 'this host'],
    ['fuse.x', 'rw', 'unknown'],
  ])('whether the locks of %s (%s) reach other hosts', async (type, options, reach) => {
    const { layers } = await lookAt(onMount('0:44', type, 'source', options), IMAGE)
    expect(layers[1]?.words).toContain(`locks reach ${reach}`)
  })

  test('no room for what is missing', async () => {
    const recording = onMount('0:44', 'nfs4', 'source', 'rw,hard')
    const stats = { [IMAGE]: { ...plainFile('0:44'), sizeBytes: 10_000, allocatedBytes: 4_096 } }
    const space = { type: 'nfs', freeBytes: 5_000, totalBytes: 1e9 }
    expect(await codesOn({ ...recording, stats, space })).toContain('space-short')
    expect(await codesOn({ ...recording, stats, space: { ...space, freeBytes: 6_000 } })).not.toContain('space-short')
  })

  test('no direct I/O is not safe; an error that says nothing about it is a condition', async () => {
    const recording = onMount('0:44', 'nfs4', 'source', 'rw,hard')
    const failing = (errno: number): Recording => ({ ...recording, direct: { works: false, alignmentBytes: 0, errno } })
    expect(await codesOn(failing(22))).toContain('no-direct')
    expect(await codesOn(failing(0))).toContain('no-direct')
    expect(await codesOn(failing(5))).toContain('direct-unproved')
  })
})

describe('block devices', () => {
  const SCSI = '../../devices/pci0000:00/ata1/host0/target0:0:0/0:0:0:0/block/sda'

  test('a plain disk has nothing against it', async () => {
    const texts = { 'queue/write_cache': 'write back\n', 'queue/fua': '1\n', 'device/vendor': 'ATA     \n' }
    const report = await lookAt(device('8:0', SCSI, { ...texts, 'device/model': 'ST4000\n' }), '/dev/image')
    expect([report.verdict, report.codes]).toEqual(['safe', []])
    expect(report.layers[0]?.words).toBe('/dev/sda, a disk (scsi, ATA ST4000)')
    expect(report.layers[0]?.facts['queue']).toMatchObject({ writeCache: 'write back', forceUnitAccess: true })
  })

  test('a disk whose flushes were switched off', async () => {
    const texts = { 'device/scsi_disk/0:0:0:0/cache_type': 'write back\n' }
    const off = { ...texts, 'queue/write_cache': 'write through\n' }
    expect(await codesOf(device('8:0', SCSI, off))).toEqual(['flush-disabled'])
    expect(await codesOf(device('8:0', SCSI, { ...texts, 'queue/write_cache': 'write back\n' }))).toEqual([])
  })

  test.each([
    ['iSCSI', '../../devices/platform/host3/session1/target3:0:0/3:0:0:0/block/sdb', {}, ['remote-device']],
    [
      'Fibre Channel',
      '../../devices/pci0000:00/0000:03:00.0/host5/rport-5:0-1/target5:0:0/5:0:0:2/block/sdc',
      {},
      ['remote-device'],
    ],
    ['NVMe', '../../devices/pci0000:00/nvme/nvme0/nvme0n1', { 'device/transport': 'pcie\n' }, []],
    [
      'NVMe over TCP',
      '../../devices/virtual/nvme-fabrics/ctl/nvme1/nvme1n1',
      { 'device/transport': 'tcp\n' },
      ['remote-device'],
    ],
    ['the disk of a virtual machine', '../../devices/pci0000:00/virtio1/block/vda', {}, ['virtual-disk']],
    ['the same behind SCSI', SCSI, { 'device/vendor': 'QEMU\n' }, ['virtual-disk']],
    ['RBD', '../../devices/rbd/0/block/rbd0', {}, ['remote-device']],
    ['DRBD', '../../devices/virtual/block/drbd1', {}, ['remote-device']],
    ['zram', '../../devices/virtual/block/zram0', {}, ['volatile-memory']],
    ['a RAM disk', '../../devices/virtual/block/ram0', {}, ['volatile-memory']],
    ['one from the future', '../../devices/virtual/block/quantum0', {}, ['unknown-device']],
    [
      'bcache that writes back',
      '../../devices/virtual/block/bcache0',
      { 'bcache/cache_mode': 'writethrough [writeback] none\n' },
      ['cache-writeback'],
    ],
    [
      'bcache that writes through',
      '../../devices/virtual/block/bcache0',
      { 'bcache/cache_mode': '[writethrough] writeback\n' },
      ['local-cache'],
    ],
    ['bcache that says nothing', '../../devices/virtual/block/bcache0', {}, ['cache-writeback']],
    ['a loop with nothing in it', '../../devices/virtual/block/loop0', {}, ['loop-backing-unknown']],
    ['an nbd that says nothing', '../../devices/virtual/block/nbd0', {}, ['remote-device', 'nbd-timeout-unknown']],
    [
      'an nbd with a timeout',
      '../../devices/virtual/block/nbd0',
      { pid: '1\n', 'queue/io_timeout': '7000\n' },
      ['remote-device', 'nbd-timeout'],
    ],
  ])('%s', async (_what, link, texts, codes) => {
    expect(await codesOf(device('250:0', link, texts))).toEqual(codes)
  })

  test('an nbd whose timeout is in debugfs, whatever the queue still says of an earlier one', async () => {
    const recording = device('43:0', '../../devices/virtual/block/nbd0', { pid: '1\n', 'queue/io_timeout': '7000\n' })
    const saying = (text: string): Recording => ({
      ...recording,
      texts: { ...recording.texts, '/sys/kernel/debug/nbd/nbd0/timeout': text },
    })
    expect(await codesOf(saying('0\n'))).toEqual(['remote-device'])
    expect(await codesOf(saying('1750\n'))).toEqual(['remote-device', 'nbd-timeout'])
  })

  test('an nbd over several connections has a timeout, whatever it was given', async () => {
    const over = (connections: Readonly<Record<string, string>>): Recording => {
      const queue = { pid: '1\n', 'queue/io_timeout': '30000\n', ...connections }
      const recording = device('43:0', '../../devices/virtual/block/nbd0', queue)
      return { ...recording, texts: { ...recording.texts, '/sys/kernel/debug/nbd/nbd0/timeout': '0\n' } }
    }
    expect(await codesOf(over({ 'mq/0/nr_tags': '128\n' }))).toEqual(['remote-device'])
    const two = { 'mq/0/nr_tags': '128\n', 'mq/1/nr_tags': '128\n' }
    expect(await codesOf(over(two))).toEqual(['remote-device', 'nbd-timeout'])
  })

  test('a name with a slash, which /sys writes with an exclamation mark', async () => {
    const { layers } = await lookAt(device('104:0', '../../devices/pci0/cciss0/block/cciss!c0d0', {}), '/dev/image')
    expect(layers[0]?.words).toContain('/dev/cciss/c0d0')
  })

  test('a device of which /sys knows nothing, and one that vanishes in between', async () => {
    expect(await codesOf({ ...device('8:0', SCSI, {}), links: {} })).toEqual(['unknown-device'])
    const report = await lookAt({ ...device('8:0', SCSI, {}), texts: {} }, '/dev/image')
    expect(report.layers[0]?.facts['sizeBytes']).toBe(null)
  })
})

describe('device mapper', () => {
  const LINK = '../../devices/virtual/block/dm-3'
  const mapper = (type: string, status = ''): Recording => ({
    ...device('253:3', LINK, { 'dm/name': 'volume\n', 'dm/uuid': 'LVM-x\n' }),
    mappers: { '253:3': [{ type, status }] },
  })

  test.each([
    ['linear', '', []],
    ['striped', '', []],
    ['crypt', '', []],
    ['raid', 'raid1 2 AA 1/1 idle 0', []],
    ['thin', '0 -', ['thin-pool']],
    ['snapshot', '16/1000 16', ['snapshot']],
    ['multipath', '2 0 0 0 1 1 A 0 1 0 8:0 A 0', ['multipath']],
    [
      'cache',
      '8 72/2048 128 0/512 0 0 0 0 0 0 0 1 writeback 2 migration_threshold 2048 smq 0 rw -',
      ['cache-writeback'],
    ],
    ['cache', '8 72/2048 128 0/512 0 0 0 0 0 0 0 2 metadata2 writethrough 2 migration_threshold 2048', ['local-cache']],
    ['cache', 'Fail', ['cache-writeback']],
    ['writecache', '0 100 50 0', ['cache-writeback']],
    ['flakey', '', ['unknown-target']],
    ['quantum', '', ['unknown-target']],
  ])('%s (%s)', async (type, status, codes) => {
    expect(await codesOf(mapper(type, status))).toEqual(codes)
  })

  test('without the right to ask, it is a condition', async () => {
    const report = await lookAt({ ...mapper('linear'), mappers: {} }, '/dev/image')
    expect(report.codes).toEqual(['unknown-target'])
    expect(report.layers[0]?.words).toContain('targets unknown (LVM)')
  })

  test('what is under it is walked, and a circle ends', async () => {
    const recording = mapper('linear')
    const below = '/sys/devices/virtual/block/dm-3/slaves'
    const slaves = (numbers: readonly string[]): Recording => ({
      ...recording,
      texts: {
        ...recording.texts,
        ...Object.fromEntries(numbers.map((each, at) => [`${below}/s${at}/dev`, `${each}\n`])),
      },
    })
    const two = await lookAt(slaves(['8:0', '8:16']), '/dev/image')
    expect(two.layers.map(({ depth, kind }) => [depth, kind])).toEqual([
      [0, 'device'],
      [1, 'unknown'],
      [1, 'unknown'],
    ])
    const circle = await lookAt(slaves(['253:3']), '/dev/image')
    expect(circle.layers).toHaveLength(1)
  })
})

describe('the mount table', () => {
  test('escapes, over-mounts, and the deepest mount', () => {
    const mounts = parseMountTable(
      [
        '1 0 8:1 / / rw - ext4 /dev/root rw',
        '2 1 0:30 / /srv/a\\040b\\134c rw,noatime master:1 propagate_from:2 - tmpfs none rw,size=1k',
        '3 1 8:2 / /srv rw - xfs /dev/sdb rw',
        '4 1 8:3 /sub /srv rw - ext4 /dev/sdc rw,barrier=0',
        'nonsense',
      ].join('\n'),
    )
    expect(mounts).toHaveLength(4)
    expect(mountOf(mounts, '/srv/a b\\c/x')?.type).toBe('tmpfs')
    expect(mountOf(mounts, '/srv/x')).toMatchObject({ device: '8:3', root: '/sub' })
    expect(mountOf(mounts, '/srvx')?.device).toBe('8:1')
    expect(mountOf(mounts, '/srv')?.device).toBe('8:3')
  })

  test('whatever it holds, it is read', () => {
    fc.assert(
      fc.property(fc.string(), (text) => {
        for (const mount of parseMountTable(text)) expect(mount.type).not.toBe('')
      }),
    )
  })

  test('names survive their escapes', () => {
    const name = fc.stringMatching(/^[ -~]{1,40}$/u)
    const escaped = (text: string): string =>
      text.replace(/[ \\\n\t]/gu, (one) => `\\${one.charCodeAt(0).toString(8).padStart(3, '0')}`)
    fc.assert(
      fc.property(name, (text) => {
        const [mount] = parseMountTable(`2 1 0:30 / /${escaped(text)} rw - tmpfs none rw`)
        expect(mount?.mountPoint).toBe(`/${text}`)
      }),
    )
  })
})

describe('whatever a machine answers', () => {
  test('there is a verdict, and what is unknown is never safe', async () => {
    const text = fc.oneof(fc.string({ maxLength: 12 }), fc.constantFrom('1', '0', '8:0', 'write back', '[writeback]'))
    const files = [
      'queue/write_cache',
      'queue/fua',
      'loop/dio',
      'loop/backing_file',
      'md/level',
      'md/degraded',
      'ro',
      'size',
    ]
    const names = ['loop0', 'md0', 'bcache1', 'nbd3', 'sda', 'vda', 'x!y', 'ram1']
    await fc.assert(
      fc.asyncProperty(
        fc.constantFrom(...names),
        fc.dictionary(fc.constantFrom(...files), text, { maxKeys: 8 }),
        async (name, texts) => {
          const recording = device('9:0', `../../devices/virtual/block/${name}`, texts)
          const report = await lookAt(recording, '/dev/image')
          expect(['condition', 'unsafe']).toContain(report.verdict)
          expect(report.layers.length).toBeGreaterThan(0)
        },
      ),
    )
  })
})
