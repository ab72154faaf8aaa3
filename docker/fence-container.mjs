#!/usr/bin/env node
/**
 * A fence agent for hosts that are containers of one engine: it stops the container named by `plug=`, without any grace,
 * and is content only when the engine says that it neither runs nor is about to be started again. It speaks the convention
 * of the fence agents: options on standard input, exit status 0 when the host is off, anything else when nothing is known.
 *
 * Options: plug=CONTAINER, action=off, socket=PATH (default /var/run/docker.sock). Whoever holds that socket is root on
 * the engine's machine: give it to nobody who is not.
 */

import { request } from 'node:http'
import { text } from 'node:stream/consumers'
import { setTimeout as sleep } from 'node:timers/promises'

const options = Object.fromEntries(
  (await text(process.stdin))
    .split('\n')
    .filter((line) => line.includes('='))
    .map((line) => [line.slice(0, line.indexOf('=')), line.slice(line.indexOf('=') + 1)]),
)

function ask(method, path) {
  return new Promise((resolve, reject) => {
    const asked = request(
      { socketPath: options.socket ?? '/var/run/docker.sock', method, path, agent: false },
      async (answer) => {
        resolve({ status: answer.statusCode, body: await text(answer) })
      },
    )
    asked.on('error', reject)
    asked.end()
  })
}

/** Stopped by the engine's own word: then its restart policy leaves it alone. */
async function switchOff(plug) {
  const container = `/containers/${encodeURIComponent(plug)}`
  for (;;) {
    const stopped = await ask('POST', `${container}/stop?t=0`)
    if (stopped.status === 404) throw new Error(`the engine knows no container ${plug}: that proves nothing`)
    const { status, body } = await ask('GET', `${container}/json`)
    if (status !== 200) throw new Error(`the engine does not say how ${plug} is: ${status} ${body.trim()}`)
    const { Running: running, Restarting: restarting, Paused: paused, Pid: pid } = JSON.parse(body).State
    if (!running && !restarting && !paused && pid === 0) return
    await sleep(200)
  }
}

try {
  if (options.action !== 'off') throw new Error(`action=${options.action} is not served`)
  if (options.plug === undefined || options.plug === '') throw new Error('plug= names no container')
  await switchOff(options.plug)
  console.log(`container ${options.plug} is off`)
} catch (error) {
  console.error(error.message)
  process.exitCode = 1
}
