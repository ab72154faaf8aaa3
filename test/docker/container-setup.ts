/**
 * What all container tests share: an engine, and the images. Made once before the first of them, undone after the last.
 */

import type { TestProject } from 'vitest/node'
import { useEngine } from '../support/container-engine.ts'
import type { EngineFacts } from '../support/container-engine.ts'
import { buildImages } from '../support/container-images.ts'
import type { ContainerImages } from '../support/container-images.ts'
import { Scratch } from '../support/scratch.ts'

declare module 'vitest' {
  export interface ProvidedContext {
    containerEngine: EngineFacts
    containerImages: ContainerImages
  }
}

export default async function setup(project: TestProject): Promise<() => Promise<void>> {
  const scratch = new Scratch()
  try {
    const engine = await useEngine(scratch)
    project.provide('containerEngine', engine.facts)
    project.provide('containerImages', await buildImages(scratch, engine))
  } catch (error) {
    await scratch.dispose()
    throw error
  }
  return () => scratch.dispose()
}
