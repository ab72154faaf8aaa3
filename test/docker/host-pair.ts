/**
 * Two hosts over one disk, as containers: a folder that both mount as /srv (image and ownership record), a state of its
 * own for each, a private network. The folder lies on a disk of this machine, so a test reads the image with no server.
 */

import { chmodSync, closeSync, openSync, readSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { inject } from 'vitest'
import { DirectoryHome } from '../../src/ownership/directory-home.ts'
import type { OwnershipRecord } from '../../src/ownership/home.ts'
import { inlineRunner } from '../blocking/inline-runner.ts'
import { ContainerEngine, folderOnDisk } from '../support/container-engine.ts'
import { openFolder, startContainerHost } from '../support/container-host.ts'
import type { ContainerHost, ContainerHostOptions } from '../support/container-host.ts'
import type { Scratch } from '../support/scratch.ts'

const IMAGE_BYTES = 16 * 1024 * 1024
const EVERYBODY = 0o666
export const BLOCK_BYTES = 4_096

export function engineOfRun(): ContainerEngine {
  return new ContainerEngine(inject('containerEngine'))
}

/** A folder to be mounted as /srv, with an image of zeros in it. */
export function sharedFolder(scratch: Scratch): { readonly folder: string; readonly image: string } {
  const folder = openFolder(folderOnDisk(scratch, 'shared'), 'srv')
  const image = join(folder, 'vda.raw')
  writeFileSync(image, Buffer.alloc(IMAGE_BYTES))
  chmodSync(image, EVERYBODY)
  return { folder, image }
}

export interface HostPair {
  readonly source: ContainerHost
  readonly destination: ContainerHost
  /** Mounted by both as /srv. */
  readonly folder: string
  readonly image: string
  readonly network: string
}

type Words = Partial<Pick<ContainerHostOptions, 'exports' | 'settings' | 'words'>>

export interface PairOptions {
  readonly source?: Words
  /** May depend on what the source has become. */
  readonly destination?: (source: ContainerHost) => Words
  /** Further words for `docker network create`. */
  readonly network?: readonly string[]
}

/** The source is open, the destination stands by. */
export async function startPair(scratch: Scratch, options: PairOptions = {}): Promise<HostPair> {
  const engine = engineOfRun()
  const { folder, image } = sharedFolder(scratch)
  const network = await engine.network(scratch, 'storage', options.network)
  const start = (name: string, standby: boolean, own: Words): Promise<ContainerHost> =>
    startContainerHost(scratch, engine, {
      image: inject('containerImages').interlockd,
      name,
      network,
      exports: (own.exports ?? [{ name: 'vda', path: '/srv/vda.raw' }]).map((entry) => ({ ...entry, standby })),
      settings: own.settings ?? [],
      words: ['--volume', `${folder}:/srv`, ...(own.words ?? [])],
    })
  const source = await start('source', false, options.source ?? {})
  const destination = await start('destination', true, options.destination?.(source) ?? {})
  return { source, destination, folder, image, network }
}

export function blockOf(image: string, index: number): Buffer {
  const file = openSync(image, 'r')
  const bytes = Buffer.alloc(BLOCK_BYTES)
  readSync(file, bytes, 0, BLOCK_BYTES, index * BLOCK_BYTES)
  closeSync(file)
  return bytes
}

export async function recordAt(folder: string): Promise<OwnershipRecord> {
  const newest = await DirectoryHome.at(inlineRunner, folder).readNewest()
  if (newest.kind !== 'record') throw new Error(`there is no record in ${folder}`)
  return newest.record
}
