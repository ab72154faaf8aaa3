/** What the benchmark is asked to do: its command line, checked, as one frozen value. */

import { tmpdir } from 'node:os'
import { parseArgs } from 'node:util'
import { CONTENDER_NAMES } from './contender.ts'
import type { ContenderName } from './contender.ts'
import { fullRows, quickRows, rowsMatching } from './row.ts'
import type { Row } from './row.ts'

export const USAGE = `npm run bench -- [--quick | --full | --rows PATTERN,...] [options]

  --quick               the rows by which a change is judged (the default)
  --full                the rows that the document shows
  --rows PATTERN,...    rows of the whole matrix by name, * for anything: 'write-4k-q32-c1-*-unix-durable'
  --list                print the names of the rows and the time they would take, and measure nothing
  --contenders NAME,... some of ${CONTENDER_NAMES.join(', ')}
  --runs N              alternating runs of each row (3)
  --seconds S           of each measurement (3)
  --image-mib N         size of the image (1024)
  --directory DIR       where the image lies; it must take O_DIRECT (the directory for temporary files)
  --closes N            closes to time, 0 for none (100)
  --idle-seconds S      of watching idle servers, 0 for none (5)
  --soak-seconds S      of load over connections that come and go, 0 for none (0)
  --json FILE           write everything that was found
  --from FILE           measure nothing; show, draw or write down what an earlier --json found
  --svg FILE            draw the chart
  --write-docs          put table and chart into docs/performance.md and docs/performance.svg`

export interface BenchmarkOptions {
  readonly help: boolean
  readonly list: boolean
  readonly rows: readonly Row[]
  readonly contenders: readonly ContenderName[]
  readonly runs: number
  readonly seconds: number
  readonly imageBytes: number
  readonly directory: string
  readonly closes: number
  readonly idleSeconds: number
  readonly soakSeconds: number
  readonly json: string | null
  readonly from: string | null
  readonly svg: string | null
  readonly writeDocs: boolean
}

const MEBIBYTE = 1024 * 1024

/** Throws an Error whose message is for whoever typed it. */
export function readOptions(words: readonly string[]): BenchmarkOptions {
  const { values } = parseArgs({
    args: [...words],
    options: {
      help: { type: 'boolean', short: 'h', default: false },
      list: { type: 'boolean', default: false },
      quick: { type: 'boolean', default: false },
      full: { type: 'boolean', default: false },
      rows: { type: 'string' },
      contenders: { type: 'string' },
      runs: { type: 'string', default: '3' },
      seconds: { type: 'string', default: '3' },
      'image-mib': { type: 'string', default: '1024' },
      directory: { type: 'string', default: tmpdir() },
      closes: { type: 'string', default: '100' },
      'idle-seconds': { type: 'string', default: '5' },
      'soak-seconds': { type: 'string', default: '0' },
      json: { type: 'string' },
      from: { type: 'string' },
      svg: { type: 'string' },
      'write-docs': { type: 'boolean', default: false },
    },
  })
  return Object.freeze({
    help: values.help,
    list: values.list,
    rows: chosenRows(values),
    contenders: chosenContenders(values.contenders),
    runs: numberIn('runs', values.runs, 1, 100, true),
    seconds: numberIn('seconds', values.seconds, 0.1, 600, false),
    imageBytes: numberIn('image-mib', values['image-mib'], 64, 65_536, true) * MEBIBYTE,
    directory: values.directory,
    closes: numberIn('closes', values.closes, 0, 10_000, true),
    idleSeconds: numberIn('idle-seconds', values['idle-seconds'], 0, 600, false),
    soakSeconds: numberIn('soak-seconds', values['soak-seconds'], 0, 3600, false),
    json: values.json ?? null,
    from: values.from ?? null,
    svg: values.svg ?? null,
    writeDocs: values['write-docs'],
  })
}

function chosenRows(values: { quick: boolean; full: boolean; rows?: string | undefined }): Row[] {
  const ways = [values.quick, values.full, values.rows !== undefined].filter(Boolean).length
  if (ways > 1) throw new Error('choose one of --quick, --full and --rows')
  if (values.rows === 'none') return []
  if (values.rows !== undefined) {
    const rows = rowsMatching(values.rows.split(','))
    if (rows.length === 0) throw new Error(`no row matches ${values.rows}; --full --list shows names`)
    return rows
  }
  return values.full ? fullRows() : quickRows()
}

function chosenContenders(text: string | undefined): ContenderName[] {
  if (text === undefined) return [...CONTENDER_NAMES]
  const names = text.split(',')
  const unknown = names.find((name) => !CONTENDER_NAMES.some((known) => known === name))
  if (unknown !== undefined) throw new Error(`${unknown} is none of ${CONTENDER_NAMES.join(', ')}`)
  return CONTENDER_NAMES.filter((name) => names.includes(name))
}

function numberIn(option: string, text: string, least: number, most: number, integer: boolean): number {
  const value = Number(text)
  const fits = value >= least && value <= most && (!integer || Number.isInteger(value))
  if (text.trim() === '' || !fits)
    throw new Error(`--${option} is ${integer ? 'a whole number' : 'a number'} from ${least} to ${most}`)
  return value
}
