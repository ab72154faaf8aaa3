/**
 * The report as a picture: for each row a group of bars, one for each contender, as long as its requests per second
 * against the bare file's. SVG by hand; it brings its own colours for light and dark, and its words can be read aloud.
 */

import { CONTENDERS } from './contender.ts'
import type { ContenderName } from './contender.ts'
import type { RowResult } from './measurement.ts'
import type { Report } from './report.ts'
import { figureOf } from './report.ts'
import type { Row } from './row.ts'

const BARS: readonly ContenderName[] = ['bare', 'io_uring', 'file', 'nbdkit', 'qemu-nbd', 'nbd-server']
const ROWS_MAX = 16
const WIDTH = 860
const LABEL_WIDTH = 190
const FIGURE_WIDTH = 90
const BAR_HEIGHT = 14
const BAR_GAP = 3
const GROUP_GAP = 26
const TOP = 62
const FOOT = 34
const SCALE_WIDTH = WIDTH - LABEL_WIDTH - FIGURE_WIDTH

const STYLE = `
  text { font: 12px system-ui, sans-serif; fill: #1f2328 }
  .title { font-size: 16px; font-weight: 600 }
  .row { font-weight: 600 }
  .quiet { fill: #59636e }
  .background { fill: #ffffff }
  .ours { fill: #0969da } .ours.second { fill: #6cb0f5 } .limit { fill: #c4ccd4 } .peer { fill: #8c959f }
  .ours-text { font-weight: 600 }
  @media (prefers-color-scheme: dark) {
    text { fill: #e6edf3 } .quiet { fill: #9198a1 } .background { fill: #0d1117 }
    .ours { fill: #4493f8 } .ours.second { fill: #2b5c98 } .limit { fill: #3d444d } .peer { fill: #656c76 }
  }`

export function drawChart(report: Report): string {
  const rows = report.rows.filter((result) => bars(result).length > 0).slice(0, ROWS_MAX)
  const parts: string[] = []
  let y = TOP
  for (const result of rows) {
    parts.push(...group(result, y))
    y += groupHeight(result) + GROUP_GAP
  }
  const height = y - GROUP_GAP + FOOT
  const title = 'Requests per second, each row against the fastest in it'
  const { machine, began, runs, seconds } = report
  const figures = `medians of ${runs} runs of ${seconds} s`
  const note =
    rows.length === 0
      ? 'Not measured yet.'
      : `${machine.cores} cores, Linux ${machine.kernel}, ${began.slice(0, 10)}; ${figures}`
  return [
    `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 ${WIDTH} ${height}" width="${WIDTH}" height="${height}" role="img" aria-labelledby="title">`,
    `<title id="title">${escapeXml(`interlockd beside other NBD servers. ${title}.`)}</title>`,
    `<style>${STYLE}\n</style>`,
    `<rect class="background" width="${WIDTH}" height="${height}"/>`,
    `<text class="title" x="16" y="28">${escapeXml(title)}</text>`,
    `<text class="quiet" x="16" y="46">fio’s NBD client over a Unix socket; server and client share the machine</text>`,
    ...parts,
    `<text class="quiet" x="16" y="${height - 12}">${escapeXml(note)}</text>`,
    '</svg>',
    '',
  ].join('\n')
}

interface Bar {
  readonly name: ContenderName
  readonly rate: number
}

function bars(result: RowResult): Bar[] {
  return BARS.flatMap((name) => {
    const rate = figureOf(result, name, 'requestsPerSecond')
    return rate === null ? [] : [{ name, rate }]
  })
}

function groupHeight(result: RowResult): number {
  return 20 + bars(result).length * (BAR_HEIGHT + BAR_GAP)
}

function group(result: RowResult, top: number): string[] {
  const drawn = bars(result)
  const fastest = Math.max(...drawn.map(({ rate }) => rate))
  return [
    `<text class="row" x="16" y="${top + 12}">${escapeXml(rowTitle(result.row))}</text>`,
    ...drawn.flatMap(({ name, rate }, index) => {
      const y = top + 20 + index * (BAR_HEIGHT + BAR_GAP)
      const width = Math.max(1, (rate / fastest) * SCALE_WIDTH)
      const { ours, label } = CONTENDERS[name]
      const words = ours ? 'ours-text' : 'quiet'
      const x = LABEL_WIDTH + width + 6
      return [
        `<text class="${words}" x="${LABEL_WIDTH - 8}" y="${y + 11}" text-anchor="end">${escapeXml(label)}</text>`,
        `<rect class="${colourOf(name)}" x="${LABEL_WIDTH}" y="${y}" width="${width.toFixed(1)}" height="${BAR_HEIGHT}" rx="2"/>`,
        `<text class="${words}" x="${x.toFixed(1)}" y="${y + 11}">${Math.round(rate).toLocaleString('en-US')}</text>`,
      ]
    }),
  ]
}

function colourOf(name: ContenderName): string {
  if (name === 'bare') return 'limit'
  if (name === 'file') return 'ours second'
  return CONTENDERS[name].ours ? 'ours' : 'peer'
}

const BLOCK_TITLES = { '4k': '4 KiB', '64k': '64 KiB', '1m': '1 MiB' } as const
const PATTERN_TITLES = { write: 'random writes', read: 'random reads', mixed: 'reads and writes mixed' } as const

export function rowTitle(row: Row): string {
  const { pattern, block, depth, connections, image, transport, mode } = row
  const words = [
    pattern === 'read' ? '' : mode === 'durable' ? 'durable' : 'not durable',
    BLOCK_TITLES[block],
    `${PATTERN_TITLES[pattern]},`,
    `depth ${depth}`,
    connections === 1 ? '' : `on each of ${connections} connections`,
    image === 'written' ? '' : `(${image} image)`,
    transport === 'unix' ? '' : 'over TCP',
  ]
  return words.filter((word) => word !== '').join(' ')
}

function escapeXml(text: string): string {
  return text.replaceAll('&', '&amp;').replaceAll('<', '&lt;').replaceAll('>', '&gt;').replaceAll('"', '&quot;')
}
