/**
 * From facts to a verdict. Pure: the same facts always give the same report. The verdict of the whole is that of its
 * worst layer, and a stack that was not walked to its end is never safe.
 */

import { unreachable } from '../../foundation/assert.ts'
import type { StackLayer, StackReport, StackSeverity, StackVerdict } from '../verbs.ts'
import { STACK_CODES } from './codes.ts'
import type { Finding } from './codes.ts'
import { deviceWords, judgeDevice } from './device-judgement.ts'
import type { LayerFacts, StackFacts } from './facts.ts'
import { fileSystemWords, fileWords, judgeDirect, judgeFile, judgeFileSystem, judgeUsers } from './file-judgement.ts'

export function judgeStack(facts: StackFacts, atMs: number): StackReport {
  const layers = facts.layers.map((layer, index) => judgeLayer(layer, facts.layers.slice(index + 1)))
  if (facts.waiting !== null) layers.push(waitingLayer(facts.waiting.what))
  const codes = [...new Set(layers.flatMap(({ findings }) => findings.map(({ code }) => code)))]
  return {
    path: facts.path,
    realPath: facts.realPath,
    verdict: worst(layers.map(({ verdict }) => verdict)),
    codes,
    layers,
    waitingFor: facts.waiting?.what ?? null,
    at: new Date(atMs).toISOString(),
  }
}

function judgeLayer(layer: LayerFacts, below: readonly LayerFacts[]): StackLayer {
  const { depth, kind } = layer
  switch (kind) {
    case 'file': {
      const fileSystem = below.find((lower) => lower.kind === 'fileSystem')
      const free = fileSystem?.kind === 'fileSystem' ? fileSystem.space : null
      return withVerdict(depth, kind, fileWords(layer), judgeFile(layer, free), { ...layer })
    }
    case 'fileSystem':
      return withVerdict(depth, kind, fileSystemWords(layer), judgeFileSystem(layer), { ...layer })
    case 'device': {
      const path = `/dev/${layer.name}`
      const findings = [...judgeDevice(layer), ...judgeDirect(path, layer.direct), ...judgeUsers(path, layer.users)]
      return withVerdict(depth, kind, deviceWords(layer), findings, { ...layer })
    }
    case 'unknown':
      return withVerdict(depth, kind, layer.what, [
        {
          code: 'unknown-device',
          detail: `under the image is ${layer.what}`,
          mend: 'look at it where it can be seen',
        },
      ])
    default:
      return unreachable(kind)
  }
}

function waitingLayer(what: string): StackLayer {
  return withVerdict(0, 'unknown', `no answer yet to ${what}`, [
    {
      code: 'not-answering',
      detail: `${what} has not answered`,
      mend: 'see to it that what is under the image answers, and ask again',
    },
  ])
}

function withVerdict(
  depth: number,
  kind: StackLayer['kind'],
  words: string,
  findings: readonly Finding[],
  facts: Readonly<Record<string, unknown>> = {},
): StackLayer {
  const { depth: _depth, kind: _kind, ...details } = facts
  const weighed = findings.map((finding) => ({ ...finding, severity: STACK_CODES[finding.code] }))
  return { depth, kind, words, verdict: verdictOf(findings), findings: weighed, facts: details }
}

function verdictOf(findings: readonly Finding[]): StackVerdict {
  return worst(findings.map(({ code }) => verdictOfSeverity(STACK_CODES[code])))
}

function verdictOfSeverity(severity: StackSeverity): StackVerdict {
  return severity === 'note' ? 'safe' : severity
}

const ORDER: readonly StackVerdict[] = ['safe', 'condition', 'unsafe']

function worst(verdicts: readonly StackVerdict[]): StackVerdict {
  return ORDER[Math.max(0, ...verdicts.map((verdict) => ORDER.indexOf(verdict)))] ?? 'unsafe'
}
