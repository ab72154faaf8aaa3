/**
 * Named places between durable steps, where a test can have the process die, stop or wait. Unless the environment names
 * one (INTERLOCKD_FAULT_POINT=NAME[@N]:kill|stop|sleep=MS), all of them are nothing: they cost one comparison. A point is
 * hit each time it is passed; `@N` picks the Nth time. It is for tests of crashes only and changes nothing by itself.
 */

import { assert } from './assert.ts'

type FaultAction = { readonly kind: 'kill' | 'stop' } | { readonly kind: 'sleep'; readonly durationMs: number }

interface ArmedFault {
  readonly name: string
  /** Passes that are left until it happens. */
  passesLeft: number
  readonly action: FaultAction
}

const SHAPE = /^(?<name>[^@]+?)(?:@(?<pass>\d+))?:(?<action>kill|stop|sleep=(?<durationMs>\d+))$/

const armed = armFault(process.env['INTERLOCKD_FAULT_POINT'])

export async function faultPoint(name: string): Promise<void> {
  if (armed?.name !== name) return
  armed.passesLeft -= 1
  if (armed.passesLeft !== 0) return
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

function armFault(text: string | undefined): ArmedFault | null {
  if (text === undefined || text === '') return null
  const groups = SHAPE.exec(text)?.groups
  assert(groups !== undefined, `INTERLOCKD_FAULT_POINT is NAME[@N]:kill|stop|sleep=MS, and not ${text}`)
  const { name = '', pass = '1', action, durationMs = '0' } = groups
  const kind = action === 'kill' || action === 'stop' ? action : null
  return {
    name,
    passesLeft: Number(pass),
    action: kind === null ? { kind: 'sleep', durationMs: Number(durationMs) } : { kind },
  }
}
