/**
 * The program `interlockd`: parse, build, run. Its standard output carries what was asked for (help, version, the verdict
 * on a file); everything else goes to standard error. Wrong usage or configuration ends with status 2.
 */

import { parseArgv } from '../config/argv.ts'
import type { Invocation } from '../config/argv.ts'
import { ConfigurationError } from '../config/configuration.ts'
import { hostOfThisProcess } from '../config/defaults.ts'
import { checkConfigurationFile, loadConfiguration } from '../config/load.ts'
import { makeLog, writeLine } from './log.ts'
import { programVersion } from './program-version.ts'

const FAILED = 1
const USAGE = 2

async function main(): Promise<void> {
  const host = hostOfThisProcess()
  const invocation = parseArgv(process.argv.slice(2), programVersion(), host.workingDirectory)
  switch (invocation.kind) {
    case 'print':
      process.stdout.write(invocation.text)
      return
    case 'usage':
      writeLine(`interlockd: ${invocation.problem}\n`)
      process.exitCode = USAGE
      return
    case 'check-config':
      checkConfig(invocation.file)
      return
    case 'run':
      await run(invocation)
  }
}

function checkConfig(file: string): void {
  try {
    const { exports } = checkConfigurationFile(file, hostOfThisProcess())
    process.stdout.write(`${file} is well formed: ${exports.length === 1 ? '1 export' : `${exports.length} exports`}\n`)
  } catch (error) {
    refuse(error, FAILED)
  }
}

async function run({ settings, file }: Extract<Invocation, { kind: 'run' }>): Promise<void> {
  const host = hostOfThisProcess()
  const load = () => loadConfiguration(settings, file, host)
  let loaded: ReturnType<typeof load>
  try {
    loaded = load()
  } catch (error) {
    refuse(error, USAGE)
    return
  }
  const { configuration, warnings } = loaded
  const log = await makeLog(configuration.log.level, configuration.log.format)
  for (const warning of warnings) log.warn(warning)
  // Only now: a verdict on a file needs neither the HTTP server nor the calls of the kernel.
  const { runDaemon } = await import('./run-daemon.ts')
  await runDaemon(configuration, log, () => load().configuration)
}

function refuse(error: unknown, exitCode: number): void {
  if (!(error instanceof ConfigurationError)) throw error
  for (const problem of error.problems) writeLine(`interlockd: ${problem}\n`)
  process.exitCode = exitCode
}

await main()
