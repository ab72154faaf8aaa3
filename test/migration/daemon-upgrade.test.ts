/**
 * Another daemon in the place of one that serves: on the same host, over the same image, under a file system of Linux's
 * own client that stays mounted and is written to all the time. What is done to it are the commands of
 * docs/operating.md, line by line: those of the disk in a virtual machine, interlockctl here.
 */

import { readFileSync } from 'node:fs'
import { join } from 'node:path'
import { afterAll, beforeAll, expect, test } from 'vitest'
import { PROJECT } from '../support/controlled-daemon.ts'
import type { Daemon } from '../support/daemon.ts'
import { startDaemon } from '../support/daemon.ts'
import { eventually } from '../support/eventually.ts'
import { runChecked } from '../support/foreign-program.ts'
import type { Outcome } from '../support/foreign-program.ts'
import { makeImage, MEBIBYTE } from '../support/image.ts'
import { Scratch } from '../support/scratch.ts'
import { HOST_ADDRESS, startVirtualMachine } from '../support/virtual-machine.ts'
import type { VirtualMachine } from '../support/virtual-machine.ts'

const UPGRADES = 2
const TROUBLE = 'I/O error|EXT4-fs (error|warning)|Aborting journal|Remounting filesystem|hung task'

/** Writes small files for as long as /run/writing is there, each durable and compared; ends at the first error. */
const WRITER = `
number=0
while test -e /run/writing; do
  number=$((number + 1))
  seq $number $((number + 2000)) > /run/content || exit 1
  dd if=/run/content of=/mnt/vda/part-$((number % 8)) conv=fsync status=none || exit 1
  dd if=/mnt/vda/part-$((number % 8)) iflag=direct bs=4096 status=none | cmp - /run/content || exit 1
  echo $number > /run/written
done
`

const scratch = new Scratch()
let machine: VirtualMachine
let writing: Promise<Outcome>
/** The writer's end; null as long as it goes on. */
let written: Outcome | null = null

beforeAll(async () => {
  machine = await startVirtualMachine(scratch, { modules: ['nbd', 'dm-mod', 'ext4', 'crc32c_generic'] })
})
afterAll(() => scratch.dispose())

/** The blocks of commands of the section: what is done once, the change, and the way back. */
function commandsOfPage(): string[][] {
  const page = readFileSync(join(PROJECT, 'docs/operating.md'), 'utf8')
  const section = page.split('## A new version under running guests\n')[1]?.split('\n## ')[0] ?? ''
  return [...section.matchAll(/^```\n(.*?)^```$/gmsu)].map(([, block = '']) => block.trim().split('\n'))
}

/** The page's names for two daemons and their devices, for those of this test. */
interface Pair {
  readonly old: Daemon
  readonly oldDevice: string
  readonly next: Daemon
  readonly newDevice: string
}

async function perform(command: string, { old, oldDevice, next, newDevice }: Pair): Promise<void> {
  const asked = /^interlockctl --control unix:\/run\/interlockd(-new)?\/control\.sock (.*)$/u.exec(command)
  if (asked !== null) {
    const outcome = await (asked[1] === undefined ? old : next).ctl((asked[2] ?? '').split(' '))
    expect(outcome.status, `${command}: ${outcome.stdout}${outcome.stderr}`).toBe(0)
    return
  }
  const places: Readonly<Record<string, string>> = {
    '127.0.0.1 10809': `${HOST_ADDRESS} ${old.nbdPort}`,
    '127.0.0.1 10810': `${HOST_ADDRESS} ${next.nbdPort}`,
    '/dev/nbd0': oldDevice,
    '/dev/nbd1': newDevice,
  }
  const here = command.replace(/127\.0\.0\.1 \d+|\/dev\/nbd\d/gu, (place) => places[place] ?? place)
  await machine.check(here, 120_000)
}

async function filesWritten(): Promise<number> {
  if (written !== null) throw new Error(`the writer ended with ${written.status}: ${written.stdout}${written.stderr}`)
  return Number(await machine.check('test ! -e /run/written || cat /run/written'))
}

async function untilMoreIsWritten(): Promise<void> {
  const before = await filesWritten()
  await eventually('further files', async () => (await filesWritten()) >= before + 2, { timeoutMs: 90_000 })
}

test('a file system stays mounted and is written to while one daemon takes the place of another', async () => {
  const image = makeImage(scratch, 32 * MEBIBYTE)
  const start = (before?: Daemon): Promise<Daemon> =>
    startDaemon(scratch, {
      exports: [{ name: 'vda', path: image }],
      ownership: 'directory',
      ...(before === undefined ? {} : { stateDirectory: before.stateDirectory, standby: true }),
    })
  const [once = [], change = [], back = []] = commandsOfPage()
  const old = await start()
  let pair: Pair = { old, oldDevice: '/dev/nbd0', newDevice: '/dev/nbd1', next: await start(old) }
  const inOrder = async (commands: readonly string[]): Promise<void> => {
    for (const command of commands) await perform(command, pair)
  }

  await inOrder(once)
  await machine.check(
    `dmsetup mknodes
     mkfs.ext4 -q -E nodiscard /dev/mapper/vda && mkdir -p /mnt/vda && mount /dev/mapper/vda /mnt/vda
     touch /run/writing`,
    120_000,
  )
  writing = machine.run(WRITER, 500_000)
  writing.then(
    (outcome) => (written = outcome),
    () => undefined,
  )
  await untilMoreIsWritten()

  const [closed] = change.flatMap((command, index) => (command.includes(' close ') ? [index + 1] : []))
  await inOrder(change.slice(0, closed))
  expect((await pair.old.status('vda')).state).toBe('closed')
  await inOrder(back)
  await untilMoreIsWritten()

  for (let upgrade = 1; upgrade <= UPGRADES; upgrade += 1) {
    const { next, oldDevice, newDevice } = pair
    if (upgrade > 1) pair = { old: next, oldDevice: newDevice, newDevice: oldDevice, next: await start(next) }
    await inOrder(change)
    expect(await pair.next.status('vda')).toMatchObject({ state: 'open', generation: upgrade + 2, clearedBy: null })
    await untilMoreIsWritten()
    expect((await pair.old.stop()).status).toBe(0)
  }

  await machine.check('rm /run/writing')
  expect(await writing).toMatchObject({ status: 0, stdout: '', stderr: '' })
  await machine.check(
    `if dmesg | grep -E '${TROUBLE}'; then exit 1; fi
     umount /mnt/vda && e2fsck -f -n /dev/mapper/vda`,
    120_000,
  )
  await pair.next.close('vda')
  await runChecked('e2fsck', ['-f', '-n', image])
})
