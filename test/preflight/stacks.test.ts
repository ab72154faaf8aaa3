/**
 * The preflight on real stacks that the kernel of this machine lacks or that nobody wants here, built in a virtual
 * machine whose kernel has every driver: file systems, device mapper, md, zram, loops, NFS with its server, NBD. Each is
 * looked at by a daemon in the machine, and once by `interlockctl check --local`.
 */

import { closeSync, openSync, truncateSync } from 'node:fs'
import { join } from 'node:path'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import type { StackReport } from '../../src/exports/verbs.ts'
import { eventually } from '../support/eventually.ts'
import { startProgram } from '../support/foreign-program.ts'
import { freePort } from '../support/free-port.ts'
import { startMachineServer } from '../support/parallel-witness.ts'
import { Scratch } from '../support/scratch.ts'
import { HOST_ADDRESS, startVirtualMachine } from '../support/virtual-machine.ts'
import type { VirtualMachine } from '../support/virtual-machine.ts'

const MIB = 1024 * 1024
/** vda: ext4; vdb: xfs; vdc: btrfs; the rest: parts of device mapper and md. */
const DRIVES_MIB = [512, 400, 256, 64, 64, 64, 64]
const MODULES = [
  ...['ext4', 'xfs', 'btrfs', 'loop', 'dm-mod', 'dm-crypt', 'xts', 'aes_generic', 'algif_skcipher', 'dm-cache'],
  ...['dm-cache-smq', 'dm-thin-pool', 'dm-writecache', 'raid1', 'zram', 'brd', 'nfsd', 'nfsv4', 'nbd'],
]
const PROGRAM = `${process.execPath} ${join(import.meta.dirname, '../../bin/interlockctl.cjs')}`
const DAEMON = `${process.execPath} ${join(import.meta.dirname, '../../bin/interlockd.cjs')}`
const CONTROL_PORT = 10_900
/** Device mapper's nodes are made by hand: there is no udev. */
const MAPPER = `
map() { dmsetup create "$1" --table "$2"; dmsetup mknodes; }
minor() { dmsetup info -c --noheadings -o minor "$1" | tr -d ' '; }
`

const scratch = new Scratch()
let machine: VirtualMachine

beforeAll(async () => {
  const directory = scratch.directory('drives')
  const drives = DRIVES_MIB.map((sizeMiB, index) => {
    const path = join(directory, `drive-${index}.raw`)
    closeSync(openSync(path, 'wx'))
    truncateSync(path, sizeMiB * MIB)
    return path
  })
  machine = await startVirtualMachine(scratch, {
    modules: MODULES,
    withProject: true,
    memoryMiB: 1_600,
    drives,
    forwardedPorts: [CONTROL_PORT],
  })
  await startChecker()
  await machine.check(
    `mkfs.ext4 -q -F /dev/vda; mkfs.xfs -q -f /dev/vdb; mkfs.btrfs -q -f /dev/vdc
     for part in vda vdb vdc; do mkdir -p /mnt/$part; mount /dev/$part /mnt/$part; done
     for part in vda vdb vdc; do dd if=/dev/zero of=/mnt/$part/image.raw bs=1M count=16 conv=fsync status=none; done`,
    120_000,
  )
}, 180_000)
afterAll(() => scratch.dispose())

const CONFIGURATION = `
state_directory = "/run/interlockd"
control = ["tcp:127.0.0.1:${CONTROL_PORT}"]
listen = ["unix:/run/nbd.sock"]
[ownership]
kind = "none"
`

async function startChecker(): Promise<void> {
  await machine.check(`cat > /run/interlockd.toml << 'END'${CONFIGURATION}END`)
  await startMachineServer(machine, `${DAEMON} --config /run/interlockd.toml`, CONTROL_PORT)
}

/** As the daemon in the machine sees it, which answers in time whatever happens. */
async function check(path: string, timeoutMs = 10_000): Promise<StackReport> {
  const body = JSON.stringify({ path, timeoutMs })
  const url = `http://127.0.0.1:${CONTROL_PORT}/v1/check`
  const answer = await machine.check(
    `busybox wget -q -O - --header 'content-type: application/json' --post-data '${body}' ${url}`,
  )
  return JSON.parse(answer) as StackReport
}

/** What the layers are, from the image down: `file`, `ext4`, `/dev/vda`. */
function names({ layers }: StackReport): string[] {
  return layers.map(({ kind, facts }) => {
    if (kind === 'fileSystem') return String(facts['type'])
    return kind === 'device' ? `/dev/${String(facts['name'])}` : kind
  })
}

describe('file systems', () => {
  test('ext4 on a disk', async () => {
    const report = await check('/mnt/vda/image.raw')
    expect(names(report)).toEqual(['file', 'ext4', '/dev/vda'])
    expect(report.codes).toEqual(['local-file-system', 'virtual-disk'])
    expect(report.verdict).toBe('condition')
  })

  test('xfs, and an image that is allocated and not written', async () => {
    await machine.check('fallocate -l 8M /mnt/vdb/unwritten.raw')
    const report = await check('/mnt/vdb/unwritten.raw')
    expect(names(report)).toEqual(['file', 'xfs', '/dev/vdb'])
    expect(report.codes).toEqual(['unwritten', 'local-file-system', 'virtual-disk'])
  })

  test('btrfs, whose mount names no device number, and a file that is shared with its copy', async () => {
    await machine.check('cp --reflink=always /mnt/vdc/image.raw /mnt/vdc/copy.raw; sync')
    const report = await check('/mnt/vdc/copy.raw')
    expect(names(report)).toEqual(['file', 'btrfs', '/dev/vdc'])
    expect(report.codes).toEqual(['shared', 'local-file-system', 'copy-on-write', 'virtual-disk'])
  })

  test('a file system that does not flush', async () => {
    await machine.check('mount -o remount,nobarrier /mnt/vda')
    const report = await check('/mnt/vda/image.raw')
    await machine.check('mount -o remount,barrier /mnt/vda')
    expect(report.codes).toContain('no-barrier')
    expect(report.verdict).toBe('unsafe')
    expect((await check('/mnt/vda/image.raw')).codes).not.toContain('no-barrier')
  })

  test('an overlay: a file of its upper layer counts as what is there, one of a lower layer is copied by an opening', async () => {
    await machine.check(
      `mkdir -p /mnt/vda/upper /mnt/vda/work /mnt/vda/lower /mnt/overlay
       dd if=/dev/zero of=/mnt/vda/lower/low.raw bs=1M count=1 conv=fsync status=none
       mount -t overlay -o lowerdir=/mnt/vda/lower,upperdir=/mnt/vda/upper,workdir=/mnt/vda/work overlay /mnt/overlay
       dd if=/dev/zero of=/mnt/overlay/up.raw bs=1M count=1 conv=fsync status=none`,
    )
    const upper = await check('/mnt/overlay/up.raw')
    expect(names(upper)).toEqual(['file', 'overlay', 'file', 'ext4', '/dev/vda'])
    expect(upper.verdict).toBe('condition')
    const lower = await check('/mnt/overlay/low.raw')
    expect(lower.codes).toContain('overlay-copy-up')
    expect(lower.verdict).toBe('unsafe')
    await machine.check(
      `umount /mnt/overlay; rm -rf /mnt/vda/work; mkdir /mnt/vda/work
       mount -t overlay -o volatile,lowerdir=/mnt/vda/lower,upperdir=/mnt/vda/upper,workdir=/mnt/vda/work overlay /mnt/overlay`,
    )
    expect((await check('/mnt/overlay/up.raw')).codes).toContain('overlay-volatile')
  })

  test('memory', async () => {
    await machine.check('dd if=/dev/zero of=/run/image.raw bs=1M count=1 status=none')
    const report = await check('/run/image.raw')
    expect(report.codes).toContain('volatile-memory')
  })

  test('odd names, a full disk, and a path that is none', async () => {
    await machine.check(
      `mkdir -p '/mnt/vda/o dd\\name'; mkdir -p '/mnt/o dd\\mount'; mount -t tmpfs none '/mnt/o dd\\mount'
       truncate -s 2G '/mnt/vda/o dd\\name/im age.raw'; truncate -s 1M '/mnt/o dd\\mount/image.raw'`,
    )
    const sparse = await check('/mnt/vda/o dd\\name/im age.raw')
    expect(sparse.codes).toEqual(['sparse', 'space-short', 'local-file-system', 'virtual-disk'])
    const mounted = await check('/mnt/o dd\\mount/image.raw')
    expect(mounted.layers[1]?.facts).toMatchObject({ type: 'tmpfs', mountPoint: '/mnt/o dd\\mount' })
    await expect(check('/mnt/vda/none.raw')).rejects.toThrow('422')
  })
})

describe('block devices', () => {
  test('loops: buffered, direct, and one over the other', async () => {
    await machine.check('losetup /dev/loop0 /mnt/vda/image.raw; losetup --direct-io=on /dev/loop1 /mnt/vdb/image.raw')
    const buffered = await check('/dev/loop0')
    expect(names(buffered)).toEqual(['/dev/loop0', 'file', 'ext4', '/dev/vda'])
    expect(buffered.codes).toContain('loop-buffered')
    expect(buffered.verdict).toBe('unsafe')
    const direct = await check('/dev/loop1')
    expect(names(direct)).toEqual(['/dev/loop1', 'file', 'xfs', '/dev/vdb'])
    expect(direct.verdict).toBe('condition')

    await machine.check(
      `mkfs.ext4 -q -F /dev/loop0; mkdir -p /mnt/inner; mount /dev/loop0 /mnt/inner
       dd if=/dev/zero of=/mnt/inner/image.raw bs=1M count=4 conv=fsync status=none
       losetup --direct-io=on /dev/loop2 /mnt/inner/image.raw`,
    )
    const nested = await check('/dev/loop2')
    expect(names(nested)).toEqual(['/dev/loop2', 'file', 'ext4', '/dev/loop0', 'file', 'ext4', '/dev/vda'])
    expect(nested.codes).toContain('loop-buffered')
    expect((await check('/dev/loop0')).codes, 'it is mounted').toContain('in-use')
  })

  test('a partition', async () => {
    await machine.check(
      `truncate -s 16M /mnt/vda/disk.raw
       printf '\\203\\0\\0\\0\\0\\10\\0\\0\\0\\40\\0\\0' | dd of=/mnt/vda/disk.raw bs=1 seek=450 conv=notrunc status=none
       printf '\\125\\252' | dd of=/mnt/vda/disk.raw bs=1 seek=510 conv=notrunc status=none
       losetup --direct-io=on --partscan /dev/loop5 /mnt/vda/disk.raw`,
    )
    const report = await check('/dev/loop5p1')
    expect(names(report)).toEqual(['/dev/loop5p1', '/dev/loop5', 'file', 'ext4', '/dev/vda'])
    expect(report.layers[0]?.words).toBe('/dev/loop5p1, a partition of loop5')
  })

  test('linear and crypt pass everything on', async () => {
    await machine.check(
      `${MAPPER}
       map line '0 65536 linear /dev/vdd 0'
       map 'odd name!' "0 65536 crypt aes-xts-plain64 $(printf '%064d' 7) 0 /dev/mapper/line 0"`,
    )
    const report = await check('/dev/dm-1')
    expect(names(report)).toEqual(['/dev/dm-1', '/dev/dm-0', '/dev/vdd'])
    expect(report.layers[0]?.facts['make']).toMatchObject({
      mapperName: 'odd\\x20name\\x21',
      targets: [{ type: 'crypt' }],
    })
    expect(report.codes).toEqual(['virtual-disk'])
    expect(JSON.stringify(report), 'no key leaves the kernel').not.toContain('0000000000000007')
    await machine.check("dmsetup remove 'odd name!'; dmsetup remove line")
  })

  test('a cache that writes back acknowledges before the disk; one that writes through does not', async () => {
    const cached = async (mode: string): Promise<string> => {
      const table = `0 65536 cache /dev/mapper/meta /dev/mapper/fast /dev/vdd 128 1 ${mode} smq 0`
      return `/dev/dm-${(await machine.check(`${MAPPER} map cached '${table}'; minor cached`)).trim()}`
    }
    await machine.check(
      `${MAPPER}
       dd if=/dev/zero of=/dev/vde bs=1M count=8 status=none
       map meta '0 16384 linear /dev/vde 0'
       map fast '0 65536 linear /dev/vde 16384'`,
    )
    const back = await check(await cached('writeback'))
    expect(names(back)).toEqual(expect.arrayContaining(['/dev/vdd', '/dev/vde']))
    expect(back.codes).toContain('cache-writeback')
    expect(back.verdict).toBe('unsafe')
    await machine.check('dmsetup remove cached')
    const through = await check(await cached('writethrough'))
    expect(through.codes).toContain('local-cache')
    expect(through.verdict).toBe('condition')
    await machine.check('dmsetup remove cached; dmsetup remove fast; dmsetup remove meta')
  })

  test('a thin volume depends on its pool', async () => {
    const minor = await machine.check(
      `${MAPPER}
       dd if=/dev/zero of=/dev/vde bs=1M count=8 status=none
       map meta '0 16384 linear /dev/vde 0'
       map pool '0 65536 thin-pool /dev/mapper/meta /dev/vdd 128 0'
       dmsetup message pool 0 'create_thin 0'
       map thin '0 32768 thin /dev/mapper/pool 0'
       minor thin`,
    )
    const report = await check(`/dev/dm-${minor.trim()}`)
    expect(report.codes).toContain('thin-pool')
    expect(report.layers.map(({ words }) => words).join('\n')).toContain("'pool': thin-pool")
    expect(names(report)).toEqual(expect.arrayContaining(['/dev/vdd', '/dev/vde']))
    await machine.check('dmsetup remove thin; dmsetup remove pool; dmsetup remove meta')
  })

  test('a mirror of md, whole and degraded', async () => {
    await machine.check(
      `mdadm --create /dev/md7 --level=1 --raid-devices=2 --assume-clean --run --metadata=1.2 /dev/vdf /dev/vdg`,
    )
    const whole = await check('/dev/md7')
    expect(names(whole)).toEqual(['/dev/md7', '/dev/vdf', '/dev/vdg'])
    expect(whole.codes).toEqual(['array', 'virtual-disk'])
    expect((await check('/dev/vdf')).codes, 'it is part of the array').toContain('in-use')
    await machine.check('mdadm /dev/md7 --fail /dev/vdg')
    expect((await check('/dev/md7')).codes).toContain('array-degraded')
    await machine.check('mdadm --stop /dev/md7')
  })

  test('compressed memory', async () => {
    await machine.check('echo 32M > /sys/block/zram0/disksize')
    const report = await check('/dev/zram0')
    expect(report.codes).toContain('volatile-memory')
  })

  test('a network block device: with a timeout, without one, over two connections, and where it cannot be seen', async () => {
    const port = await freePort()
    const server = startProgram(scratch, 'nbdkit', ['-f', '-i', '127.0.0.1', '-p', String(port), 'memory', '16M'])
    await server.until('nbdkit', 5_000, () => server.running)
    const attach = (device: string): string => `nbd-client ${HOST_ADDRESS} ${port} ${device} -N ''`
    await machine.check(`${attach('/dev/nbd0')} -t 7; ${attach('/dev/nbd1')}; ${attach('/dev/nbd2')} -C 2`)
    const timed = await check('/dev/nbd0')
    expect(timed.codes).toEqual(['remote-device', 'nbd-timeout'])
    expect(timed.layers[0]?.words).toContain('7 s')
    expect((await check('/dev/nbd1')).codes).toEqual(['remote-device', 'nbd-timeout-unknown'])
    await machine.check('mount -t debugfs debugfs /sys/kernel/debug')
    expect((await check('/dev/nbd0')).codes).toEqual(['remote-device', 'nbd-timeout'])
    expect((await check('/dev/nbd1')).codes).toEqual(['remote-device'])
    expect((await check('/dev/nbd2')).codes).toEqual(['remote-device', 'nbd-timeout'])
    await machine.check('for number in 0 1 2; do nbd-client -d "/dev/nbd$number"; done')
  })
})

describe('NFS, with its server in the same machine', () => {
  beforeAll(async () => {
    await machine.check(
      `mkdir -p /run/rpcbind /var/lib/nfs/v4recovery /srv/nfs /mnt/hard /mnt/soft /mnt/locks /mnt/vdb/shared
       mount -t tmpfs state /var/lib/nfs; mkdir -p /var/lib/nfs/v4recovery; touch /var/lib/nfs/etab /var/lib/nfs/rmtab
       dd if=/dev/zero of=/mnt/vdb/shared/image.raw bs=1M count=4 conv=fsync status=none
       for number in 1 2 3; do cp /mnt/vdb/shared/image.raw /mnt/vdb/shared/cold-$number.raw; done
       mount -t nfsd nfsd /proc/fs/nfsd
       exportfs -o rw,sync,no_root_squash,no_subtree_check,insecure,fsid=0 127.0.0.1:/mnt/vdb/shared
       echo 10 > /proc/fs/nfsd/nfsv4leasetime; echo 10 > /proc/fs/nfsd/nfsv4gracetime
       rpc.mountd --no-udp -N 2 -N 3 || rpc.mountd
       rpc.nfsd --no-udp -N 3 2
       echo Y > /proc/fs/nfsd/v4_end_grace || true
       mount -t nfs4 -o vers=4.2,hard,nosharecache 127.0.0.1:/ /mnt/hard
       mount -t nfs4 -o vers=4.2,soft,timeo=600,retrans=9,nosharecache 127.0.0.1:/ /mnt/soft`,
      120_000,
    )
  }, 150_000)

  test('hard and soft', async () => {
    const hard = await check('/mnt/hard/image.raw')
    expect(hard.layers[1]?.words).toContain('locks reach every host')
    expect(hard.codes).toEqual(['nfs-server'])
    expect(hard.verdict).toBe('condition')
    const soft = await check('/mnt/soft/image.raw')
    expect(soft.codes).toEqual(['nfs-server', 'nfs-soft'])
    expect(soft.verdict).toBe('unsafe')
  })

  test('a dead server: what is waited for is said within a second, and what the mount table knows', async () => {
    await machine.check('rpc.nfsd 0')
    const soft = await waitingFor('/mnt/soft/cold-1.raw')
    expect(soft.codes).toEqual(['nfs-server', 'nfs-soft', 'not-answering'])
    expect(soft.verdict).toBe('unsafe')
    const hard = await waitingFor('/mnt/hard/cold-2.raw')
    expect(hard.codes).toEqual(['nfs-server', 'not-answering'])
    expect((await check('/mnt/vda/image.raw')).waitingFor, 'nobody else waits for it').toBe(null)
  })

  /** A report that has come so far as to wait for the path. */
  function waitingFor(path: string): Promise<StackReport> {
    return eventually(
      `a wait for ${path}`,
      async () => {
        const report = await check(path, 900)
        return report.waitingFor?.includes(path) === true && report
      },
      { timeoutMs: 60_000 },
    )
  }

  test('interlockctl says what it waits for, and ends without a verdict', async () => {
    const outcome = await machine.run(`${PROGRAM} check --local --timeout 15s /mnt/hard/cold-3.raw`, 120_000)
    expect(outcome.stderr).toMatch(/waiting for .*cold-3\.raw \(\d+ s\)/u)
    expect(outcome.stdout).toContain('no verdict yet')
    expect(outcome.status).toBe(1)
  })
})
