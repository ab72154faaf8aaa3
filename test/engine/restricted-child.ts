/**
 * A process that is not allowed everything, as in a container: it puts the restriction on itself, then says on standard
 * output what became of the engine.
 */

import { closeSync, openSync, writeSync } from 'node:fs'
import koffi from 'koffi'
import { chooseEngine } from '../../src/engine/choice.ts'
import type { EngineSetting } from '../../src/engine/choice.ts'
import { createEngine } from '../../src/engine/create.ts'
import { createEventfd } from '../../src/posix/eventfd.ts'
import { mapMemory } from '../../src/posix/mapping.ts'

const [restriction, setting, path] = process.argv.slice(2) as [string, EngineSetting, string]

const PR_SET_NO_NEW_PRIVS = 38
const PR_SET_SECCOMP = 22
const SECCOMP_MODE_FILTER = 2
const SECCOMP_RET_ALLOW = 0x7fff_0000
const SECCOMP_RET_ERRNO = 0x0005_0000
const BPF_LOAD_WORD = 0x20
const BPF_JUMP_EQUAL = 0x15
const BPF_RETURN = 0x06
const IO_URING_SETUP = 425

/** Every io_uring_setup of this thread fails with that errno; everything else is allowed. */
function forbidRings(errno: number): void {
  const program = mapMemory(4096)
  const view = new DataView(program.bytes.buffer)
  const instructions: readonly (readonly [code: number, jumpTrue: number, jumpFalse: number, constant: number])[] = [
    [BPF_LOAD_WORD, 0, 0, 0],
    [BPF_JUMP_EQUAL, 0, 1, IO_URING_SETUP],
    [BPF_RETURN, 0, 0, SECCOMP_RET_ERRNO | errno],
    [BPF_RETURN, 0, 0, SECCOMP_RET_ALLOW],
  ]
  for (const [index, [code, jumpTrue, jumpFalse, constant]] of instructions.entries()) {
    view.setUint16(64 + index * 8, code, true)
    view.setUint8(64 + index * 8 + 2, jumpTrue)
    view.setUint8(64 + index * 8 + 3, jumpFalse)
    view.setUint32(64 + index * 8 + 4, constant, true)
  }
  view.setUint16(0, instructions.length, true)
  view.setBigUint64(8, program.address + 64n, true)
  const prctl = koffi.load(null).func('int prctl(int option, ulong a, intptr_t b, ulong c, ulong d)')
  if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) !== 0) throw new Error('prctl refuses')
  if (prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, program.address, 0, 0) !== 0) throw new Error('seccomp refuses')
}

/** One read of 4 KiB through a real engine, with as much of the arena registered as the kernel lets. */
function readThroughEngine(): string {
  const arena = mapMemory(16 * 1024 * 1024)
  const stopWord = new Int32Array(new SharedArrayBuffer(4))
  const engine = createEngine('io_uring', {
    arena,
    doorbellDescriptor: createEventfd(),
    stopWord,
    streamsMax: 4,
    filesMax: 4,
    operationsMax: 64,
    registeredBytes: arena.lengthBytes,
    threadPoolSize: 4,
  })
  const descriptor = openSync(path, 'r')
  const file = engine.addFile(descriptor, 512)
  const completion = { token: 0, result: 0 }
  let result: number | undefined
  engine.run(() => {
    if (result === undefined) {
      result = 0
      engine.read(file, 1, 0, 0, 4096)
    }
    while (engine.next(completion)) {
      result = completion.result
      stopWord[0] = 1
    }
  })
  const { description } = engine
  engine.dispose()
  closeSync(descriptor)
  return `read ${result} with ${description}`
}

function answer(): string {
  if (restriction === 'EPERM') forbidRings(1)
  if (restriction === 'ENOSYS') forbidRings(38)
  if (restriction === 'memlock') return readThroughEngine()
  try {
    const { kind, reason } = chooseEngine(setting)
    return `${kind}: ${reason}`
  } catch (error) {
    return `refused: ${(error as Error).message}`
  }
}

writeSync(1, answer())
