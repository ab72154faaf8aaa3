/**
 * The passage of one disk while its guest stands still, from wherever an earlier run has left it: first its source's gate
 * is shut, then the rest may take its time.
 */

import type { DiskHandover } from './disk-handover.ts'
import { StepFailed } from './ending.ts'

/** What is left to do for a disk once its source takes no more requests. */
export type DiskRest = 'close' | 'open' | 'nothing'

/** Shuts the source's gate, wherever the disk is. `fresh`: it was looked at a moment ago, and is open there. */
export async function shut(disk: DiskHandover, fresh: boolean): Promise<DiskRest> {
  const kind = fresh ? 'start' : await standingKind(disk)
  switch (kind) {
    case 'start':
    case 'closing':
      if (!fresh) await disk.standby()
      return beginClose(disk)
    case 'asleep':
      await disk.standby()
      return unlessEnded<DiskRest>(disk, 'open', async () =>
        (await disk.wakeSource()) === null ? beginClose(disk) : 'open',
      )
    case 'between':
      await disk.standby()
      return 'open'
    case 'opening':
      return 'open'
    case 'finished':
      return 'nothing'
  }
}

function beginClose(disk: DiskHandover): Promise<DiskRest> {
  return unlessEnded<DiskRest>(disk, 'open', async () => {
    await disk.beginClose()
    return 'close'
  })
}

async function standingKind(disk: DiskHandover) {
  const { standing } = await disk.stand()
  if (standing.kind !== 'stuck') return standing.kind
  throw new StepFailed({ step: 'look', code: 'not-ready-to-move', message: standing.reason, problem: null })
}

export async function awaitClosed(disk: DiskHandover): Promise<void> {
  await unlessEnded(disk, undefined, async () => {
    await disk.awaitClosed()
  })
}

/**
 * A source that has ended for good, in the middle of its close or before it had begun, may have left what the destination
 * needs to open: then `instead` is the result.
 */
async function unlessEnded<T>(disk: DiskHandover, instead: T, work: () => Promise<T>): Promise<T> {
  try {
    return await work()
  } catch (error) {
    if (!(error instanceof StepFailed) || error.failure.code !== 'unreachable') throw error
    const { standing } = await disk.stand()
    if (standing.kind !== 'between') throw error
    return instead
  }
}

/** The guest runs at the destination already; its disk follows, from wherever it is. */
export async function takeThere(disk: DiskHandover): Promise<void> {
  const rest = await shut(disk, false)
  if (rest === 'close') await awaitClosed(disk)
  if (rest !== 'nothing') await disk.open()
}
