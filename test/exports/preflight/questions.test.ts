/**
 * What a look asks ahead: the ways it saves, and that it sees, says and touches what it would without. On recorded
 * machines, which answer at once.
 */

import { expect, test } from 'vitest'
import type { BlockingCall, BlockingResultOf, BlockingRunner } from '../../../src/blocking/calls.ts'
import type { ProbeCall } from '../../../src/blocking/stack-probes.ts'
import { Preflight } from '../../../src/exports/preflight/preflight.ts'
import { Foresight, Questions } from '../../../src/exports/preflight/questions.ts'
import type { StackReport } from '../../../src/exports/verbs.ts'
import { lookAt, plainFile, recordedRunner } from './recorded-machine.ts'
import type { Recording } from './recorded-machine.ts'

const IMAGE = '/srv/image.raw'
const FOLDER = '/sys/devices/pci0000:00/ata1/host0/target0:0:0/0:0:0:0/block/sdb'
const PARTITION: Recording = {
  mounts: ['36 35 8:17 / /srv rw,relatime shared:1 - ext4 /dev/sdb1 rw'],
  stats: { [IMAGE]: plainFile('8:17') },
  links: {
    '/sys/dev/block/8:17': `../../${FOLDER.slice('/sys/'.length)}/sdb1`,
    '/sys/dev/block/8:16': `../../${FOLDER.slice('/sys/'.length)}`,
  },
  texts: {
    [`${FOLDER}/sdb1/partition`]: '1\n',
    [`${FOLDER}/dev`]: '8:16\n',
    [`${FOLDER}/size`]: '131072\n',
    [`${FOLDER}/ro`]: '0\n',
    [`${FOLDER}/queue/write_cache`]: 'write back\n',
  },
}

/** A machine that changes between two looks, and what it was asked on each way. */
class Asked implements BlockingRunner {
  machine: Recording
  hangs: (call: BlockingCall) => boolean = () => false
  leads: string = IMAGE
  #ways: BlockingCall[] = []

  constructor(machine: Recording) {
    this.machine = machine
  }

  /** Since it was last asked for. */
  takeWays(): readonly (readonly BlockingCall[])[] {
    return this.#ways.splice(0).map((call) => (call.kind === 'each' ? call.calls : [call]))
  }

  async run<C extends BlockingCall>(call: C): Promise<BlockingResultOf<C['kind']>> {
    this.#ways.push(call)
    const calls: readonly BlockingCall[] = call.kind === 'each' ? call.calls : [call]
    if (calls.some((one) => this.hangs(one))) return new Promise(() => undefined)
    const answers: unknown[] = []
    for (const one of calls) {
      const isLink = one.kind === 'resolvePath' && one.path === IMAGE
      answers.push(isLink ? this.leads : await recordedRunner(this.machine).run(one))
    }
    return (call.kind === 'each' ? answers : answers[0]) as BlockingResultOf<C['kind']>
  }
}

function looking(runner: BlockingRunner, foresight = new Foresight()): (timeoutMs?: number) => Promise<StackReport> {
  const preflight = new Preflight(runner)
  return (timeoutMs = 5_000) => preflight.check(IMAGE, { users: false, timeoutMs, foresight })
}

const withoutTime = ({ at: _at, ...rest }: StackReport): unknown => rest

test('the second look goes two ways: to the kernel, and to the image', async () => {
  const asked = new Asked(PARTITION)
  const look = looking(asked)
  const first = await look()
  const oneByOne = asked.takeWays()
  expect(oneByOne.every((way) => way.length === 1)).toBe(true)
  expect(oneByOne.length).toBeGreaterThan(12)
  expect(withoutTime(await look())).toEqual(withoutTime(first))
  const [kernel = [], image = [], ...more] = asked.takeWays()
  expect(more).toEqual([])
  expect([...kernel, ...image]).toHaveLength(oneByOne.length)
  const ofImage = ['resolvePath', 'statPath', 'probeDirect', 'probeExtents', 'statFileSystem']
  expect(image.map(({ kind }) => kind)).toEqual(ofImage)
})

test('every answer is of the look that gives it', async () => {
  const asked = new Asked(PARTITION)
  const look = looking(asked)
  const first = await look()
  const stats = { [IMAGE]: { ...plainFile('8:17'), links: 2 } }
  const texts = { ...PARTITION.texts, [`${FOLDER}/ro`]: '1\n' }
  asked.machine = { ...PARTITION, stats, texts, direct: { works: false, alignmentBytes: 0, errno: 22 } }
  const changed = await look()
  expect(changed.codes).toEqual(expect.arrayContaining(['hard-links', 'no-direct']))
  expect(changed.layers.at(-1)?.facts['readOnly']).toBe(true)
  asked.machine = PARTITION
  expect(withoutTime(await look())).toEqual(withoutTime(first))
})

test('what was not foreseen is asked by itself', async () => {
  const asked = new Asked(PARTITION)
  const look = looking(asked)
  await look()
  asked.takeWays()
  const { [`${FOLDER}/sdb1/partition`]: _partition, ...texts } = PARTITION.texts ?? {}
  asked.machine = { ...PARTITION, texts: { ...texts, [`${FOLDER}/sdb1/loop/backing_file`]: '/srv/below.raw\n' } }
  expect(withoutTime(await look())).toEqual(withoutTime(await lookAt(asked.machine, IMAGE)))
  const ways = asked.takeWays()
  expect(ways.length).toBeGreaterThan(2)
  expect(ways.slice(2).every((way) => way.length === 1)).toBe(true)
})

test('where the image was and is no more nothing is asked', async () => {
  const [old, now] = ['/mnt/dead/image.raw', '/srv/moved.raw']
  const machine = { ...PARTITION, stats: { [old]: plainFile('8:17'), [now]: plainFile('8:17') } }
  const asked = new Asked(machine)
  const look = looking(asked)
  asked.leads = old
  await look()
  asked.takeWays()
  asked.leads = now
  asked.hangs = (call) => 'path' in call && call.path === old
  expect(await look(500)).toMatchObject({ realPath: now, waitingFor: null })
  // Where it is now, it is foreseen again.
  asked.takeWays()
  await look()
  expect(asked.takeWays().map((way) => way[0]?.kind)).toEqual(['readTexts', 'resolvePath', 'statPath'])
})

test('an image that hangs: it is named, the mount table is known, and the next look asks nothing ahead', async () => {
  const asked = new Asked({ ...PARTITION, mounts: ['36 35 0:50 / /srv rw shared:1 - nfs4 server:/ rw,soft'] })
  const foresight = new Foresight()
  const look = looking(asked, foresight)
  await look()
  asked.hangs = ({ kind }) => kind === 'probeDirect'
  const report = await look(50)
  expect(report.waitingFor).toContain(IMAGE)
  expect(report.codes).toEqual(['nfs-server', 'nfs-soft', 'not-answering'])
  asked.takeWays()
  asked.hangs = () => false
  // By other threads: whoever asks the same ones joins the look that hangs.
  await looking(asked, foresight)()
  expect(asked.takeWays().every((way) => way.length === 1)).toBe(true)
})

test('an answer is given once', async () => {
  let count = 0
  const counting = (): number => (count += 1)
  const runner: BlockingRunner = {
    run: <C extends BlockingCall>(call: C) =>
      Promise.resolve((call.kind === 'each' ? call.calls.map(counting) : counting()) as BlockingResultOf<C['kind']>),
  }
  const stat: ProbeCall = { kind: 'statPath', path: IMAGE }
  const questions = new Questions(runner, [stat, { kind: 'statFileSystem', path: IMAGE }, stat])
  const answers = [await questions.ask(stat), await questions.ask(stat), await questions.ask(stat)]
  expect(answers).toEqual([1, 3, 4])
})

test('so much is remembered and no more', () => {
  const foresight = new Foresight()
  foresight.learn(Array.from({ length: 1_000 }, (_, index) => ({ kind: 'statPath', path: `/srv/${index}` })))
  expect(foresight.take()).toHaveLength(256)
  expect(foresight.take()).toEqual([])
})
