/** What a daemon tells of an export while a test goes on, as `interlockctl watch` prints it for programs. */

import type { StreamEvent } from '../../src/client/index.ts'
import { startControl } from './control-command.ts'

export type WatchedEvent = Exclude<StreamEvent, { kind: 'ready' | 'missed' }>

/** Settles when the stream is live. The function gives what has come since, in order. */
export async function watchExport(
  { controlPath }: { readonly controlPath: string },
  name: string,
): Promise<() => readonly WatchedEvent[]> {
  const program = startControl({ url: `unix:${controlPath}` }, ['watch', name, '-o', 'json'])
  const events = (): readonly StreamEvent[] => {
    const whole = program.stdout.slice(0, program.stdout.lastIndexOf('\n') + 1)
    const lines = whole.split('\n').filter((line) => line !== '')
    return lines.map((line) => JSON.parse(line) as StreamEvent)
  }
  await program.until('the stream', 20_000, () => events().length > 0)
  return () => events().filter((event): event is WatchedEvent => event.kind !== 'ready' && event.kind !== 'missed')
}
