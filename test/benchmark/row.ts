/**
 * One kind of load, named so that it can be asked for: `write-4k-q32-c1-written-unix-durable` is random 4 KiB writes, 32
 * of them in flight on each of one connection, to an image whose extents are written, over a Unix socket, each durable
 * before it is answered. The whole matrix is every combination that means something; `quick` and `full` are selections.
 */

export const PATTERNS = ['write', 'read', 'mixed'] as const
export type Pattern = (typeof PATTERNS)[number]

export const BLOCKS = ['4k', '64k', '1m'] as const
export type Block = (typeof BLOCKS)[number]

export const DEPTHS = [1, 8, 32, 128] as const
export const CONNECTIONS = [1, 4] as const

/** `written`: every extent holds data. `preallocated`: allocated, unwritten. `sparse`: nothing but a size. */
export const IMAGE_KINDS = ['written', 'preallocated', 'sparse'] as const
export type ImageKind = (typeof IMAGE_KINDS)[number]

export const TRANSPORTS = ['unix', 'tcp'] as const
export type Transport = (typeof TRANSPORTS)[number]

/** `durable`: a write is answered when it is on stable storage. `direct`: past the page cache, and no more than that. */
export const MODES = ['durable', 'direct'] as const
export type Mode = (typeof MODES)[number]

export interface Row {
  readonly pattern: Pattern
  readonly block: Block
  /** In flight on each connection. */
  readonly depth: number
  readonly connections: number
  readonly image: ImageKind
  readonly transport: Transport
  readonly mode: Mode
}

const BASE: Row = {
  pattern: 'write',
  block: '4k',
  depth: 32,
  connections: 1,
  image: 'written',
  transport: 'unix',
  mode: 'durable',
}

export function rowName(row: Row): string {
  const { pattern, block, depth, connections, image, transport, mode } = row
  return [pattern, block, `q${depth}`, `c${connections}`, image, transport, mode].join('-')
}

/** Every combination. Durability says nothing of a read, so reads are `direct` only. */
export function everyRow(): Row[] {
  const rows: Row[] = []
  for (const mode of MODES)
    for (const pattern of PATTERNS)
      for (const block of BLOCKS)
        for (const depth of DEPTHS)
          for (const connections of CONNECTIONS)
            for (const image of IMAGE_KINDS)
              for (const transport of TRANSPORTS) {
                if (pattern === 'read' && mode === 'durable') continue
                rows.push({ pattern, block, depth, connections, image, transport, mode })
              }
  return rows
}

/** What a change of the hot path is judged by. */
export function quickRows(): Row[] {
  const small = (pattern: Pattern, mode: Mode): Row[] =>
    [32, 1].map((depth): Row => ({ ...BASE, pattern, mode, depth }))
  const large = (['64k', '1m'] as const).flatMap((block): Row[] => [
    { ...BASE, block, depth: 8, mode: 'durable' },
    { ...BASE, block, depth: 8, pattern: 'read', mode: 'direct' },
  ])
  return [...small('write', 'durable'), ...small('read', 'direct'), ...large, { ...BASE, mode: 'direct' }]
}

/**
 * What the document shows: the three dimensions that matter most in full, and each of the others along one line through
 * the middle. Every other cell can be asked for by its name.
 */
export function fullRows(): Row[] {
  return everyRow().filter((row) => {
    const { pattern, depth, connections, image, transport, mode, block } = row
    const elsewhere = [connections !== 1, image !== 'written', transport !== 'unix'].filter(Boolean).length
    if (elsewhere > 1) return false
    if (elsewhere === 0) return mode === 'durable' || pattern === 'read' || (pattern === 'write' && depth === 32)
    if (mode === 'direct' && pattern !== 'read') return false
    if (transport === 'tcp') return depth === 1 || depth === 32
    if (connections !== 1) return depth === 32
    return pattern === 'write' && block === '4k' && (depth === 1 || depth === 32)
  })
}

/** The rows of the whole matrix whose names match one of the patterns, in which `*` stands for anything. */
export function rowsMatching(patterns: readonly string[]): Row[] {
  const expressions = patterns.map((pattern) => new RegExp(`^${pattern.split('*').map(escapeText).join('.*')}$`, 'u'))
  return everyRow().filter((row) => expressions.some((expression) => expression.test(rowName(row))))
}

export function blockBytes(block: Block): number {
  return { '4k': 4096, '64k': 65_536, '1m': 1_048_576 }[block]
}

function escapeText(text: string): string {
  return text.replace(/[.+?^${}()|[\]\\]/gu, String.raw`\$&`)
}
