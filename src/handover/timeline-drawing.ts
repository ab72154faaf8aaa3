/**
 * A timeline as a picture (SVG): what was in flight at the source, the parts of its close, the opening, what was in
 * flight or held back at the destination, and for how long nobody was answered. Made by hand, for light and dark; what it
 * shows is in the JSON too, and its title says the essence in words. Pure.
 */

import type { End } from './ending.ts'
import type { Sample, Step, TimelineDocument } from './timeline.ts'

const WIDTH = 900
const LEFT = 170
const RIGHT = 40
const PLOT_WIDTH = WIDTH - LEFT - RIGHT
const TOP = 66
const CHART_HEIGHT = 54
const BAR_HEIGHT = 18
const GAP = 22
const TICKS = 8

const STYLE = `
  text { font: 12px system-ui, sans-serif; fill: #1f2328 }
  .title { font-size: 16px; font-weight: 600 } .quiet { fill: #59636e } .end { text-anchor: end } .middle { text-anchor: middle }
  .background { fill: #ffffff } .grid { stroke: #d1d9e0; stroke-width: 1 } .moment { stroke: #8c959f; stroke-dasharray: 3 3 }
  .source { fill: #6cb0f5 } .destination { fill: #4ac26b } .held { fill: #d4a72c }
  .drain { fill: #0969da } .sync { fill: #8250df } .record { fill: #bf3989 } .open { fill: #1a7f37 } .wait { fill: #cf222e }
  @media (prefers-color-scheme: dark) {
    text { fill: #e6edf3 } .quiet { fill: #9198a1 } .background { fill: #0d1117 } .grid { stroke: #30363d }
    .source { fill: #2b5c98 } .destination { fill: #238636 } .held { fill: #9e6a03 }
  }`

export function drawTimeline(document: TimelineDocument): string {
  const drawing = new Drawing(document)
  return drawing.draw()
}

class Drawing {
  readonly #document: TimelineDocument
  readonly #fromMs: number
  readonly #toMs: number
  readonly #parts: string[] = []
  #y = TOP

  constructor(document: TimelineDocument) {
    this.#document = document
    const { fromMs, toMs } = rangeOf(document)
    this.#fromMs = fromMs
    this.#toMs = toMs
  }

  draw(): string {
    this.#chart('source', 'in flight at the source')
    this.#closeParts()
    this.#opening()
    this.#chart('destination', 'in flight at the destination')
    this.#waiting()
    const axisY = this.#y
    const height = axisY + 44
    const title = `Handover of ${this.#document.export}: ${essence(this.#document)}`
    return [
      `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 ${WIDTH} ${height}" width="${WIDTH}" height="${height}" role="img" aria-labelledby="title">`,
      `<title id="title">${escapeXml(title)}</title>`,
      `<style>${STYLE}\n</style>`,
      `<rect class="background" width="${WIDTH}" height="${height}"/>`,
      `<text class="title" x="16" y="26">${escapeXml(title)}</text>`,
      `<text class="quiet" x="16" y="44">${escapeXml(this.#subtitle())}</text>`,
      ...this.#axis(axisY),
      ...this.#parts,
      ...this.#moments(axisY),
      '</svg>',
      '',
    ].join('\n')
  }

  #subtitle(): string {
    const { source, destination, beganAt, early } = this.#document
    return `${source} to ${destination}${early ? ', early' : ''}, ${beganAt}`
  }

  /** How many requests were outstanding, as steps; what waits for a predecessor in another colour. */
  #chart(end: End, label: string): void {
    const samples = this.#document.samples.filter((sample) => sample.end === end)
    const countMax = Math.max(1, ...samples.map(countOf))
    const base = this.#y + CHART_HEIGHT
    const area = (valueOf: (sample: Sample) => number): string => {
      const [first] = samples
      if (first === undefined) return ''
      let path = `M${this.#x(first.atMs)} ${base}`
      for (const [index, sample] of samples.entries()) {
        const y = round(base - (valueOf(sample) / countMax) * CHART_HEIGHT)
        const next = samples[index + 1]?.atMs ?? sample.atMs
        path += `V${y}H${this.#x(next)}`
      }
      return `${path}V${base}Z`
    }
    this.#label(label, this.#y + CHART_HEIGHT / 2 + 4)
    this.#parts.push(`<text class="quiet end" x="${LEFT - 8}" y="${this.#y + 10}">${countMax}</text>`)
    this.#parts.push(`<path class="${end}" d="${area(countOf)}"/>`)
    if (end === 'destination') this.#parts.push(`<path class="held" d="${area(({ heldBack }) => heldBack)}"/>`)
    this.#parts.push(`<path class="grid" d="M${LEFT} ${base}H${WIDTH - RIGHT}"/>`)
    this.#y = base + GAP
  }

  #closeParts(): void {
    const { parts } = this.#document
    this.#label('close', this.#y + BAR_HEIGHT - 5)
    for (const { name, fromMs, toMs } of parts) this.#bar(name, fromMs, toMs, `${name} ${round(toMs - fromMs)} ms`)
    const words = parts.map(({ name, fromMs, toMs }) => `${name} ${round(toMs - fromMs)} ms`).join(', ')
    this.#y += BAR_HEIGHT
    if (words !== '') this.#parts.push(`<text class="quiet" x="${LEFT}" y="${this.#y + 13}">${words}</text>`)
    this.#y += GAP
  }

  #opening(): void {
    const fromMs = this.#at('opening')
    const toMs = this.#at('opened')
    this.#label('open', this.#y + BAR_HEIGHT - 5)
    if (fromMs !== null && toMs !== null) this.#bar('open', fromMs, toMs, `open ${round(toMs - fromMs)} ms`)
    this.#y += BAR_HEIGHT + GAP
  }

  #waiting(): void {
    const fromMs = this.#at('closing')
    const untilMs = this.#at('first answer') ?? this.#at('opened') ?? this.#at('brought back')
    this.#label('nobody answers', this.#y + BAR_HEIGHT - 5)
    if (fromMs !== null && untilMs !== null) {
      const words = `${round(untilMs - fromMs)} ms`
      this.#bar('wait', fromMs, untilMs, words)
      this.#parts.push(`<text x="${this.#x(untilMs) + 6}" y="${this.#y + BAR_HEIGHT - 5}">${words}</text>`)
    }
    this.#y += BAR_HEIGHT + GAP
  }

  #moments(axisY: number): string[] {
    const shown: readonly Step[] = [
      'closing',
      'closed',
      'handed early',
      'opened',
      'first answer',
      'drained',
      'brought back',
    ]
    let lastX = -Infinity
    return this.#document.moments
      .filter(({ step, atMs }) => shown.includes(step) && this.#isSeen(atMs))
      .flatMap(({ step, atMs }) => {
        const x = this.#x(atMs)
        const line = `<path class="moment" d="M${x} ${TOP - 6}V${axisY}"/>`
        // Names that would lie on each other are left to the lines and to the JSON.
        if (x - lastX < 74) return [line]
        lastX = x
        return [line, `<text class="quiet middle" x="${x}" y="${TOP - 10}">${step}</text>`]
      })
  }

  #axis(y: number): string[] {
    const stepMs = niceStep((this.#toMs - this.#fromMs) / TICKS)
    const ticks: string[] = [`<path class="grid" d="M${LEFT} ${y}H${WIDTH - RIGHT}"/>`]
    for (let ms = Math.ceil(this.#fromMs / stepMs) * stepMs; ms <= this.#toMs; ms += stepMs) {
      const x = this.#x(ms)
      ticks.push(`<path class="grid" d="M${x} ${TOP}V${y}"/>`)
      ticks.push(`<text class="quiet middle" x="${x}" y="${y + 18}">${round(ms)}</text>`)
    }
    ticks.push(`<text class="quiet end" x="${WIDTH - RIGHT}" y="${y + 36}">milliseconds since it was begun</text>`)
    return ticks
  }

  #bar(name: string, fromMs: number, toMs: number, words: string): void {
    const x = this.#x(fromMs)
    const width = Math.max(1, round(this.#x(toMs) - x))
    const shape = `<rect class="${name}" x="${x}" y="${this.#y}" width="${width}" height="${BAR_HEIGHT}" rx="2">`
    this.#parts.push(`${shape}<title>${escapeXml(words)}</title></rect>`)
  }

  #label(words: string, y: number): void {
    this.#parts.push(`<text x="16" y="${y}">${words}</text>`)
  }

  #at(step: Step): number | null {
    return this.#document.moments.findLast((moment) => moment.step === step)?.atMs ?? null
  }

  #isSeen(ms: number): boolean {
    return ms >= this.#fromMs && ms <= this.#toMs
  }

  #x(ms: number): number {
    const within = Math.min(Math.max(ms, this.#fromMs), this.#toMs)
    return round(LEFT + ((within - this.#fromMs) / (this.#toMs - this.#fromMs)) * PLOT_WIDTH)
  }
}

/** From a little before the close to a little after the last thing that matters: what came before would dwarf it. */
function rangeOf({ moments, parts, samples }: TimelineDocument): { fromMs: number; toMs: number } {
  const closing = moments.findLast(({ step }) => step === 'closing')?.atMs
  const ends = [...moments.map(({ atMs }) => atMs), ...parts.map(({ toMs }) => toMs)]
  const begins = closing ?? Math.min(...samples.map(({ atMs }) => atMs), ...ends, 0)
  const lastMs = Math.max(begins + 1, ...ends)
  const marginMs = (lastMs - begins) * 0.05
  return { fromMs: begins - marginMs, toMs: lastMs + marginMs }
}

function essence({ ending }: TimelineDocument): string {
  switch (ending?.kind) {
    case 'handedOver':
      return `generation ${ending.generation} is open at the destination`
    case 'broughtBack':
      return 'brought back, the source has it open'
    case 'unchanged':
      return 'nothing was begun'
    case 'unclear':
      return 'unclear who has it'
    case undefined:
      return 'not ended'
  }
}

function countOf({ outstanding }: Sample): number {
  const { parsed, admitted, held, submitted, cleared } = outstanding
  return parsed + admitted + held + submitted + cleared
}

/** 1, 2 or 5 times a power of ten, not below. */
export function niceStep(stepMs: number): number {
  const power = 10 ** Math.floor(Math.log10(stepMs))
  const factor = [1, 2, 5, 10].find((candidate) => candidate * power >= stepMs) ?? 10
  return factor * power
}

function round(value: number): number {
  return Math.round(value * 10) / 10
}

export function escapeXml(text: string): string {
  return text.replace(/[&<>"]/gu, (character) => `&#${character.codePointAt(0) ?? 0};`).replace(/\p{Cc}/gu, ' ')
}
