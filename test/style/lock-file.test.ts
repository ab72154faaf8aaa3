/**
 * What an installation brings: pinned by integrity, from whatever registry the installer has configured, running no
 * script, and each direct dependency with its reason in docs/dependencies.md.
 */

import { describe, expect, test } from 'vitest'
import { readProjectFile } from './project-files.ts'

interface LockedPackage {
  readonly version: string
  readonly resolved?: string
  readonly integrity?: string
  readonly link?: boolean
  readonly hasInstallScript?: boolean
  readonly optional?: boolean
}

interface Manifest {
  readonly version: string
  readonly engines: Record<string, string>
  readonly os: readonly string[]
  readonly dependencies: Record<string, string>
  readonly devDependencies: Record<string, string>
  readonly allowScripts: Record<string, boolean>
  readonly overrides: Record<string, Record<string, string>>
}

interface LockFile {
  readonly lockfileVersion: number
  readonly packages: Record<string, LockedPackage & Partial<Manifest>>
}

const manifest = JSON.parse(readProjectFile('package.json').text) as Manifest
const lockText = readProjectFile('package-lock.json').text
const lock = JSON.parse(lockText) as LockFile

/** Name and entry of everything that would be installed. */
function installed(file: LockFile): [string, LockedPackage][] {
  return Object.entries(file.packages).filter(([path]) => path !== '')
}

/** What a lock file may not hold, in words. */
function complaintsAbout(file: LockFile, allowedScripts: Record<string, boolean>): string[] {
  return installed(file).flatMap(([path, entry]) => {
    const name = path.slice(path.lastIndexOf('node_modules/') + 'node_modules/'.length)
    const complaints: string[] = []
    if (entry.resolved !== undefined) complaints.push(`${path} is bound to ${entry.resolved}`)
    if (entry.link === true) complaints.push(`${path} is a link to this machine`)
    else if (!(entry.integrity ?? '').startsWith('sha512-')) complaints.push(`${path} has no sha512 integrity`)
    // Optional ones for other systems never come to Linux; any other must be decided upon in package.json.
    if (entry.hasInstallScript === true && entry.optional !== true && !Object.hasOwn(allowedScripts, name)) {
      complaints.push(`${path} has an install script that allowScripts does not speak of`)
    }
    return complaints
  })
}

describe('package-lock.json', () => {
  test('pins everything by its content and nothing by its place', () => {
    expect(installed(lock).length).toBeGreaterThan(50)
    expect(complaintsAbout(lock, manifest.allowScripts)).toEqual([])
  })

  test('names no registry', () => {
    expect(lockText.match(/https?:\/\/[^"\s]*(?:registry|npmjs|\.tgz)[^"\s]*/gu)).toBeNull()
    expect(lockText).not.toContain('"resolved"')
    expect(readProjectFile('.npmrc').text.split('\n')).toContain('omit-lockfile-registry-resolved=true')
  })

  test('is of the present package.json', () => {
    const root = lock.packages['']
    expect(lock.lockfileVersion).toBe(3)
    expect(root?.version).toBe(manifest.version)
    expect(root?.dependencies).toEqual(manifest.dependencies)
    expect(root?.devDependencies).toEqual(manifest.devDependencies)
    expect(root?.engines).toEqual(manifest.engines)
  })

  test('the check finds what it looks for', () => {
    const integrity = 'sha512-x'
    const bad: LockFile = {
      lockfileVersion: 3,
      packages: {
        '': { version: '1.0.0' },
        'node_modules/a': { version: '1.0.0', integrity, resolved: 'https://registry.example/a.tgz' },
        'node_modules/b': { version: '1.0.0' },
        'node_modules/c': { version: '1.0.0', integrity, hasInstallScript: true },
        'node_modules/d': { version: '1.0.0', integrity, link: true },
        'node_modules/x/node_modules/e': { version: '1.0.0', integrity, hasInstallScript: true },
      },
    }
    expect(complaintsAbout(bad, { e: false })).toHaveLength(4)
  })
})

describe('package.json', () => {
  test('runs nobody’s install script', () => {
    expect(Object.values(manifest.allowScripts)).not.toContain(true)
  })

  test('is for Linux and the promised versions of Node', () => {
    expect(manifest.os).toEqual(['linux'])
    expect(manifest.engines).toEqual({ node: '>=20.19' })
  })

  test('keeps what touches memory, types and test results at one exact version', () => {
    const exact = { ...manifest.dependencies, ...manifest.devDependencies }
    for (const name of ['koffi', 'typescript', 'vitest', '@vitest/coverage-v8']) {
      expect(exact[name], name).toMatch(/^\d+\.\d+\.\d+$/u)
    }
  })

  test('docs/dependencies.md gives a reason for each dependency, and for none that is gone', () => {
    const listed = [...readProjectFile('docs/dependencies.md').text.matchAll(/^\| `([^`]+)` *\|/gmu)].map(
      ([, name]) => name,
    )
    const present = [...Object.keys(manifest.dependencies), ...Object.keys(manifest.devDependencies)]
    expect(listed.toSorted()).toEqual(present.toSorted())
  })
})
