/**
 * A run of the daemon as far as its state directory knows: it is there, names a holder, and lives until it is killed.
 */

import { setInterval } from 'node:timers'
import { perform } from '../../dist/blocking/calls.js'
import { LocalHost } from '../../dist/ownership/local-host.js'

const runner = { run: (call) => Promise.resolve(perform(call)) }
const [state] = process.argv.slice(2)

const host = await LocalHost.establish(state, runner)
console.log(`holder ${JSON.stringify(await host.newHolder())}`)
setInterval(() => undefined, 1000)
