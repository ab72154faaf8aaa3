/**
 * What a server costs: processor time and memory of a process and all its descendants, as the kernel counts them. The
 * time of children that have ended is in their parent's, so it never runs backwards while the root lives.
 */

import { readFileSync, readdirSync } from 'node:fs'

export interface Usage {
  /** User and system time, in microseconds; the kernel counts in steps of ten milliseconds. */
  readonly cpuMicroseconds: number
  /** Resident now, and the most that it ever was. Memory that processes share is counted in each. */
  readonly residentBytes: number
  readonly residentPeakBytes: number
}

/** USER_HZ, which is 100 wherever Linux runs Node. */
const MICROSECONDS_PER_TICK = 10_000
const KIB = 1024
/** Of a microsecond. */
const NANOSECONDS = 1000

export function usageOf(rootPid: number): Usage {
  let ticks = 0
  let residentBytes = 0
  let residentPeakBytes = 0
  for (const pid of processTree(rootPid)) {
    const stat = statOf(pid)
    if (stat === undefined) continue
    ticks += stat.ticks
    const status = textOf(`/proc/${pid}/status`)
    residentBytes += kibibytes(status, 'VmRSS') * KIB
    residentPeakBytes += kibibytes(status, 'VmHWM') * KIB
  }
  return { cpuMicroseconds: ticks * MICROSECONDS_PER_TICK, residentBytes, residentPeakBytes }
}

/**
 * The time that the threads of a process tree have had a core, finer than `usageOf` tells it; threads that have ended are
 * not in it, so it is for times in which none does.
 */
export function scheduledMicrosecondsOf(rootPid: number): number {
  let nanoseconds = 0
  for (const pid of processTree(rootPid)) {
    for (const thread of namesIn(`/proc/${pid}/task`)) {
      nanoseconds += Number(textOf(`/proc/${pid}/task/${thread}/schedstat`).split(' ')[0])
    }
  }
  return nanoseconds / NANOSECONDS
}

export function isAlive(pid: number): boolean {
  const stat = statOf(pid)
  return stat !== undefined && stat.state !== 'Z'
}

function processTree(rootPid: number): number[] {
  const children = new Map<number, number[]>()
  for (const name of readdirSync('/proc')) {
    const pid = Number(name)
    if (!Number.isInteger(pid)) continue
    const parent = statOf(pid)?.parent
    if (parent !== undefined) children.set(parent, [...(children.get(parent) ?? []), pid])
  }
  const tree = [rootPid]
  for (const pid of tree) tree.push(...(children.get(pid) ?? []))
  return tree
}

/** See proc(5). The command's name, in parentheses, may hold anything. */
function statOf(pid: number): { state: string; parent: number; ticks: number } | undefined {
  const text = textOf(`/proc/${pid}/stat`)
  const fields = text.slice(text.lastIndexOf(')') + 2).split(' ')
  const [state, parent] = fields
  if (state === undefined || parent === undefined) return undefined
  const ticks = fields.slice(11, 15).reduce((sum, field) => sum + Number(field), 0)
  return { state, parent: Number(parent), ticks }
}

function kibibytes(status: string, field: string): number {
  const found = new RegExp(`^${field}:\\s*(\\d+) kB$`, 'mu').exec(status)
  return Number(found?.[1] ?? 0)
}

/** None when the process is gone. */
function namesIn(directory: string): string[] {
  try {
    return readdirSync(directory)
  } catch {
    return []
  }
}

/** Empty when the process is gone. */
function textOf(path: string): string {
  try {
    return readFileSync(path, 'utf8')
  } catch {
    return ''
  }
}
