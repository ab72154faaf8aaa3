/**
 * Named places between durable steps, where a test can have the process die, stop or wait. Unless the environment names
 * one (INTERLOCKD_FAULT_POINT=NAME[@N]:kill|stop|sleep=MS|throw), all of them are nothing: they cost one comparison. A
 * point is hit each time it is passed; `@N` picks the Nth time, and `*` stands for every point. A value that begins with a
 * slash is a file to read the fault from, at each pass: it is armed when the file appears, and removes it when it happens.
 * It is for tests of crashes only and changes nothing by itself.
 */

import { readFileSync, rmSync } from 'node:fs'
import { assert } from '../foundation/assert.ts'

type FaultAction =
  { readonly kind: 'kill' | 'stop' | 'throw' } | { readonly kind: 'sleep'; readonly durationMs: number }

interface ArmedFault {
  readonly text: string
  readonly name: string
  /** Passes that are left until it happens. */
  passesLeft: number
  readonly action: FaultAction
}

const SHAPE = /^(?<name>[^@]+?)(?:@(?<pass>\d+))?:(?<action>kill|stop|throw|sleep=(?<durationMs>\d+))$/

const setting = process.env['INTERLOCKD_FAULT_POINT'] ?? ''
const file = setting.startsWith('/') ? setting : null
let armed = file === null && setting !== '' ? armFault(setting) : null

/** Whether any of them may be something. */
export function faultsAreArmed(): boolean {
  return file !== null || armed !== null
}

export async function faultPoint(name: string): Promise<void> {
  const action = faultAt(name, false)
  switch (action?.kind) {
    case undefined:
    case 'throw':
      return
    case 'kill':
      process.kill(process.pid, 'SIGKILL')
      return
    case 'stop':
      process.kill(process.pid, 'SIGSTOP')
      return
    case 'sleep':
      await new Promise((resolve) => {
        setTimeout(resolve, action.durationMs)
      })
  }
}

/** For code that waits for nothing. Such a point throws, and does nothing else. */
export function throwingFaultPoint(name: string): void {
  if (faultAt(name, true) !== null) throw new Error(`the fault point '${name}' throws`)
}

/** What happens at this pass of the point. */
function faultAt(name: string, throws: boolean): FaultAction | null {
  if (file !== null) armed = rearm(file)
  if (armed === null || (armed.name !== '*' && armed.name !== name)) return null
  if ((armed.action.kind === 'throw') !== throws) return null
  armed.passesLeft -= 1
  if (armed.passesLeft !== 0) return null
  if (file !== null) rmSync(file, { force: true })
  return armed.action
}

/** Passes are counted for as long as the file says the same. */
function rearm(path: string): ArmedFault | null {
  let text: string
  try {
    text = readFileSync(path, 'utf8')
  } catch {
    return null
  }
  // Whoever arms it has made the file and not yet written to it: every thread looks at each of its passes.
  if (text === '') return null
  return armed?.text === text && armed.passesLeft > 0 ? armed : armFault(text)
}

function armFault(text: string): ArmedFault {
  const groups = SHAPE.exec(text)?.groups
  assert(groups !== undefined, `INTERLOCKD_FAULT_POINT is NAME[@N]:kill|stop|throw|sleep=MS, and not ${text}`)
  const { name = '', pass = '1', action, durationMs = '0' } = groups
  const kind = action === 'kill' || action === 'stop' || action === 'throw' ? action : null
  return {
    text,
    name,
    passesLeft: Number(pass),
    action: kind === null ? { kind: 'sleep', durationMs: Number(durationMs) } : { kind },
  }
}
