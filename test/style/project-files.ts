/**
 * The files of the project as the style tests see them: everything a clone holds, read from the disk and not from git,
 * so that a file is judged before it is committed and a release without history can be judged too.
 */

import { existsSync, readFileSync, readdirSync } from 'node:fs'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'

export interface ProjectFile {
  /** Relative to the project's root, with slashes. */
  readonly path: string
  readonly text: string
}

export const ROOT = fileURLToPath(new URL('../../', import.meta.url))

/** What building and testing leave behind, and what others wrote. */
const NOT_OURS = new Set(['.git', '.cache', 'node_modules', 'dist', 'coverage'])
const TEXT_ENDINGS = ['.ts', '.mts', '.mjs', '.cjs', '.js', '.json', '.md', '.toml', '.yml', '.yaml', '.sh', '.service']

export function readProjectFile(path: string): ProjectFile {
  return { path, text: readFileSync(join(ROOT, path), 'utf8') }
}

/** Every path under a folder of the project (all of it without one), files only, in a fixed order. */
export function projectPaths(folder = ''): string[] {
  const paths: string[] = []
  for (const entry of readdirSync(join(ROOT, folder), { withFileTypes: true })) {
    const path = folder === '' ? entry.name : `${folder}/${entry.name}`
    if (entry.isFile()) paths.push(path)
    else if (entry.isDirectory() && !NOT_OURS.has(entry.name)) paths.push(...projectPaths(path))
  }
  return paths.sort()
}

/** The text files among them: by their ending, or without any (LICENSE, Dockerfile, .ci/run). */
export function projectFiles(folder = ''): ProjectFile[] {
  return projectPaths(folder)
    .filter((path) => TEXT_ENDINGS.some((ending) => path.endsWith(ending)) || !/\.[^/]*$/u.test(path.slice(1)))
    .map(readProjectFile)
}

export const isTypeScript = (path: string): boolean => path.endsWith('.ts') && !path.endsWith('.d.ts')

export const projectHas = (path: string): boolean => existsSync(join(ROOT, path))
