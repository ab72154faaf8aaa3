/**
 * Who looks at what is under an image, and what is kept of it. What a reboot of this host proves depends on that: writes
 * that it had submitted to a disk of its own are over, those that it had sent over a network may still be on their way.
 */

import { describe, expect, test } from 'vitest'
import type { BlockingRunner } from '../../src/blocking/calls.ts'
import { Preflight } from '../../src/exports/preflight/preflight.ts'
import { ExportStacks } from '../../src/exports/stacks.ts'
import type { ExportDefinition } from '../../src/exports/verbs.ts'
import { plainFile, recordedRunner } from './preflight/recorded-machine.ts'
import type { Recording } from './preflight/recorded-machine.ts'

const IMAGE = '/srv/image.raw'
const DEFINITION: ExportDefinition = {
  ...{ name: 'vda', path: IMAGE, description: '', imageId: null, readOnly: false, durability: 'sync' },
  ...{ clients: 'exclusive', standby: false, standbyReads: 'serve', clusterLocks: false, cache: 'direct' },
}
const OWN_DISK = '../../devices/pci0000:00/ata1/host0/target0:0:0/0:0:0:0/block/sdb'

/** ext4, over a disk that the kernel reaches as the link says. */
function ext4Over(link: string): Recording {
  const folder = `/sys/${link.replace('../../', '')}`
  return {
    mounts: ['36 35 8:16 / /srv rw,relatime shared:1 - ext4 /dev/sdb rw'],
    stats: { [IMAGE]: plainFile('8:16') },
    links: { '/sys/dev/block/8:16': link },
    texts: { [`${folder}/size`]: '131072\n', [`${folder}/ro`]: '0\n' },
  }
}

function isLocal(recording: Recording): Promise<boolean> {
  const preflight = new Preflight(recordedRunner(recording))
  return new ExportStacks({ ofOpenings: preflight, ofOthers: preflight }).isLocal(DEFINITION)
}

test('a look for an opening waits for none of the threads that hang in looks at other paths', async () => {
  const hanging = new Preflight({ run: () => new Promise(() => undefined) })
  const answering = new Preflight(recordedRunner(ext4Over(OWN_DISK)))
  const stacks = new ExportStacks({ ofOpenings: answering, ofOthers: hanging })
  await stacks.pass(DEFINITION)
  expect(await stacks.of(DEFINITION)).toMatchObject({ path: IMAGE, waitingFor: null })
})

test('an opening asks at once what the look of its standby asked, until the export is gone', async () => {
  const kinds: string[] = []
  const runner = recordedRunner(ext4Over(OWN_DISK))
  const openings = new Preflight({
    run: (call) => {
      kinds.push(call.kind)
      return runner.run(call)
    },
  })
  const stacks = new ExportStacks({ ofOpenings: openings, ofOthers: new Preflight(runner) })
  stacks.lookSoon(DEFINITION)
  await stacks.of(DEFINITION)
  await stacks.pass(DEFINITION)
  expect(kinds.splice(0)).toEqual(['each', 'each'])
  stacks.forget('vda')
  await stacks.pass(DEFINITION)
  expect(kinds.length).toBeGreaterThan(8)
})

test('what a look did not come to know is asked for again', async () => {
  const runner = recordedRunner(ext4Over(OWN_DISK))
  let answer = (): void => undefined
  const asked = new Promise<void>((resolve) => {
    answer = resolve
  })
  const slow: BlockingRunner = {
    run: async (call) => {
      await asked
      return runner.run(call)
    },
  }
  const stacks = new ExportStacks({ ofOpenings: new Preflight(slow), ofOthers: new Preflight(slow) })
  expect((await stacks.of(DEFINITION)).waitingFor).not.toBeNull()
  answer()
  expect((await stacks.of(DEFINITION)).waitingFor).toBeNull()
})

describe('the storage under a local file system', () => {
  test('is local on a disk of this host', async () => {
    expect(await isLocal(ext4Over(OWN_DISK))).toBe(true)
  })

  test.each([
    ['iSCSI', '../../devices/platform/host3/session1/target3:0:0/3:0:0:0/block/sdb'],
    ['Fibre Channel', '../../devices/pci0000:00/0000:03:00.0/host5/rport-5:0-1/target5:0:0/5:0:0:2/block/sdb'],
    ['a driver that nobody knows', '../../devices/virtual/block/quantum0'],
  ])('is not behind %s', async (_name, link) => {
    expect(await isLocal(ext4Over(link))).toBe(false)
  })

  test('is not local where there is nothing to be seen', async () => {
    expect(await isLocal({ mounts: [] })).toBe(false)
  })
})
