import { expect, test } from 'vitest'
import { configurationChanges } from '../../src/config/changes.ts'
import type { Configuration } from '../../src/config/configuration.ts'
import { DEFAULT_FENCING } from '../../src/config/defaults.ts'
import { DEFAULT_OPERATOR_LIMITS } from '../../src/config/limits.ts'
import { completeExport } from '../../src/config/load.ts'

const BEFORE: Configuration = {
  file: '/etc/interlockd.toml',
  stateDirectory: '/var/lib/interlockd',
  engine: 'auto',
  workers: 1,
  listen: [{ scheme: 'unix', path: '/run/n.sock' }],
  control: [{ scheme: 'unix', path: '/run/c.sock' }],
  log: { level: 'info', format: 'json' },
  ownership: { kind: 'directory', directory: null },
  fencing: DEFAULT_FENCING,
  limits: DEFAULT_OPERATOR_LIMITS,
  exports: [completeExport({ name: 'vda', path: '/srv/a' }), completeExport({ name: 'vdb', path: '/srv/b' })],
}
const NOTHING = { logLevel: null, fencing: null, added: [], removed: [], altered: [], fromNextStart: [] }

test('what is equal has no changes, however it came about', () => {
  expect(configurationChanges(BEFORE, structuredClone(BEFORE))).toEqual(NOTHING)
  const reversed = { ...BEFORE, exports: BEFORE.exports.toReversed() }
  expect(configurationChanges(BEFORE, reversed)).toEqual(NOTHING)
})

test('exports come, go and change by name; a change is told by the keys of the file', () => {
  const added = completeExport({ name: 'vdc', path: '/srv/c' })
  const altered = completeExport({
    name: 'vdb',
    path: '/srv/b',
    durability: 'writeback',
    allowUnsafe: ['loop-buffered'],
  })
  expect(configurationChanges(BEFORE, { ...BEFORE, exports: [altered, added] })).toEqual({
    ...NOTHING,
    added: [added],
    removed: ['vda'],
    altered: [{ name: 'vdb', keys: ['durability', 'allow_unsafe'] }],
  })
})

test('the fence and the level of the log can change; everything else is named', () => {
  const fencing = { ...DEFAULT_FENCING, command: ['/sbin/fence'] }
  const after: Configuration = {
    ...BEFORE,
    stateDirectory: '/elsewhere',
    engine: 'file',
    workers: 2,
    listen: [],
    control: [],
    log: { level: 'debug', format: 'pretty' },
    ownership: { kind: 'none' },
    fencing,
    limits: { ...DEFAULT_OPERATOR_LIMITS, connectionsMax: 7 },
  }
  const every = ['state_directory', 'engine', 'workers', 'listen', 'control', 'ownership', 'limits', 'log_format']
  expect(configurationChanges(BEFORE, after)).toEqual({ ...NOTHING, logLevel: 'debug', fencing, fromNextStart: every })
  // A setting that is added to the configuration must be decided about here.
  const decided = [...every.map((key) => key.replace(/_(.)/u, (_, letter: string) => letter.toUpperCase()))]
  const members = new Set([...decided.filter((key) => key !== 'logFormat'), 'file', 'log', 'fencing', 'exports'])
  expect(new Set(Object.keys(BEFORE))).toEqual(members)
})
