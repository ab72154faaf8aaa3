/**
 * How the tests run: in groups, one after the other, so that what measures time or starts virtual machines has the
 * machine to itself. A folder of test/ that is not named here belongs to `process`.
 */

import { defineConfig } from 'vitest/config'

/** No I/O to speak of, nothing to build: tested from src/. */
const PURE_FOLDERS = [
  'config',
  'fault-points',
  'foundation',
  'fuzz',
  'interlock',
  'nbd',
  'plane-link',
  'simulation',
  'vectors',
]
const FOREIGN_FOLDERS = ['peers', 'preflight', 'fleet', 'migration', 'xen', 'docker']

const filesOf = (folders: readonly string[]): string[] => folders.map((folder) => `test/${folder}/**/*.test.ts`)

interface Group {
  readonly name: string
  readonly include: string[]
  readonly exclude?: string[]
  readonly builds: boolean
  /** Runs before the group's files, after the build. */
  readonly setup?: string
  readonly filesAtOnce: 1 | 2 | 3
  readonly testTimeout: number
  /** Groups run in this order. */
  readonly groupOrder: number
}

const group = ({ name, include, exclude, builds, setup, filesAtOnce, testTimeout, groupOrder }: Group) => ({
  extends: true as const,
  test: {
    name,
    include,
    exclude: exclude ?? [],
    globalSetup: [...(builds ? ['test/support/global-setup.ts'] : []), ...(setup === undefined ? [] : [setup])],
    pool: 'forks' as const,
    maxWorkers: filesAtOnce,
    testTimeout,
    hookTimeout: testTimeout,
    sequence: { groupOrder },
  },
})

export default defineConfig({
  test: {
    allowOnly: false,
    passWithNoTests: false,
    retry: 0,
    tags: [{ name: 'slow', description: 'Takes seconds and says nothing about the version of Node.' }],
    coverage: {
      provider: 'v8',
      include: ['src/foundation/**', 'src/nbd/**', 'src/interlock/**', 'src/config/**'],
      reporter: ['text', 'html'],
    },
    projects: [
      group({
        name: 'style',
        include: filesOf(['style']),
        builds: false,
        filesAtOnce: 2,
        testTimeout: 60_000,
        groupOrder: 0,
      }),
      group({
        name: 'pure',
        include: filesOf(PURE_FOLDERS),
        builds: false,
        filesAtOnce: 2,
        testTimeout: 60_000,
        groupOrder: 1,
      }),
      group({
        name: 'process',
        include: ['test/**/*.test.ts'],
        exclude: filesOf(['style', ...PURE_FOLDERS, ...FOREIGN_FOLDERS]),
        builds: true,
        // Most of their time they wait for a disk, a peer or a process.
        filesAtOnce: 3,
        testTimeout: 180_000,
        groupOrder: 2,
      }),
      group({
        name: 'peers',
        include: filesOf(['peers']),
        builds: true,
        filesAtOnce: 1,
        testTimeout: 180_000,
        groupOrder: 3,
      }),
      group({
        name: 'preflight',
        include: filesOf(['preflight']),
        builds: true,
        filesAtOnce: 1,
        testTimeout: 180_000,
        groupOrder: 4,
      }),
      group({
        name: 'fleet',
        include: filesOf(['fleet']),
        builds: true,
        filesAtOnce: 2,
        testTimeout: 300_000,
        groupOrder: 5,
      }),
      group({
        name: 'migration',
        include: filesOf(['migration']),
        builds: true,
        filesAtOnce: 1,
        testTimeout: 600_000,
        groupOrder: 6,
      }),
      group({
        name: 'xen',
        include: filesOf(['xen']),
        builds: true,
        filesAtOnce: 1,
        testTimeout: 180_000,
        groupOrder: 7,
      }),
      group({
        name: 'docker',
        include: filesOf(['docker']),
        builds: true,
        setup: 'test/docker/container-setup.ts',
        filesAtOnce: 1,
        testTimeout: 600_000,
        groupOrder: 8,
      }),
    ],
  },
})
