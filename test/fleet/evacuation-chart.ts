/**
 * An evacuation as a picture (SVG): one line for each export, from the moment at which its close began to its receipt, in
 * the order in which they ended, and what the slowest disk alone needs. For light and dark; its title says it in words.
 */

import type { EvacuatedExport } from '../../src/client/index.ts'
import { escapeXml, niceStep } from '../../src/handover/timeline-drawing.ts'
import type { EvacuationRun } from './evacuation-run.ts'

const WIDTH = 900
const LEFT = 40
const RIGHT = 40
const PLOT_WIDTH = WIDTH - LEFT - RIGHT
const TOP = 78
const ROW_HEIGHT = 2
const TICKS = 8

const STYLE = `
  text { font: 12px system-ui, sans-serif; fill: #1f2328 }
  .title { font-size: 16px; font-weight: 600 } .quiet { fill: #59636e } .end { text-anchor: end } .middle { text-anchor: middle }
  .background { fill: #ffffff } .grid { stroke: #d1d9e0; stroke-width: 1 } .moment { stroke: #8c959f; stroke-dasharray: 3 3 }
  .close { fill: #0969da } .slow { fill: #cf222e }
  @media (prefers-color-scheme: dark) {
    text { fill: #e6edf3 } .quiet { fill: #9198a1 } .background { fill: #0d1117 } .grid { stroke: #30363d }
    .close { fill: #4493f8 } .slow { fill: #f85149 }
  }`

export interface EvacuationChartFacts {
  readonly run: EvacuationRun
  readonly writeDelayMs: number
  readonly isSlow: (exportName: string) => boolean
}

export function drawEvacuation({ run, writeDelayMs, isSlow }: EvacuationChartFacts): string {
  const { exports, elapsedMs } = run.report
  const rows = [...exports].sort((one, other) => endOf(one) - endOf(other))
  const toMs = Math.max(2 * writeDelayMs, elapsedMs) * 1.02
  const x = (ms: number): number => Math.round((LEFT + (ms / toMs) * PLOT_WIDTH) * 10) / 10
  const bottom = TOP + rows.length * ROW_HEIGHT + 6
  const height = bottom + 44
  const slowCount = rows.filter((row) => isSlow(row.export)).length
  const title = `${rows.length} exports evacuated under load in ${seconds(elapsedMs)}`
  const subtitle =
    `${slowCount} of them (red) on disks whose every write takes ${seconds(writeDelayMs)}, with one under way; ` +
    `${run.connections} connections`
  const bars = rows.map((row, index) => {
    const from = x(row.beganMs ?? 0)
    const width = Math.max(1, Math.round((x(endOf(row)) - from) * 10) / 10)
    const y = TOP + index * ROW_HEIGHT
    return `<rect class="${isSlow(row.export) ? 'slow' : 'close'}" x="${from}" y="${y}" width="${width}" height="${ROW_HEIGHT}"/>`
  })
  return [
    `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 ${WIDTH} ${height}" width="${WIDTH}" height="${height}" role="img" aria-labelledby="title">`,
    `<title id="title">${escapeXml(`${title}. ${subtitle}.`)}</title>`,
    `<style>${STYLE}\n</style>`,
    `<rect class="background" width="${WIDTH}" height="${height}"/>`,
    `<text class="title" x="16" y="26">${escapeXml(title)}</text>`,
    `<text class="quiet" x="16" y="44">${escapeXml(subtitle)}</text>`,
    ...axis(toMs, bottom, x),
    ...bars,
    moment(x(writeDelayMs), bottom, 'one slow write'),
    moment(x(2 * writeDelayMs), bottom, 'twice that'),
    `<text class="quiet end" x="${WIDTH - RIGHT}" y="${bottom + 36}">milliseconds since it was begun; a line for each export</text>`,
    '</svg>',
    '',
  ].join('\n')
}

function axis(toMs: number, bottom: number, x: (ms: number) => number): string[] {
  const stepMs = niceStep(toMs / TICKS)
  const ticks = [`<path class="grid" d="M${LEFT} ${bottom}H${WIDTH - RIGHT}"/>`]
  for (let ms = 0; ms <= toMs; ms += stepMs) {
    ticks.push(`<path class="grid" d="M${x(ms)} ${TOP}V${bottom}"/>`)
    ticks.push(`<text class="quiet middle" x="${x(ms)}" y="${bottom + 18}">${ms}</text>`)
  }
  return ticks
}

function moment(x: number, bottom: number, words: string): string {
  return `<path class="moment" d="M${x} ${TOP - 6}V${bottom}"/><text class="quiet middle" x="${x}" y="${TOP - 10}">${words}</text>`
}

function endOf({ endedMs }: EvacuatedExport): number {
  return endedMs ?? Infinity
}

function seconds(ms: number): string {
  return `${(ms / 1000).toFixed(1)} s`
}
