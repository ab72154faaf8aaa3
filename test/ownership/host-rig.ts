/**
 * Hosts as directories of records see them: each has a state directory, and homes of images in a directory that all see.
 */

import type { BlockingRunner } from '../../src/blocking/calls.ts'
import { DirectoryHome } from '../../src/ownership/directory-home.ts'
import type { DirectoryWatch } from '../../src/ownership/directory-watch.ts'
import { RecordsDirectory } from '../../src/ownership/records-directory.ts'
import type { RecordsUse } from '../../src/ownership/records-directory.ts'
import { inlineRunner } from '../blocking/inline-runner.ts'
import { temporaryDirectory } from '../support/temporary-directory.ts'

export interface HostOptions {
  readonly runner?: BlockingRunner
  readonly watch?: DirectoryWatch
  /** Without one it is a host that has never been anywhere. */
  readonly stateDirectory?: string
  readonly use?: RecordsUse
}

/** One run of a host: the homes that it hands out share what it knows of the directory. */
export function homesUnder(
  directory: string,
  { runner = inlineRunner, watch, stateDirectory = temporaryDirectory('state'), use = 'host' }: HostOptions = {},
): (imageId: string) => DirectoryHome {
  const records = new RecordsDirectory(directory, stateDirectory, runner, use)
  return (imageId) => new DirectoryHome(runner, { kind: 'under', directory: records, imageId }, watch)
}
