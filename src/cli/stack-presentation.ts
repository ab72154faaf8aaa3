/**
 * What is under an image, for a person at a terminal: one line for each layer, indented by its depth, what was found
 * there with its mend, and the verdict at the end. Names of devices and paths cannot move the cursor.
 */

import type { StackFinding, StackLayer, StackReport, StackVerdict } from '../client/index.ts'
import { printable } from './presentation.ts'

const MARKS: Readonly<Record<StackVerdict, string>> = { safe: 'ok', condition: '??', unsafe: 'NO' }

export function stackDetails(report: StackReport): string {
  return [...report.layers.flatMap(layerLines), verdictLine(report)].join('\n')
}

function layerLines({ depth, words, verdict, findings }: StackLayer): string[] {
  const indent = '  '.repeat(depth)
  return [
    `${MARKS[verdict]}  ${indent}${printable(words)}`,
    ...findings.map((finding) => `      ${indent}${findingLine(finding)}`),
  ]
}

function findingLine({ code, detail, mend }: StackFinding): string {
  return `${code}: ${printable(detail)}; ${printable(mend)}`
}

function verdictLine({ path, verdict, layers, waitingFor }: StackReport): string {
  const name = printable(path)
  if (waitingFor !== null) return `no verdict yet on ${name}: no answer to ${printable(waitingFor)}`
  const codes = codesOf(layers, verdict).join(', ')
  switch (verdict) {
    case 'safe':
      return `${name} is safe to migrate`
    case 'condition':
      return `${name} is safe to migrate on the conditions above: ${codes}`
    case 'unsafe':
      return `${name} is NOT safe to migrate: ${codes}`
  }
}

/** Codes that decide the verdict. */
function codesOf(layers: readonly StackLayer[], verdict: StackVerdict): string[] {
  const findings = layers.flatMap((layer) => layer.findings).filter(({ severity }) => severity === verdict)
  return [...new Set(findings.map(({ code }) => code))]
}
