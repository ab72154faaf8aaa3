/**
 * Runs the quick tests on the other versions of Node that the project promises: the same build, the same dependencies,
 * another `node`. The binaries come from npm's `node-linux-ARCH` packages and stay in a cache.
 *
 * Usage: node scripts/node-versions.mjs [VERSION...]     (default: every promised version but the running one)
 */

import { execFileSync } from 'node:child_process'
import { existsSync, mkdirSync, mkdtempSync, readdirSync, renameSync, rmSync } from 'node:fs'
import { homedir } from 'node:os'
import { join } from 'node:path'
import { build } from './build.mjs'
import { runVitest, summaryLine } from './run-vitest.mjs'

const PROMISED = ['20.19', '22', '24', '26']
/** Not the style of the project, nor what takes its time. */
const QUICK = ['--project=pure', '--project=process', '--tags-filter=!slow']

/** The path of a Node of that major version. */
function fetchNode(version) {
  const cacheHome = process.env.XDG_CACHE_HOME ?? join(homedir(), '.cache')
  const cache = join(cacheHome, 'interlockd', 'node', `${version}-${process.arch}`)
  const binary = join(cache, 'package', 'bin', 'node')
  if (existsSync(binary)) return binary
  mkdirSync(join(cache, '..'), { recursive: true })
  const work = mkdtempSync(`${cache}-`)
  try {
    const specification = `node-linux-${process.arch}@${version}`
    execFileSync('npm', ['pack', '--silent', specification], { cwd: work, stdio: ['ignore', 'ignore', 'inherit'] })
    const archive = readdirSync(work).find((name) => name.endsWith('.tgz'))
    if (archive === undefined) throw new Error(`npm packed no ${specification}`)
    execFileSync('tar', ['-xzf', archive, 'package/bin/node'], { cwd: work, stdio: 'inherit' })
    rmSync(join(work, archive))
    rmSync(cache, { recursive: true, force: true })
    renameSync(work, cache)
  } finally {
    rmSync(work, { recursive: true, force: true })
  }
  return binary
}

const asked = process.argv.slice(2)
const running = process.versions.node.split('.')[0]
const versions = asked.length > 0 ? asked : PROMISED.filter((version) => version.split('.')[0] !== running)
const total = { passed: 0, failed: 0, skipped: 0 }

async function testOn(version) {
  const node = fetchNode(version)
  console.log(`Node ${execFileSync(node, ['--version'], { encoding: 'utf8' }).trim()}`)
  const { passed, failed } = await runVitest(QUICK, { node, environment: { INTERLOCK_BUILT: '1' } })
  total.passed += passed
  total.failed += failed
}

try {
  await build()
  for (const version of versions) {
    await testOn(version).catch((error) => {
      console.error(`Node ${version}: ${error.message}`)
      total.failed++
    })
  }
} catch (error) {
  console.error(error.message)
  total.failed++
}
console.log(summaryLine(total))
process.exitCode = total.failed > 0 ? 1 : 0
