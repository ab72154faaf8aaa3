/**
 * The images of the container tests, made on the spot and without any registry: a base of Debian and the Node that runs
 * the tests, and docker/Dockerfile on top of it. The build takes this checkout's node_modules along, so it needs no
 * network either.
 */

import { copyFileSync, cpSync, mkdirSync, realpathSync, writeFileSync } from 'node:fs'
import { dirname, join } from 'node:path'
import { requirePeer } from '../../scripts/peers.mjs'
import type { ContainerEngine } from './container-engine.ts'
import { folderOnDisk } from './container-engine.ts'
import { PROJECT } from './controlled-daemon.ts'
import { debianTree } from './debian-tree.ts'
import { runChecked } from './foreign-program.ts'
import type { Scratch } from './scratch.ts'

export interface ContainerImages {
  /** What docker/Dockerfile makes. */
  readonly interlockd: string
  /** Its first stage: the checkout with all that is needed to work on it. */
  readonly checkout: string
  /** Debian with clients of NBD that are not ours. */
  readonly clients: string
}

const BUILD_TIMEOUT_MS = 600_000
/** Not what git knows, but for the dependencies. */
const NOT_SENT = ['.git', '.dockerignore', '.cache', 'coverage', 'dist']

export async function buildImages(scratch: Scratch, engine: ContainerEngine): Promise<ContainerImages> {
  const clients = engine.name('debian')
  const labelled = ['--change', `LABEL ${engine.label[1]}`]
  await engine.ask(['import', ...labelled, await debianTree(), clients], { timeoutMs: BUILD_TIMEOUT_MS })
  const base = await buildBase(scratch, engine, clients)
  const checkout = await buildStage(engine, base, engine.name('checkout'), ['--target', 'build'])
  const interlockd = await buildStage(engine, base, engine.name('interlockd'), [])
  return { interlockd, checkout, clients }
}

/** Node and npm on top of Debian, as the images of Node have them. */
async function buildBase(scratch: Scratch, engine: ContainerEngine, debian: string): Promise<string> {
  const tag = engine.name('node')
  const context = folderOnDisk(scratch, 'base')
  copyFileSync(process.execPath, join(context, 'node'))
  mkdirSync(join(context, 'npm'))
  cpSync(npmFolder(), join(context, 'npm'), { recursive: true })
  const lines = [
    `FROM ${debian}`,
    'COPY node /usr/local/bin/node',
    'COPY npm /usr/local/lib/node_modules/npm',
    'RUN ln -s ../lib/node_modules/npm/bin/npm-cli.js /usr/local/bin/npm && node --version',
  ]
  writeFileSync(join(context, 'Dockerfile'), `${lines.join('\n')}\n`)
  await engine.ask(['build', '--quiet', ...engine.label, '--tag', tag, context], { timeoutMs: BUILD_TIMEOUT_MS })
  return tag
}

function npmFolder(): string {
  const entry = process.env['npm_execpath'] ?? ''
  return dirname(dirname(entry.endsWith('npm-cli.js') ? realpathSync(entry) : realpathSync(requirePeer('npm'))))
}

async function buildStage(
  engine: ContainerEngine,
  base: string,
  tag: string,
  words: readonly string[],
): Promise<string> {
  const exclusions = NOT_SENT.map((name) => `--exclude=./${name}`)
  const build = 'tar -C "$0" "$@" -c . | docker build --quiet --file docker/Dockerfile $BUILD_WORDS -'
  const asked = ['--tag', tag, ...engine.label, '--build-arg', `BASE_IMAGE=${base}`, ...words]
  await runChecked('bash', ['-o', 'pipefail', '-c', build, PROJECT, ...exclusions], {
    timeoutMs: BUILD_TIMEOUT_MS,
    environment: { ...engine.environment, BUILD_WORDS: asked.join(' ') },
  })
  return tag
}
