/**
 * Puts the figures into the page that explains them, between two markers; the rest of the page is written by hand and
 * stays as it is.
 */

import { readFileSync, writeFileSync } from 'node:fs'

export const BEGIN_MARKER = '<!-- bench:begin -->'
export const END_MARKER = '<!-- bench:end -->'

export function replaceBetweenMarkers(page: string, figures: string): string {
  const begin = page.indexOf(BEGIN_MARKER)
  const end = page.indexOf(END_MARKER)
  if (begin < 0 || end < begin) throw new Error(`the page has no ${BEGIN_MARKER} followed by ${END_MARKER}`)
  return `${page.slice(0, begin + BEGIN_MARKER.length)}\n\n${figures}\n\n${page.slice(end)}`
}

export function writeDocument(path: string, figures: string): void {
  writeFileSync(path, replaceBetweenMarkers(readFileSync(path, 'utf8'), figures))
}
