/**
 * docker/compose.yaml as its reader runs it: one command, and the exit status is the verdict. Every compose that is on
 * this machine must understand the file; the oldest one that is promised runs it.
 */

import { expect, inject, test } from 'vitest'
import { requirePeer } from '../../scripts/peers.mjs'
import { PROJECT } from '../support/controlled-daemon.ts'
import { runChecked, runProgram } from '../support/foreign-program.ts'
import { scratchOfTest } from '../support/temporary-directory.ts'
import { engineOfRun } from './host-pair.ts'

test('one command shows a handover under load, and its exit status is the verdict', async () => {
  const scratch = scratchOfTest()
  const engine = engineOfRun()
  const { interlockd, checkout } = inject('containerImages')
  const environment = {
    ...engine.environment,
    INTERLOCKD_IMAGE: interlockd,
    INTERLOCKD_CHECKOUT_IMAGE: checkout,
    COMPOSE_PROJECT_NAME: engine.name('compose'),
  }
  const options = { directory: PROJECT, environment, timeoutMs: 300_000 }
  const file = ['--file', 'docker/compose.yaml']
  const second = await runProgram(requirePeer('docker'), ['compose', 'version'], options)
  if (second.status === 0) await runChecked('docker', ['compose', ...file, 'config', '--quiet'], options)
  const compose = requirePeer('docker-compose')
  scratch.defer('what compose made', async () => {
    await runChecked(compose, [...file, 'down', '--volumes', '--timeout', '5'], options)
  })
  const { status, stdout, stderr } = await runProgram(
    compose,
    [...file, 'up', '--no-color', '--exit-code-from', 'client'],
    options,
  )
  const said = `${stdout}${stderr}`
  expect(said).toContain('orchestrator: the disk is open at the destination')
  expect(said).toMatch(/client.*goes on at destination; \d+ unanswered writes are sent again/u)
  expect(said).toContain('VERDICT: nothing lost.')
  expect(status).toBe(0)
})
