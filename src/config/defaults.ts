/**
 * Where things are when nobody says: the system's folders for root, the folders of the XDG base directory specification
 * for everybody else. A folder that cannot be known is a problem for the operator, never a guess in /tmp.
 */

import { join } from 'node:path'
import { isEndpoint, parseEndpoint } from '../foundation/endpoint.ts'
import type { Endpoint } from '../foundation/endpoint.ts'
import type { FencingConfiguration } from './configuration.ts'
import type { Environment } from './environment.ts'

/** What the process was started with; given, not read, so that tests can be somebody else. */
export interface Host {
  readonly environment: Environment
  readonly userId: number
  readonly workingDirectory: string
}

export const SYSTEM_CONTROL_SOCKET = '/run/interlockd/control.sock'
export const SYSTEM_STATE_DIRECTORY = '/var/lib/interlockd'

export const defaultListen: readonly Endpoint[] = [{ scheme: 'tcp', host: '127.0.0.1', port: 10_809 }]

export const DEFAULT_FENCING: FencingConfiguration = {
  command: null,
  timeoutMs: 60_000,
  options: {},
  plugs: {},
  rebootIsProof: false,
}

export const DEFAULT_ETCD = { prefix: '/interlockd/', timeoutMs: 10_000 } as const

export function hostOfThisProcess(): Host {
  return { environment: process.env, userId: process.getuid?.() ?? 0, workingDirectory: process.cwd() }
}

export function defaultControl(host: Host, problems: string[]): readonly Endpoint[] {
  const path = controlSocketPath(host)
  if (path === undefined) {
    problems.push('control: XDG_RUNTIME_DIR is not set, so there is no default: give --control URL')
    return []
  }
  const endpoint = parseEndpoint(`unix:${path}`)
  if (isEndpoint(endpoint)) return [endpoint]
  problems.push(`control: ${endpoint.problem}: give --control URL`)
  return []
}

/** The socket that a daemon of this user listens on by default; undefined where the environment does not tell. */
export function controlSocketPath(host: Host): string | undefined {
  if (host.userId === 0) return SYSTEM_CONTROL_SOCKET
  const runtime = absolute(host.environment['XDG_RUNTIME_DIR'])
  return runtime === undefined ? undefined : join(runtime, 'interlockd', 'control.sock')
}

export function defaultStateDirectory(host: Host, problems: string[]): string {
  if (host.userId === 0) return SYSTEM_STATE_DIRECTORY
  const state = absolute(host.environment['XDG_STATE_HOME'])
  if (state !== undefined) return join(state, 'interlockd')
  const home = absolute(host.environment['HOME'])
  if (home !== undefined) return join(home, '.local', 'state', 'interlockd')
  problems.push('state_directory: neither XDG_STATE_HOME nor HOME is set: give --state-directory PATH')
  return ''
}

/** The specification says that a relative path in these variables is to be ignored. */
function absolute(path: string | undefined): string | undefined {
  return path?.startsWith('/') === true ? path : undefined
}
