/**
 * From the words of an operator to one configuration, and from an operator's mistakes to sentences that name what and
 * where. Files are real ones in a temporary folder; the host is whoever the test says.
 */

import { mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { dirname, join } from 'node:path'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import fc from 'fast-check'
import { parseArgv } from '../../src/config/argv.ts'
import { ConfigurationError } from '../../src/config/configuration.ts'
import type { Configuration } from '../../src/config/configuration.ts'
import type { Host } from '../../src/config/defaults.ts'
import { checkConfigurationFile, loadConfiguration } from '../../src/config/load.ts'
import { DEFAULT_OPERATOR_LIMITS } from '../../src/config/limits.ts'

let folder = ''
let fileNumber = 0
beforeAll(() => {
  folder = mkdtempSync(join(tmpdir(), 'interlockd-config-'))
})
afterAll(() => rmSync(folder, { recursive: true, force: true }))

const root: Host = { environment: {}, userId: 0, workingDirectory: '/somewhere' }

function fileOf(...lines: string[]): string {
  const path = join(folder, `${++fileNumber}.toml`)
  writeFileSync(path, lines.join('\n') + '\n')
  return path
}

function load(argv: readonly string[], host: Host = root): Configuration {
  const invocation = parseArgv(argv, '1.2.3', host.workingDirectory)
  if (invocation.kind !== 'run') throw new Error(`not a run: ${JSON.stringify(invocation)}`)
  return loadConfiguration(invocation.settings, invocation.file, host).configuration
}

function problemsOf(run: () => unknown): readonly string[] {
  try {
    run()
  } catch (error) {
    if (error instanceof ConfigurationError) return error.problems
    throw error
  }
  throw new Error('nothing was refused')
}

function problemsOfFile(...lines: string[]): readonly string[] {
  const path = fileOf(...lines)
  return problemsOf(() => checkConfigurationFile(path, root)).map((problem) => problem.replace(path, 'FILE'))
}

/** The lines begin at the third of the file. */
function etcdLines(...lines: string[]): string[] {
  const endpoints = lines.some((line) => line.startsWith('endpoints')) ? [] : ['endpoints = ["https://a"]']
  return ['[ownership]', 'kind = "etcd"', ...lines, ...endpoints]
}

describe('defaults', () => {
  test('of root are the folders of the system', () => {
    expect(load([])).toEqual({
      file: null,
      stateDirectory: '/var/lib/interlockd',
      engine: 'auto',
      workers: 1,
      listen: [{ scheme: 'tcp', host: '127.0.0.1', port: 10809 }],
      control: [{ scheme: 'unix', path: '/run/interlockd/control.sock' }],
      log: { level: 'info', format: 'json' },
      ownership: { kind: 'directory', directory: null },
      fencing: { command: null, timeoutMs: 60_000, options: {}, plugs: {}, rebootIsProof: false },
      limits: DEFAULT_OPERATOR_LIMITS,
      exports: [],
    })
  })

  test('of anybody else are under the XDG folders', () => {
    const environment = { XDG_RUNTIME_DIR: '/run/user/7', XDG_STATE_HOME: '/home/x/.state' }
    const configuration = load([], { ...root, userId: 7, environment })
    expect(configuration.control).toEqual([{ scheme: 'unix', path: '/run/user/7/interlockd/control.sock' }])
    expect(configuration.stateDirectory).toBe('/home/x/.state/interlockd')
    const home = load([], { ...root, userId: 7, environment: { XDG_RUNTIME_DIR: '/r', HOME: '/home/x' } })
    expect(home.stateDirectory).toBe('/home/x/.local/state/interlockd')
  })

  test('that cannot be known are asked for', () => {
    const problems = problemsOf(() => load([], { ...root, userId: 7 }))
    expect(problems.join('\n')).toMatch(/XDG_RUNTIME_DIR .*--control/)
    expect(problems.join('\n')).toMatch(/HOME .*--state-directory/)
  })

  test('the configuration is frozen to its leaves', () => {
    const configuration = load(['--export', 'vda=/a'])
    expect(Object.isFrozen(configuration)).toBe(true)
    expect(Object.isFrozen(configuration.exports[0])).toBe(true)
    expect(Object.isFrozen(configuration.listen)).toBe(true)
  })
})

describe('the file', () => {
  test('can say everything', () => {
    const path = fileOf(
      'state_directory = "/s"',
      'engine = "file"',
      'workers = 2',
      'listen = ["unix:/n.sock", "tcp:[::1]:10810"]',
      'control = "unix:/c.sock"',
      'log_level = "debug"',
      'log_format = "pretty"',
      'durability = "writeback"',
      '[ownership]',
      'kind = "etcd"',
      'endpoints = ["https://10.0.0.1:2379", "https://etcd.example:2379/"]',
      'prefix = "/blocks/"',
      'timeout = "5s"',
      'ca_file = "tls/ca.pem"',
      'certificate_file = "/tls/client.pem"',
      'key_file = "/tls/client.key"',
      'user = "interlockd"',
      'password_file = "/secret"',
      '[fence]',
      'command = ["/usr/sbin/fence_ipmilan", "--lanplus"]',
      'timeout = "90s"',
      'reboot_is_proof = true',
      '[fence.options]',
      'ip = "10.0.0.1"',
      'username = "admin"',
      '[fence.plugs]',
      'alpha = "7"',
      '"host.two" = "b=8"',
      '[limits]',
      'connections_max = 16',
      'handshake_timeout = "500ms"',
      'requests_per_connection_max = 32',
      'arena_bytes = "128MiB"',
      'close_timeout = "2m"',
      'hold_alarm = "1m"',
      '[[export]]',
      'name = "vda"',
      'path = "images/vda.raw"',
      'image_id = "disk-7"',
      'description = "the root disk"',
      'read_only = true',
      'clients = "shared"',
      'standby = true',
      'standby_reads = "park"',
      'cluster_locks = true',
      'cache = "buffered"',
      '[[export]]',
      'name = "vdb"',
      'path = "/b"',
      'durability = "sync"',
    )
    const configuration = load(['--config', path])
    expect(configuration).toEqual({
      file: path,
      stateDirectory: '/s',
      engine: 'file',
      workers: 2,
      listen: [
        { scheme: 'unix', path: '/n.sock' },
        { scheme: 'tcp', host: '::1', port: 10810 },
      ],
      control: [{ scheme: 'unix', path: '/c.sock' }],
      log: { level: 'debug', format: 'pretty' },
      ownership: {
        kind: 'etcd',
        endpoints: ['https://10.0.0.1:2379', 'https://etcd.example:2379'],
        prefix: '/blocks/',
        timeoutMs: 5_000,
        caFile: join(dirname(path), 'tls/ca.pem'),
        certificateFile: '/tls/client.pem',
        keyFile: '/tls/client.key',
        user: 'interlockd',
        userFile: null,
        passwordFile: '/secret',
      },
      fencing: {
        command: ['/usr/sbin/fence_ipmilan', '--lanplus'],
        timeoutMs: 90_000,
        options: { ip: '10.0.0.1', username: 'admin' },
        plugs: { alpha: '7', 'host.two': 'b=8' },
        rebootIsProof: true,
      },
      limits: {
        connectionsMax: 16,
        handshakeTimeoutMs: 500,
        requestsPerConnectionMax: 32,
        arenaBytes: 128 * 1024 * 1024,
        closeTimeoutMs: 120_000,
        holdAlarmMs: 60_000,
      },
      exports: [
        {
          name: 'vda',
          path: join(folder, 'images/vda.raw'),
          description: 'the root disk',
          imageId: 'disk-7',
          readOnly: true,
          durability: 'writeback',
          clients: 'shared',
          standby: true,
          standbyReads: 'park',
          clusterLocks: true,
          cache: 'buffered',
        },
        {
          name: 'vdb',
          path: '/b',
          description: '',
          imageId: null,
          readOnly: false,
          durability: 'sync',
          clients: 'exclusive',
          standby: false,
          standbyReads: 'serve',
          clusterLocks: false,
          cache: 'direct',
        },
      ],
    })
  })

  test.each([
    ['kind = "none"', { kind: 'none' }],
    ['kind = "directory"', { kind: 'directory', directory: null }],
    ['directory = "/srv/records"', { kind: 'directory', directory: '/srv/records' }],
  ])('ownership with %s', (line, ownership) => {
    expect(load(['--config', fileOf('[ownership]', line)]).ownership).toEqual(ownership)
  })
})

describe('mistakes in the file name what and where', () => {
  test.each<[string, string[], RegExp]>([
    [
      'an unknown key',
      ['engine = "file"', '', 'lisen = ["unix:/a"]'],
      /^FILE:3: 'lisen' is not a known key at the top level/,
    ],
    ['an unknown key of an export', exportLines('# why', 'readonly = true'), /^FILE:5: 'readonly' .* in \[export\]/],
    ['an unknown table', ['[tls]', 'cert = "x"'], /^FILE:1: 'tls' is not a known key/],
    [
      'a key of another kind',
      ['[ownership]', 'kind = "none"', 'directory = "/x"'],
      /^FILE:3: 'directory' .*kind = "none"/,
    ],
    ['no TOML', ['engine = "file"', 'workers = = 2'], /^FILE:2:\d+: not valid TOML: /],
    ['a wrong choice', ['engine = "fast"'], /^FILE:1: 'engine' must be one of auto, io_uring, file, and is "fast"$/],
    [
      'a wrong kind of value',
      ['workers = "two"'],
      /^FILE:1: 'workers' must be a whole number from 1 to 64, and is "two"/,
    ],
    ['a fraction', ['workers = 1.5'], /^FILE:1: 'workers' must be a whole number/],
    ['a path that is a number', ['state_directory = 7'], /^FILE:1: 'state_directory' must be a text, and is 7/],
    ['a date', exportLines('description = 2020-01-01'), /^FILE:4: 'description' must be a text, and is a date/],
    ['tls', ['listen = [', '  "tls:0.0.0.0:10809",', ']'], /^FILE:1: 'listen' .* tls: is not served yet/],
    ['a socket path too long', [`listen = "unix:/${'x'.repeat(107)}"`], /^FILE:1: .* 108 bytes; .* at most 107/],
    ['a relative socket', ['control = "unix:c.sock"'], /^FILE:1: 'control' .* absolute path/],
    [
      'a control plane for everybody',
      ['control = "tcp:0.0.0.0:80"'],
      /^control: tcp:0.0.0.0:80 is not a loopback address/,
    ],
    ['an export without a path', ['[[export]]', 'name = "vda"'], /^FILE:1: an \[\[export\]\] needs a 'path'/],
    ['a second one', [...exportLines(), ...exportLines()], /^FILE:5: 'name' "vda" is declared a second time/],
    ['[export] for [[export]]', ['[export]', 'name = "vda"'], /^FILE:1: 'export' must be written as \[\[export\]\]/],
    ['a name with a slash', ['[[export]]', 'name = "a/b"', 'path = "/a"'], /^FILE:2: 'name' must be letters, digits/],
    [
      'a duration without a unit',
      ['[limits]', 'close_timeout = 30'],
      /^FILE:2: 'close_timeout' must be a duration such as "30s"/,
    ],
    [
      'a limit out of bounds',
      ['[limits]', 'handshake_timeout = "1ms"'],
      /^FILE:2: 'handshake_timeout' must be from 100/,
    ],
    ['an arena too small', ['[limits]', 'arena_bytes = "32MiB"'], /^FILE:2: 'arena_bytes' must be from 67108864/],
    [
      'an arena of an odd size',
      ['[limits]', 'arena_bytes = "100MiB"'],
      /^FILE:2: 'arena_bytes' must be a power of two/,
    ],
    ['a fence command that is none', ['[fence]', 'command = []'], /^FILE:2: 'command' must not be an empty list/],
    ['a fence key unknown', ['[fence]', 'plug = "7"'], /^FILE:2: 'plug' is not a known key in \[fence\]/],
    ['a fence option that forges a line', ['[fence.options]', '"a=b" = "7"'], /^FILE:2: 'a=b' cannot be said/],
    ['a plug that is a number', ['[fence.plugs]', 'alpha = 7'], /^FILE:2: 'alpha' must be a text/],
    ['etcd without endpoints', ['[ownership]', 'kind = "etcd"'], /^FILE:1: .* needs 'endpoints'/],
    ['an endpoint with a path', etcdLines('endpoints = ["http://a:1/v3"]'), /^FILE:3: 'endpoints' must hold URLs/],
    ['http beside https', etcdLines('endpoints = ["http://a", "https://b"]'), /^FILE:3: 'endpoints' must be all https/],
    ['a prefix that ids can run into', etcdLines('prefix = "/x"'), /^FILE:3: 'prefix' must end in a slash/],
    ['a record timeout too short', etcdLines('timeout = "10ms"'), /^FILE:3: 'timeout' must be from 1s to 5m/],
    [
      'a certificate without a key',
      etcdLines('certificate_file = "c"'),
      /^FILE:3: 'certificate_file' needs 'key_file'/,
    ],
    ['a key without a certificate', etcdLines('key_file = "c"'), /^FILE:3: 'key_file' needs 'certificate_file'/],
    [
      'an authority without TLS',
      ['[ownership]', 'kind = "etcd"', 'ca_file = "c"', 'endpoints = ["http://a"]'],
      /^FILE:3: 'ca_file' is of no use/,
    ],
    ['a user without a password', etcdLines('user = "u"'), /^FILE:3: 'user' needs 'password_file' too/],
    ['a password without a user', etcdLines('password_file = "p"'), /^FILE:3: 'password_file' needs 'user' or/],
    [
      'two names of one user',
      etcdLines('user = "u"', 'user_file = "f"', 'password_file = "p"'),
      /^FILE:4: 'user_file' cannot stand beside 'user'/,
    ],
    [
      'a key of another kind',
      ['[ownership]', 'endpoints = ["http://a"]'],
      /^FILE:2: 'endpoints' is not a known key in \[ownership\] with kind = "directory"/,
    ],
    [
      'a line forged by a description',
      exportLines('description = "a\\nb"'),
      /^FILE:4: .* must not contain control characters/,
    ],
  ])('%s', (_what, lines, expected) => {
    const problems = problemsOfFile(...lines)
    expect(problems[0]).toMatch(expected)
    expect(problems).toHaveLength(1)
  })

  test('all of them at once', () => {
    expect(problemsOfFile('engine = 1', 'workers = 0', 'foo = 1', ...exportLines('clients = "one"'))).toHaveLength(4)
  })

  test('a file that is not there', () => {
    expect(problemsOf(() => load(['--config', 'no-such.toml']))[0]).toMatch(
      /^\/somewhere\/no-such.toml: cannot be read: ENOENT/,
    )
  })

  test('a key in the second export of three has its own line', () => {
    const second = ['[[export]]', 'name = "b"', 'path = "/b"', 'cache = "none"']
    const problems = problemsOfFile(
      ...exportLines('cache = "direct"'),
      ...second,
      '[[export]]',
      'name = "c"',
      'path = "/c"',
      'cache = "direct"',
    )
    expect(problems).toEqual([`FILE:8: 'cache' must be one of direct, buffered, and is "none"`])
  })

  test('wherever an unknown key stands, its line is found', () => {
    const other = fc.constantFrom(
      '',
      '# note: stray = 1',
      'workers = 2',
      'listen = [\n  "unix:/stray",\n]',
      'state_directory = """\n/stray\n"""',
    )
    fc.assert(
      fc.property(fc.uniqueArray(other, { maxLength: 5 }), fc.uniqueArray(other, { maxLength: 5 }), (before, after) => {
        const rest = after.filter((text) => !before.includes(text))
        const path = fileOf(...before, 'stray = 1', ...rest)
        const line = before.join('\n').split('\n').length + (before.length === 0 ? 0 : 1)
        const found = problemsOf(() => checkConfigurationFile(path, root)).filter((problem) =>
          problem.includes("'stray'"),
        )
        expect(found[0]).toContain(`${path}:${line}: 'stray' is not a known key`)
      }),
      { numRuns: 60 },
    )
  })
})

describe('precedence', () => {
  test('flags over environment over file over defaults', () => {
    const path = fileOf('engine = "file"', 'workers = 2', 'log_level = "warn"', 'listen = "unix:/file"')
    const environment = { INTERLOCKD_CONFIG: path, INTERLOCKD_WORKERS: '3', INTERLOCKD_LOG_LEVEL: 'error' }
    const configuration = load(['--log-level', 'debug'], { ...root, environment })
    expect(configuration.file).toBe(path)
    expect(configuration.engine).toBe('file')
    expect(configuration.workers).toBe(3)
    expect(configuration.log.level).toBe('debug')
    expect(configuration.log.format).toBe('json')
    expect(configuration.listen).toEqual([{ scheme: 'unix', path: '/file' }])
  })

  test('exports are united by name', () => {
    const path = fileOf(...exportLines('read_only = true'), '[[export]]', 'name = "vdb"', 'path = "/b"')
    const environment = { INTERLOCKD_EXPORT: 'vdc=/c,vdd=d' }
    const { exports } = load(['--config', path, '--export', 'vda=/other'], { ...root, environment })
    expect(exports.map(({ name, path: image, readOnly }) => [name, image, readOnly])).toEqual([
      ['vda', '/other', true],
      ['vdb', '/b', false],
      ['vdc', '/c', false],
      ['vdd', '/somewhere/d', false],
    ])
  })

  test('durability and standby: as flag for all, in the file for those that do not say', () => {
    const path = fileOf(
      'durability = "writeback"',
      'standby = true',
      ...exportLines('durability = "sync"', 'standby = false'),
      '[[export]]',
      'name = "vdb"',
      'path = "/b"',
    )
    const shown = (argv: string[]): unknown =>
      load(argv).exports.map(({ durability, standby }) => [durability, standby])
    expect(shown(['--config', path])).toEqual([
      ['sync', false],
      ['writeback', true],
    ])
    expect(shown(['--config', path, '--durability', 'sync', '--standby'])).toEqual([
      ['sync', true],
      ['sync', true],
    ])
  })
})

describe('the environment', () => {
  test('says the plain settings too', () => {
    const environment = {
      INTERLOCKD_LISTEN: 'unix:/a.sock, tcp:127.0.0.1:1',
      INTERLOCKD_STANDBY: 'true',
      INTERLOCKD_STATE_DIRECTORY: 'state',
      INTERLOCKD_ENGINE: '',
    }
    const configuration = load(['--export', 'vda=/a'], { ...root, environment })
    expect(configuration.listen).toHaveLength(2)
    expect(configuration.exports[0]?.standby).toBe(true)
    expect(configuration.stateDirectory).toBe('/somewhere/state')
    expect(configuration.engine).toBe('auto')
  })

  test('a bad value names the variable', () => {
    const environment = { INTERLOCKD_WORKERS: 'many', INTERLOCKD_STANDBY: 'perhaps', INTERLOCKD_EXPORT: 'vda' }
    expect(problemsOf(() => load([], { ...root, environment }))).toEqual([
      'environment: INTERLOCKD_WORKERS must be a whole number from 1 to 64, and is "many"',
      'environment: INTERLOCKD_STANDBY must be true or false, and is "perhaps"',
      "environment: INTERLOCKD_EXPORT 'vda' is not of the form NAME=PATH",
    ])
  })

  test('a stranger of our name is a warning', () => {
    const host = { ...root, environment: { INTERLOCKD_PORT_10809_TCP: 'tcp://10.0.0.1:10809' } }
    expect(loadConfiguration({}, undefined, host).warnings).toEqual([
      'environment: INTERLOCKD_PORT_10809_TCP is not a setting and was ignored',
    ])
  })
})

describe('the command line', () => {
  test.each<[string[], RegExp]>([
    [['--engine', 'fast'], /--engine.*Allowed choices are auto, io_uring, file/],
    [['--workers', '0'], /^--workers must be a whole number from 1 to 64, and is 0$/],
    [['--export', 'vda'], /^--export 'vda' is not of the form NAME=PATH$/],
    [['--listen', 'http://x'], /^--listen holds a URL that cannot be used/],
    [['--frobnicate'], /unknown option '--frobnicate'/],
    [['surplus'], /unknown command 'surplus'|too many arguments/],
    [['check-config'], /missing required argument 'file'/],
  ])('%j is a mistake of usage', (argv, expected) => {
    const invocation = parseArgv(argv, '1.2.3', '/')
    expect(invocation).toMatchObject({ kind: 'usage', problem: expect.stringMatching(expected) })
  })

  test('version and help are only printed', () => {
    expect(parseArgv(['--version'], '1.2.3', '/')).toEqual({ kind: 'print', text: '1.2.3\n' })
    expect(parseArgv(['--help'], '1.2.3', '/')).toMatchObject({
      kind: 'print',
      text: expect.stringContaining('--durability'),
    })
    expect(parseArgv(['check-config', 'f.toml'], '1.2.3', '/')).toEqual({ kind: 'check-config', file: 'f.toml' })
  })
})

function exportLines(...more: string[]): string[] {
  return ['[[export]]', 'name = "vda"', 'path = "/a"', ...more]
}
