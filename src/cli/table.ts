/**
 * Plain tables: a heading in capitals, columns as wide as their widest cell, two spaces between, numbers to the right.
 * A column in which every row is empty is left out, so that what is normal takes no room.
 */

export interface Column<Row> {
  readonly heading: string
  readonly right?: boolean
  readonly cell: (row: Row) => string
}

export function table<Row>(columns: readonly Column<Row>[], rows: readonly Row[]): string {
  const used = columns.filter(({ cell }) => rows.length === 0 || rows.some((row) => cell(row) !== ''))
  const lines = [used.map(({ heading }) => heading), ...rows.map((row) => used.map(({ cell }) => cell(row)))]
  const widths = used.map((_, index) => Math.max(...lines.map((line) => (line[index] ?? '').length)))
  const padded = (text: string, index: number): string =>
    used[index]?.right === true ? text.padStart(widths[index] ?? 0) : text.padEnd(widths[index] ?? 0)
  return lines.map((line) => line.map(padded).join('  ').trimEnd()).join('\n')
}

/** `label  value` lines; entries without a value are left out. */
export function listing(entries: readonly (readonly [string, string | null])[]): string {
  const shown = entries.filter(([, value]) => value !== null && value !== '')
  const width = Math.max(...shown.map(([label]) => label.length))
  return shown.map(([label, value]) => `${label.padEnd(width)}  ${value ?? ''}`).join('\n')
}
