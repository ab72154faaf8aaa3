/**
 * Who may import whom. The table below is the architecture: a folder that is not named in a row may not be imported
 * there, and what is absent is as deliberate as what is present. Imports run down only; the control plane and the data
 * plane meet nowhere but in the messages of plane-link; the protocol and the interlock's rules do no I/O at all.
 */

import { dirname, join } from 'node:path/posix'
import { describe, expect, test } from 'vitest'
import { isTypeScript, projectFiles } from './project-files.ts'
import type { ProjectFile } from './project-files.ts'
import { importsOf } from './source-tree.ts'
import type { ImportEdge } from './source-tree.ts'

interface Layer {
  /** Folders (or single files, without ending) of src/. `:types` after one: only `import type`. `:worker`: only as the
   * entry of a thread. `*` is any folder. */
  readonly own: readonly string[]
  /** npm packages; `koffi` is nobody's but posix's and io-uring's. */
  readonly packages?: readonly string[]
  /** Node's modules. Absent: none. */
  readonly node?: 'any' | readonly string[]
}

const LAYERS: Readonly<Record<string, Layer>> = {
  // Pure: no I/O, no clock, no randomness.
  foundation: { own: [] },
  nbd: { own: ['foundation'] },
  interlock: { own: ['foundation'] },

  // The machine below us.
  posix: { own: ['foundation'], packages: ['koffi'], node: 'any' },
  blocking: { own: ['foundation', 'posix'], node: 'any' },
  'engine/io-uring': { own: ['engine', 'foundation', 'posix'], packages: ['koffi'], node: 'any' },
  engine: { own: ['foundation', 'posix', 'blocking'], node: 'any' },

  // Orders and reports, and the main thread's end of them, which starts the workers.
  'plane-link': {
    own: ['foundation', 'interlock:types', 'posix', 'blocking', 'data/worker:worker'],
    node: ['node:worker_threads'],
  },

  // The data plane.
  data: {
    own: ['fault-points', 'foundation', 'interlock', 'nbd', 'engine', 'plane-link', 'posix'],
    node: ['node:worker_threads', 'node:perf_hooks'],
  },

  // The control plane.
  config: {
    own: ['foundation', 'exports/verbs:types', 'interlock:types', 'plane-link:types'],
    packages: ['commander', 'smol-toml'],
    node: ['node:fs', 'node:os', 'node:path', 'node:util'],
  },
  // Where tests have a process die, between the durable steps of whoever names them.
  'fault-points': { own: ['foundation'], node: ['node:fs'] },
  ownership: { own: ['fault-points', 'foundation', 'interlock', 'posix', 'blocking'], node: 'any' },
  exports: {
    own: [
      ...['fault-points', 'foundation', 'interlock', 'plane-link', 'ownership', 'posix', 'blocking', 'config/limits'],
      // The registry is the catalogue that negotiation asks: it says in the protocol's words what an export offers.
      ...['nbd/export-catalogue:types', 'nbd/transmission-flags'],
    ],
    node: 'any',
  },
  intake: { own: ['foundation', 'nbd', 'posix', 'config/limits'], node: 'any' },
  control: {
    // Its sockets are claimed as those of NBD are.
    own: ['foundation', 'exports/verbs', 'interlock', 'config/limits', 'intake/socket-path'],
    packages: ['@fastify/swagger', '@fastify/type-provider-typebox', 'fastify', 'prom-client', 'typebox'],
    node: 'any',
  },

  // Whoever talks to a daemon from outside.
  client: { own: ['foundation', '*:types'], node: 'any' },
  handover: { own: ['client', 'fault-points', 'foundation'], node: 'any' },
  cli: {
    own: [
      'client',
      'config',
      'daemon',
      'foundation',
      'handover',
      'local-check',
      'local-record',
      'posix/process',
      'record-move',
    ],
    packages: ['commander', 'pino', 'pino-pretty'],
    node: 'any',
  },
}

/** Files directly in src/: the composition root and the library's face see everything. */
const ROOT_PACKAGES = ['pino', 'pino-pretty']

const allSources = projectFiles('src').filter((file) => isTypeScript(file.path))

/** The row for a file: the longest folder that is named. Undefined for files directly in src/. */
function layerOf(path: string): string | undefined {
  const folders = Object.keys(LAYERS).filter((name) => path.startsWith(`src/${name}/`))
  return folders.sort((one, other) => other.length - one.length)[0]
}

/** src/… of a relative specifier; a worker is named by what tsc makes of it. */
function targetOf(file: ProjectFile, specifier: string): string {
  return join(dirname(file.path), specifier).replace(/\.js$/u, '.ts')
}

/** What the file imports that it may not, in words. */
function violationsOf(file: ProjectFile): string[] {
  const name = layerOf(file.path)
  return violationsUnder(name, name === undefined ? undefined : LAYERS[name], file)
}

function violationsUnder(name: string | undefined, layer: Layer | undefined, file: ProjectFile): string[] {
  const violations: string[] = []
  for (const { specifier, kind, line } of importsOf(file)) {
    const complain = (why: string): void => {
      violations.push(`${file.path}:${line} imports ${specifier}: ${why}`)
    }
    if (specifier.startsWith('.')) {
      const target = targetOf(file, specifier)
      if (!target.startsWith('src/')) {
        if (!target.endsWith('package.json')) complain('that is not part of the program')
      } else if (layer !== undefined && name !== undefined && !mayImport(name, layer, target, kind)) {
        complain(`${name} may import only ${['itself', ...layer.own].join(', ')}`)
      }
    } else if (specifier.startsWith('node:')) {
      const allowed = layer === undefined ? 'any' : (layer.node ?? [])
      if (allowed !== 'any' && !allowed.includes(specifier)) complain(`${String(name)} may not use that module of Node`)
    } else {
      const allowed = layer === undefined ? ROOT_PACKAGES : (layer.packages ?? [])
      const packageName = specifier.split('/', specifier.startsWith('@') ? 2 : 1).join('/')
      if (!allowed.includes(packageName)) complain(`${name ?? 'src'} may not use that package`)
    }
  }
  return violations
}

function mayImport(name: string, layer: Layer, target: string, kind: ImportEdge['kind']): boolean {
  if (target.startsWith(`src/${name}/`)) return true
  return layer.own.some((permission) => {
    const [place = '', only] = permission.split(':')
    if (only !== undefined && only !== (kind === 'type' ? 'types' : kind)) return false
    return place === '*' || target.startsWith(`src/${place}/`) || target === `src/${place}.ts`
  })
}

/** The files that a file brings along at run time, itself included. */
function reachableFrom(start: ProjectFile, files: ReadonlyMap<string, ProjectFile>): Set<string> {
  const reached = new Set<string>()
  const waiting = [start]
  for (let file = waiting.pop(); file !== undefined; file = waiting.pop()) {
    if (reached.has(file.path)) continue
    reached.add(file.path)
    for (const { specifier, kind } of importsOf(file)) {
      if (kind !== 'value' || !specifier.startsWith('.')) continue
      const target = files.get(targetOf(file, specifier))
      if (target !== undefined) waiting.push(target)
    }
  }
  return reached
}

/** Circles of imports that exist at run time, each as the path that closes it. */
function circles(files: ReadonlyMap<string, ProjectFile>): string[] {
  const done = new Set<string>()
  const found: string[] = []
  const visit = (file: ProjectFile, trail: readonly string[]): void => {
    if (trail.includes(file.path)) found.push([...trail.slice(trail.indexOf(file.path)), file.path].join(' -> '))
    if (trail.includes(file.path) || done.has(file.path)) return
    for (const { specifier, kind } of importsOf(file)) {
      const target = files.get(targetOf(file, specifier))
      if (kind === 'value' && specifier.startsWith('.') && target !== undefined) visit(target, [...trail, file.path])
    }
    done.add(file.path)
  }
  for (const file of files.values()) visit(file, [])
  return found
}

const byPath = (files: readonly ProjectFile[]): Map<string, ProjectFile> =>
  new Map(files.map((file) => [file.path, file]))

describe('layers', () => {
  test('there are files to look at, with imports in them', () => {
    expect(allSources.length).toBeGreaterThan(20)
    expect(allSources.flatMap(importsOf).length).toBeGreaterThan(allSources.length)
  })

  test('every folder of src/ has a row', () => {
    const strangers = allSources.filter((file) => file.path.split('/').length > 2 && layerOf(file.path) === undefined)
    expect(strangers.map((file) => file.path)).toEqual([])
  })

  test('every import is one that the table allows', () => {
    expect(allSources.flatMap(violationsOf)).toEqual([])
  })

  test('every permission that could be used is used', () => {
    expect(unusedPermissions(allSources)).toEqual([])
  })

  test('every relative import names a file that exists', () => {
    const files = byPath(allSources)
    const lost = allSources.flatMap((file) =>
      importsOf(file)
        .filter(({ specifier }) => specifier.startsWith('.') && targetOf(file, specifier).startsWith('src/'))
        .filter(({ specifier }) => !files.has(targetOf(file, specifier)))
        .map(({ specifier, line }) => `${file.path}:${line} ${specifier}`),
    )
    expect(lost).toEqual([])
  })

  test('nothing imports in a circle', () => {
    expect(circles(byPath(allSources))).toEqual([])
  })

  test('control and data never meet, not even by a third file', () => {
    const files = byPath(allSources)
    const reachedBy = (plane: string, other: string): string[] =>
      allSources
        .filter((file) => file.path.startsWith(`src/${plane}/`))
        .filter((file) => [...reachableFrom(file, files)].some((path) => path.startsWith(`src/${other}/`)))
        .map((file) => file.path)
    expect(reachedBy('control', 'data')).toEqual([])
    expect(reachedBy('data', 'control')).toEqual([])
  })

  test('what is pure brings along only what is pure', () => {
    const files = byPath(allSources)
    const pure = ['foundation', 'interlock', 'nbd']
    const impure = allSources
      .filter((file) => pure.some((folder) => file.path.startsWith(`src/${folder}/`)))
      .flatMap((file) => [...reachableFrom(file, files)])
      .filter((path) => !pure.some((folder) => path.startsWith(`src/${folder}/`)))
    expect(impure).toEqual([])
  })
})

/** Permissions of the table that no file makes use of: they would let something in one day without a word. */
function unusedPermissions(files: readonly ProjectFile[]): string[] {
  return Object.entries(LAYERS).flatMap(([name, layer]) => {
    const own = files.filter((file) => layerOf(file.path) === name)
    if (own.length === 0) return []
    const uses = (allowed: Layer): boolean => own.some((file) => violationsUnder(name, allowed, file).length > 0)
    const packages = layer.packages ?? []
    const exists = (permission: string): boolean => {
      const place = permission.replace(/:.*/u, '')
      return place === '*' || files.some(({ path }) => path.startsWith(`src/${place}/`) || path === `src/${place}.ts`)
    }
    return [
      ...layer.own
        .filter(exists)
        .filter((permission) => !uses({ ...layer, own: layer.own.filter((other) => other !== permission) }))
        .map((permission) => `${name}: ${permission}`),
      ...packages
        .filter((permission) => !uses({ ...layer, packages: packages.filter((other) => other !== permission) }))
        .map((permission) => `${name}: ${permission}`),
    ]
  })
}

describe('the check itself', () => {
  const violations = (path: string, text: string): number => violationsOf({ path, text }).length

  test.each([
    ['src/nbd/reply.ts', "import { Socket } from 'node:net'"],
    ['src/interlock/gate.ts', "import type { Engine } from '../engine/contract.ts'"],
    ['src/data/worker.ts', "import { routes } from '../control/routes.ts'"],
    ['src/control/server.ts', "export { turn } from '../data/turn.ts'"],
    ['src/control/server.ts', "export * from '../exports/registry.ts'"],
    ['src/plane-link/orders.ts', "import { turn } from '../data/worker.ts'"],
    ['src/plane-link/orders.ts', "import { Gate } from '../interlock/gate.ts'"],
    ['src/exports/registry.ts', "const turn = await import('../data/turn.ts')"],
    ['src/control/server.ts', "new Worker(new URL('../data/worker.js', import.meta.url))"],
    ['src/client/index.ts', "import { Registry } from '../exports/registry.ts'"],
    ['src/handover/handover.ts', "import type { Receipt } from '../interlock/receipt.ts'"],
    ['src/engine/file/queue.ts', "import koffi from 'koffi'"],
    ['src/data/turn.ts', "import { readFile } from 'node:fs'"],
    ['src/posix/file.ts', "import { rig } from '../../test/support/rig.ts'"],
    ['src/daemon.ts', "import fastify from 'fastify'"],
  ])('refuses in %s: %s', (path, text) => {
    expect(violations(path, text)).toBe(1)
  })

  test.each([
    ['src/plane-link/orders.ts', "import type { Range } from '../interlock/range.ts'"],
    ['src/plane-link/data-worker.ts', "new Worker(new URL('../data/worker.js', import.meta.url))"],
    ['src/control/server.ts', "import type { Verbs } from '../exports/verbs.ts'"],
    ['src/engine/io-uring/ring.ts', "import koffi from 'koffi'"],
    ['src/engine/file/queue.ts', "import type { Engine } from '../contract.ts'"],
    ['src/client/index.ts', "import type { ExportStatus } from '../exports/verbs.ts'"],
    ['src/nbd/reply.ts', "// import { Socket } from 'node:net'"],
    ['src/daemon.ts', "import { control } from './control/server.ts'"],
  ])('accepts in %s: %s', (path, text) => {
    expect(violations(path, text)).toBe(0)
  })

  test('sees a permission that nobody uses', () => {
    const text = "import type { Hold } from '../interlock/range.ts'"
    const unused = unusedPermissions([
      { path: 'src/plane-link/orders.ts', text },
      { path: 'src/interlock/range.ts', text: '' },
      { path: 'src/foundation/assert.ts', text: '' },
    ])
    expect(unused).toEqual(['interlock: foundation', 'plane-link: foundation'])
  })

  test('sees a circle, and a meeting by a third file', () => {
    const files = byPath([
      { path: 'src/control/a.ts', text: "import { b } from '../exports/b.ts'" },
      { path: 'src/exports/b.ts', text: "import { c } from '../data/c.ts'" },
      { path: 'src/data/c.ts', text: "import { b } from '../exports/b.ts'" },
    ])
    expect(circles(files)).toEqual(['src/exports/b.ts -> src/data/c.ts -> src/exports/b.ts'])
    const start = files.get('src/control/a.ts')
    expect(start !== undefined && [...reachableFrom(start, files)]).toContain('src/data/c.ts')
  })
})
