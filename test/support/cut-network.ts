/**
 * A network namespace with one cable to the host, which can be cut in silence: frames then go to nobody's address, in both
 * directions, and nothing comes back, no refusal either. Nothing that is sent ever leaves the two ends.
 */

import { requirePeer } from '../../scripts/peers.mjs'
import { runChecked, runProgram } from './foreign-program.ts'
import type { Scratch } from './scratch.ts'

const NOBODY = '02:00:00:00:00:01'

export interface CutNetwork {
  /** Of the host's end. */
  readonly address: string
  /** Runs what follows it in the namespace. */
  readonly wrapper: readonly string[]
  cut(): Promise<void>
  mend(): Promise<void>
}

export async function makeCutNetwork(scratch: Scratch): Promise<CutNetwork> {
  const ip = requirePeer('ip')
  const checked = async (...words: string[]): Promise<string> => (await runChecked(ip, words)).stdout
  const number = process.pid % 250
  const [name, outer, inner] = [`interlock${process.pid}`, `ilh${process.pid}`, `iln${process.pid}`]
  const [address, innerAddress] = [`10.213.${number}.1`, `10.213.${number}.2`]
  await checked('netns', 'add', name)
  scratch.defer(`network namespace ${name}`, async () => {
    await runProgram(ip, ['netns', 'del', name])
    // Gone with the namespace, only not at once.
    await runProgram(ip, ['link', 'del', outer])
  })
  await checked('link', 'add', outer, 'type', 'veth', 'peer', 'name', inner, 'netns', name)
  await checked('addr', 'add', `${address}/30`, 'dev', outer)
  await checked('link', 'set', outer, 'up')
  await checked('-n', name, 'addr', 'add', `${innerAddress}/30`, 'dev', inner)
  await checked('-n', name, 'link', 'set', inner, 'up')
  await checked('-n', name, 'link', 'set', 'lo', 'up')
  const hardwareOf = (said: string): string => (JSON.parse(said) as { address: string }[])[0]?.address ?? ''
  const [outerHardware, innerHardware] = [
    hardwareOf(await checked('-j', 'link', 'show', outer)),
    hardwareOf(await checked('-n', name, '-j', 'link', 'show', inner)),
  ]
  const lead = async (toOuter: string, toInner: string): Promise<void> => {
    const fixed = (hardware: string, device: string): string[] => [
      'lladdr',
      hardware,
      'nud',
      'permanent',
      'dev',
      device,
    ]
    await checked('-n', name, 'neigh', 'replace', address, ...fixed(toOuter, inner))
    await checked('neigh', 'replace', innerAddress, ...fixed(toInner, outer))
  }
  return {
    address,
    wrapper: [ip, 'netns', 'exec', name],
    cut: () => lead(NOBODY, NOBODY),
    mend: () => lead(outerHardware, innerHardware),
  }
}
