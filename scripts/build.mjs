/**
 * Compiles src/ to dist/, once for everybody who asks at the same time, and not at all when dist/ is already what the
 * sources say. A type error is a failure. Not a bundler: tsc alone decides what is written.
 *
 * Invariant: dist/.built names the sources that dist/ was made of, and is there only while that is true; dist/ holds
 * nothing whose source is gone.
 */

import { spawnSync } from 'node:child_process'
import { createHash } from 'node:crypto'
import { existsSync, mkdirSync, readFileSync, readdirSync, rmSync, writeFileSync } from 'node:fs'
import { createRequire } from 'node:module'
import { dirname, join, relative } from 'node:path'
import { fileURLToPath } from 'node:url'

const ROOT = dirname(dirname(fileURLToPath(import.meta.url)))
const SOURCE = join(ROOT, 'src')
const OUTPUT = join(ROOT, 'dist')
const STAMP = join(OUTPUT, '.built')
const LOCK = join(ROOT, 'node_modules', '.interlockd-build.lock')
const LOCK_PATIENCE_MS = 120_000
/** What tsc makes of one source file. */
const OUTPUT_SUFFIXES = ['.js', '.js.map', '.d.ts']

/** The compiler's path, or undefined where only the production dependencies are installed. */
export function compilerPath() {
  try {
    return createRequire(import.meta.url).resolve('typescript/lib/tsc.js')
  } catch {
    return undefined
  }
}

/** Throws with the compiler's words when something does not compile. */
export async function build() {
  const compiler = compilerPath()
  if (compiler === undefined) throw new Error('the TypeScript compiler is not installed: run `npm ci` first')
  const release = await takeLock()
  try {
    const wanted = fingerprint()
    if (existsSync(STAMP) && readFileSync(STAMP, 'utf8') === wanted) return
    mkdirSync(OUTPUT, { recursive: true })
    rmSync(STAMP, { force: true })
    compile(compiler)
    removeOrphans()
    writeFileSync(STAMP, wanted)
  } finally {
    release()
  }
}

function compile(compiler) {
  const incremental = ['--incremental', '--tsBuildInfoFile', join(OUTPUT, '.tsbuildinfo')]
  const result = spawnSync(process.execPath, [compiler, '-p', 'tsconfig.build.json', ...incremental], {
    cwd: ROOT,
    encoding: 'utf8',
    stdio: ['ignore', 'pipe', 'pipe'],
  })
  if (result.status !== 0) throw new Error(`src/ does not compile:\n${result.stdout}${result.stderr}`)
}

/** Of the content, not of the dates: a checkout makes every date new. */
function fingerprint() {
  const hash = createHash('sha256')
  const inputs = ['package-lock.json', 'tsconfig.json', 'tsconfig.build.json'].map((name) => join(ROOT, name))
  for (const path of [...inputs, ...filesUnder(SOURCE)]) {
    hash.update(`${relative(ROOT, path)}\0`)
    hash.update(readFileSync(path))
    hash.update('\0')
  }
  return `${hash.digest('hex')}\n`
}

function removeOrphans() {
  for (const path of filesUnder(OUTPUT)) {
    const suffix = OUTPUT_SUFFIXES.find((candidate) => path.endsWith(candidate))
    if (suffix === undefined) continue
    const source = join(SOURCE, `${relative(OUTPUT, path).slice(0, -suffix.length)}.ts`)
    if (!existsSync(source)) rmSync(path)
  }
}

function filesUnder(folder) {
  const entries = readdirSync(folder, { recursive: true, withFileTypes: true })
  return entries
    .filter((entry) => entry.isFile())
    .map((entry) => join(entry.parentPath, entry.name))
    .sort()
}

/** One build at a time. The lock of a process that is gone is nobody's. */
async function takeLock() {
  const deadline = Date.now() + LOCK_PATIENCE_MS
  for (;;) {
    try {
      writeFileSync(LOCK, String(process.pid), { flag: 'wx' })
      return () => {
        rmSync(LOCK, { force: true })
      }
    } catch (error) {
      if (error.code !== 'EEXIST') throw error
    }
    if (!lockIsHeld()) rmSync(LOCK, { force: true })
    else if (Date.now() > deadline) throw new Error(`another build holds ${LOCK} for too long`)
    else await new Promise((resolve) => setTimeout(resolve, 50))
  }
}

function lockIsHeld() {
  try {
    const owner = Number(readFileSync(LOCK, 'utf8'))
    // An empty file is being written just now.
    if (owner === 0) return true
    process.kill(owner, 0)
    return true
  } catch (error) {
    return error.code === 'EPERM'
  }
}

if (process.argv[1] === fileURLToPath(import.meta.url)) {
  try {
    await build()
  } catch (error) {
    console.error(error.message)
    process.exitCode = 1
  }
}
