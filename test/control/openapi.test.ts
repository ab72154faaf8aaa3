import { readFileSync } from 'node:fs'
import { describe, expect, test } from 'vitest'
import { API_DESCRIPTION_FILE, apiDescription } from '../support/api-description.ts'

interface Description {
  readonly openapi: string
  readonly paths: Record<string, Record<string, { responses: Record<string, unknown>; summary?: string }>>
  readonly components: { readonly schemas: Record<string, unknown> }
}

describe('the description of the API', () => {
  test('docs/openapi.json is what the routes say (npx tsx scripts/openapi.ts writes it anew)', async () => {
    expect(readFileSync(API_DESCRIPTION_FILE, 'utf8')).toBe(await apiDescription())
  })

  test('names every address, and every reference leads somewhere', async () => {
    const text = await apiDescription()
    const { openapi, paths, components } = JSON.parse(text) as Description
    expect(openapi).toBe('3.1.0')
    expect(Object.keys(paths).sort()).toEqual([
      '/livez',
      '/metrics',
      '/readyz',
      '/v1/check',
      '/v1/evacuate',
      '/v1/events',
      '/v1/exports',
      '/v1/exports/{name}',
      '/v1/exports/{name}/adopt',
      '/v1/exports/{name}/clear',
      '/v1/exports/{name}/close',
      '/v1/exports/{name}/fence',
      '/v1/exports/{name}/open',
      '/v1/exports/{name}/ownership',
      '/v1/exports/{name}/renew',
      '/v1/exports/{name}/requests',
      '/v1/exports/{name}/stack',
      '/v1/exports/{name}/standby',
    ])
    const references = [...text.matchAll(/"\$ref": "#\/components\/schemas\/(\w+)"/g)].map((match) => match[1])
    expect(references.length).toBeGreaterThan(20)
    expect(references.filter((name) => components.schemas[name ?? ''] === undefined)).toEqual([])
  })

  test('every operation says what it is for and how it fails', async () => {
    const { paths } = JSON.parse(await apiDescription()) as Description
    const operations = Object.values(paths).flatMap((path) => Object.values(path))
    expect(operations.length).toBeGreaterThan(12)
    for (const { summary, responses } of operations) {
      expect(summary).toMatch(/\w/)
      expect(Object.keys(responses)).toEqual(expect.arrayContaining(['400', '500']))
      expect(JSON.stringify(responses)).not.toContain('Default Response')
    }
  })
})
