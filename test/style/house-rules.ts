/**
 * The rules of this house that neither the compiler nor the linter knows, each as a function from a file to complaints.
 * Every complaint names what to write instead. A rule carries a file that breaks it and one that keeps it: a test runs
 * both, so no rule can fall asleep.
 */

import { isTypeScript, projectHas } from './project-files.ts'
import type { ProjectFile } from './project-files.ts'
import { declaredNames, memberUses } from './source-tree.ts'

export interface Rule {
  readonly name: string
  readonly appliesTo: (path: string) => boolean
  /** One complaint for each breach, without the file's name; with its line where there is one. */
  readonly complaints: (file: ProjectFile) => string[]
  readonly bad: ProjectFile
  readonly good: ProjectFile
}

const isCode = (path: string): boolean => /\.(ts|mts|mjs|cjs|js)$/u.test(path)
const isSource = (path: string): boolean => path.startsWith('src/') && isTypeScript(path)
const isTest = (path: string): boolean => path.startsWith('test/') && isTypeScript(path)
/** test/x/y.test.ts of src/x/y.ts is explained by that file. */
const isTestOfOneFile = (path: string): boolean =>
  path.endsWith('.test.ts') && projectHas(path.replace(/^test\//u, 'src/').replace('.test.ts', '.ts'))
/** Rules and their samples spell out what they forbid. */
const isOwnFile = (path: string): boolean => path.startsWith('test/style/')

function matchingLines(text: string, pattern: RegExp, advice: string): string[] {
  return text.split('\n').flatMap((line, index) => {
    const match = pattern.exec(line)
    return match === null ? [] : [`line ${index + 1}: ${match[0].trim()}: ${advice}`]
  })
}

/** The prose at the head of a file, without its decoration; undefined when the file opens with something else. */
export function headOf(text: string): string[] | undefined {
  const match = /^(?:#!.*\n)?(?:'use strict'\n\n)?\/\*\*([\s\S]*?)\*\//u.exec(text)
  return match?.[1]
    ?.split('\n')
    .map((line) => line.replace(/^\s*\*?\s?/u, '').trimEnd())
    .filter((line) => line !== '')
}

const BANNED_FILE_NAMES: Readonly<Record<string, string>> = {
  utils: 'name it after its one noun',
  util: 'name it after its one noun',
  helpers: 'name it after its one noun',
  helper: 'name it after its one noun',
  common: 'name it after what is common',
  misc: 'split it by noun',
  manager: 'say what it keeps: registry, tracker, ledger, pool',
  handler: 'say what it does: reader, check, route, turn',
  service: 'say what it serves',
  types: 'put each type beside what it describes; a file of messages or of a contract has a name of its own',
}

/** What a declared name may not be, and the whole words instead. */
const BANNED_NAMES: Readonly<Record<string, string>> = {
  addr: 'address',
  arr: 'the plural of what it holds',
  buf: 'buffer, or what is in it',
  cb: 'the verb of what it does',
  cfg: 'configuration',
  conn: 'connection',
  ctx: 'what it is',
  dest: 'destination',
  dst: 'destination',
  err: 'error',
  evt: 'event',
  fd: 'descriptor',
  fn: 'the verb of what it does',
  idx: 'index',
  len: 'length, with its unit: lengthBytes',
  msg: 'message',
  num: 'count',
  obj: 'what it is',
  opts: 'options',
  pos: 'position',
  ptr: 'address',
  req: 'request',
  res: 'reply, response or result',
  resp: 'reply or response',
  ret: 'what it is',
  src: 'source',
  str: 'text',
  tmp: 'what it is',
  val: 'value',
  // Quantities say their unit, last.
  delay: 'delayMs',
  interval: 'intervalMs',
  timeout: 'timeoutMs',
}
/** Where requests of the protocol are, what names one is a cookie. */
const PROTOCOL_FOLDERS = /^src\/(?:nbd|data|interlock)\//u

const head: Rule = {
  name: 'a file opens with prose: what it is, what it is not, its invariant',
  appliesTo: (path) => isCode(path) && !path.endsWith('.d.mts') && !isTestOfOneFile(path),
  complaints: ({ path, text }) => {
    const lines = headOf(text)
    if (lines === undefined) return ['begin with a /** comment of 3 to 12 lines, before the imports']
    const enough = path.startsWith('src/') ? 60 : 30
    if (lines.join(' ').length < enough) return ['its head says too little: what is it, what is it not, what holds?']
    return []
  },
  bad: { path: 'src/nbd/reply.ts', text: "import { assert } from '../foundation/assert.ts'\n/** Late. */\n" },
  good: {
    path: 'src/nbd/reply.ts',
    text: '/**\n * Simple replies, encoded into bytes that the caller gives.\n * Not the negotiation: see option-reply.ts.\n */\n',
  },
}

const fileNames: Rule = {
  name: 'files and folders have kebab-case names that say what is in them',
  appliesTo: (path) => /^(src|test|scripts|bin|docs|docker)\//u.test(path),
  complaints: ({ path }) =>
    path.split('/').flatMap((part) => {
      if (['README.md', 'Dockerfile', 'Dockerfile.dockerignore'].includes(part)) return []
      if (!/^\.?[a-z0-9]+(?:-[a-z0-9]+)*(?:\.[a-z0-9]+(?:-[a-z0-9]+)*)*$/u.test(part))
        return [`${part}: use kebab-case`]
      if (!isCode(path)) return []
      const words = part.replace(/\..*$/u, '').split('-')
      const banned = words.find((word) => Object.hasOwn(BANNED_FILE_NAMES, word))
      return banned === undefined ? [] : [`${part}: ${String(BANNED_FILE_NAMES[banned])}`]
    }),
  bad: { path: 'src/exports/exportManager.ts', text: '' },
  good: { path: 'src/exports/export-registry.ts', text: '' },
}

const bannedNames: Rule = {
  name: 'names are whole words, with their unit last',
  appliesTo: isSource,
  complaints: (file) =>
    declaredNames(file).flatMap(({ name, line }) => {
      const isCookie = name === 'handle' && PROTOCOL_FOLDERS.test(file.path)
      const instead = isCookie ? 'cookie' : Object.hasOwn(BANNED_NAMES, name) ? BANNED_NAMES[name] : undefined
      return instead === undefined ? [] : [`line ${line}: ${name}: write ${instead}`]
    }),
  bad: { path: 'src/nbd/reply.ts', text: 'const handle = 1' },
  good: { path: 'src/nbd/reply.ts', text: '// The handle of old: res, len.\nconst cookie = socket._handle.fd' },
}

const exiting: Rule = {
  name: 'nothing ends the process by force',
  appliesTo: isCode,
  complaints: (file) =>
    memberUses(file, 'process')
      .filter(({ name }) => name === 'process.exit' || name === 'process.abort')
      .map(({ name, line }) => `line ${line}: ${name}: set process.exitCode and dispose of everything instead`),
  bad: { path: 'src/cli/interlockd.ts', text: 'process.exit(1)' },
  good: {
    path: 'src/cli/interlockd.ts',
    text: "process.exitCode = 1 // not process.exit\nconst text = 'process.exit(1)'",
  },
}

const printing: Rule = {
  name: 'only command line programs print',
  appliesTo: (path) => isSource(path) && !path.startsWith('src/cli/'),
  complaints: (file) =>
    [...memberUses(file, 'console'), ...memberUses(file, 'process')]
      .filter(({ name }) => name.startsWith('console.') || name === 'process.stdout')
      .map(({ name, line }) => `line ${line}: ${name}: take the logger, or return a value to src/cli`),
  bad: { path: 'src/exports/registry.ts', text: "console.log('opened')" },
  good: { path: 'src/exports/registry.ts', text: "log.info('opened')" },
}

const postponing: Rule = {
  name: 'nothing is postponed in a comment',
  appliesTo: (path) => !isOwnFile(path) && path !== 'package-lock.json',
  complaints: ({ text }) =>
    matchingLines(text, /\b(?:TODO|FIXME|XXX|HACK)\b/u, 'do it, or write down the limit where users read it (docs/)'),
  bad: { path: 'src/nbd/reply.ts', text: '// TODO structured replies' },
  good: { path: 'src/nbd/reply.ts', text: '// Structured replies live in structured-reply.ts.' },
}

const skipping: Rule = {
  name: 'every test runs',
  appliesTo: (path) => isTest(path) && !isOwnFile(path),
  complaints: ({ text }) =>
    matchingLines(
      text,
      /\b(?:test|it|describe|suite|context|task)\.(?:skip|only|todo|fails|skipIf|runIf)\b|\bx(?:it|describe|test)\(/u,
      'repair the test or delete it; what needs a foreign program calls requirePeer (scripts/peers.mjs)',
    ),
  bad: { path: 'test/nbd/reply.test.ts', text: "test.skip('half a reply', () => {})" },
  good: { path: 'test/nbd/reply.test.ts', text: "test('half a reply', () => {})" },
}

const asserting: Rule = {
  name: 'every test file asserts something',
  appliesTo: (path) => path.endsWith('.test.ts'),
  complaints: ({ text }) => (/\bexpect\w*\(|\bassert\w*[.(]/u.test(text) ? [] : ['it cannot fail: expect something']),
  bad: { path: 'test/nbd/reply.test.ts', text: "test('a reply', () => { encode() })" },
  good: { path: 'test/nbd/reply.test.ts', text: "test('a reply', () => { expect(encode()).toBe(1) })" },
}

const machinePaths: Rule = {
  name: 'no path of one particular machine, no page that is not here',
  appliesTo: (path) => !isOwnFile(path),
  complaints: ({ text }) => [
    ...matchingLines(
      text,
      /(?:^|[^\w.$}/-])\/(?:work\/|root\/\.|Users\/)[\w.-]*/u,
      'use a path relative to the project, or a temporary directory',
    ),
    ...matchingLines(
      text,
      /\b(?:design|rigs|seed)\.md\b|\.\.\/shared\//u,
      'the project stands on its own: say it here',
    ),
  ],
  bad: { path: 'docs/operating.md', text: 'Start /work/main/bin/interlockd.cjs' },
  good: {
    path: 'docs/operating.md',
    text: 'Start `bin/interlockd.cjs`; the socket is in /run/interlockd, http://host/root/x',
  },
}

const silencing: Rule = {
  name: 'a check that is silenced says why',
  appliesTo: (path) => isCode(path) && !isOwnFile(path),
  complaints: ({ text }) => [
    ...matchingLines(text, /@ts-(?:ignore|nocheck)/u, 'use @ts-expect-error, in a test that hands something wrong in'),
    ...matchingLines(text, /eslint-disable(?!.*-- \S)/u, 'add the reason after two dashes'),
  ],
  bad: { path: 'src/nbd/reply.ts', text: '// eslint-disable-next-line complexity' },
  good: { path: 'src/nbd/reply.ts', text: '// eslint-disable-next-line complexity -- one case for each command' },
}

const LINES_MAX = 520
const lengths: Rule = {
  name: 'a file can be read in one sitting',
  appliesTo: (path) => isSource(path) || isTest(path),
  complaints: ({ text }) => {
    const count = text.split('\n').length - 1
    return count > LINES_MAX ? [`${count} lines: split it by noun (at most ${LINES_MAX})`] : []
  },
  bad: { path: 'src/nbd/reply.ts', text: 'const one = 1\n'.repeat(LINES_MAX + 1) },
  good: { path: 'src/nbd/reply.ts', text: 'const one = 1\n'.repeat(LINES_MAX) },
}

export const RULES: readonly Rule[] = [
  head,
  fileNames,
  bannedNames,
  exiting,
  printing,
  postponing,
  skipping,
  asserting,
  machinePaths,
  silencing,
  lengths,
]
