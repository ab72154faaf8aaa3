/**
 * Named places between durable steps, where a test can have the process die, stop or wait. Unless the environment names
 * one (INTERLOCKD_FAULT_POINT=NAME[@N]:kill|stop|sleep=MS), all of them are nothing: they cost one comparison. A point is
 * hit each time it is passed; `@N` picks the Nth time, and `*` stands for every point. A value that begins with a slash
 * is a file to read the fault from, at each pass: it is armed when the file appears, and removes it when it happens. It is
 * for tests of crashes only and changes nothing by itself.
 */

import { readFileSync, unlinkSync } from 'node:fs'
import { assert } from '../foundation/assert.ts'

type FaultAction = { readonly kind: 'kill' | 'stop' } | { readonly kind: 'sleep'; readonly durationMs: number }

interface ArmedFault {
  readonly text: string
  readonly name: string
  /** Passes that are left until it happens. */
  passesLeft: number
  readonly action: FaultAction
}

const SHAPE = /^(?<name>[^@]+?)(?:@(?<pass>\d+))?:(?<action>kill|stop|sleep=(?<durationMs>\d+))$/

const setting = process.env['INTERLOCKD_FAULT_POINT'] ?? ''
const file = setting.startsWith('/') ? setting : null
let armed = file === null && setting !== '' ? armFault(setting) : null

/** Whether any of them may be something. */
export function faultsAreArmed(): boolean {
  return file !== null || armed !== null
}

export async function faultPoint(name: string): Promise<void> {
  if (file !== null) armed = rearm(file)
  if (armed === null || (armed.name !== '*' && armed.name !== name)) return
  armed.passesLeft -= 1
  if (armed.passesLeft !== 0) return
  if (file !== null) unlinkSync(file)
  const { action } = armed
  switch (action.kind) {
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

/** Passes are counted for as long as the file says the same. */
function rearm(path: string): ArmedFault | null {
  let text: string
  try {
    text = readFileSync(path, 'utf8')
  } catch {
    return null
  }
  return armed?.text === text && armed.passesLeft > 0 ? armed : armFault(text)
}

function armFault(text: string): ArmedFault {
  const groups = SHAPE.exec(text)?.groups
  assert(groups !== undefined, `INTERLOCKD_FAULT_POINT is NAME[@N]:kill|stop|sleep=MS, and not ${text}`)
  const { name = '', pass = '1', action, durationMs = '0' } = groups
  const kind = action === 'kill' || action === 'stop' ? action : null
  return {
    text,
    name,
    passesLeft: Number(pass),
    action: kind === null ? { kind: 'sleep', durationMs: Number(durationMs) } : { kind },
  }
}
