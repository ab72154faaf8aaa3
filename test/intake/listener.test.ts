import { once } from 'node:events'
import { setTimeout as sleep } from 'node:timers/promises'
import { existsSync, readdirSync, readFileSync } from 'node:fs'
import type { Socket } from 'node:net'
import { join } from 'node:path'
import { describe, expect, it } from 'vitest'
import * as wire from '../nbd/handshake-script.ts'
import { eventually } from '../support/eventually.ts'
import { temporaryDirectory } from '../support/temporary-directory.ts'
import { readToEnd, refusalOfIntake, startIntake } from './intake-process.ts'
import type { IntakeProcess } from './intake-process.ts'

const TCP = 'tcp:127.0.0.1:0'
const GO = Buffer.concat([wire.clientFlags(3), wire.option(wire.GO, wire.infoData('vda'))])

const unixUrl = (): string => `unix:${join(temporaryDirectory('intake'), 'nbd.sock')}`
const adoptedBy = (intake: IntakeProcess, nth = 0): Promise<Record<string, unknown>> =>
  eventually('an adopted connection', () => intake.said('adopted')[nth]?.['adopted'] as Record<string, unknown>)
/** As /proc/net/tcp says it. */
const KEEPALIVE_TIMER = '02'

/** The timer that the kernel runs for the server's end of this connection. */
function timerOf(socket: Socket): string | undefined {
  const portOf = (address: string | undefined): number => Number(`0x${address?.split(':')[1] ?? ''}`)
  const lines = readFileSync('/proc/net/tcp', 'utf8')
    .split('\n')
    .map((line) => line.trim().split(/ +/u))
  const line = lines.find(
    ([, local, remote]) => portOf(local) === socket.remotePort && portOf(remote) === socket.localPort,
  )
  return line?.[5]?.split(':')[0]
}

const warningsOf = (intake: IntakeProcess): unknown[] =>
  intake.said('log').flatMap((line) => (line['log'] === 'warn' ? [line['message']] : []))

describe('a listener', () => {
  it('tells who the peer is, the same after a reconnect over TCP', async () => {
    const intake = await startIntake({ url: TCP })
    const ports: unknown[] = []
    for (let round = 0; round < 2; round++) {
      const socket = await intake.connect()
      socket.end(GO)
      await readToEnd(socket)
      const adopted = await adoptedBy(intake, round)
      expect(adopted).toMatchObject({ exportName: 'vda', peerIdentity: '127.0.0.1' })
      expect(adopted['peer']).toMatch(/^127\.0\.0\.1:\d+$/)
      ports.push(adopted['peer'])
    }
    expect(ports[0]).not.toBe(ports[1])
  })

  it('probes a TCP peer that is silent, so that one that vanished is noticed', async () => {
    const intake = await startIntake({ url: TCP })
    const socket = await intake.connect()
    socket.write(GO)
    await adoptedBy(intake)
    await eventually('only the timer of the probes to run', () => timerOf(socket) === KEEPALIVE_TIMER)
    socket.end()
  })

  it('tells an IPv4 peer by its own address on a socket for both families', async () => {
    const intake = await startIntake({ url: 'tcp:[::]:0' })
    const socket = await intake.connectTo(`tcp:127.0.0.1:${intake.address.split(':').at(-1) ?? ''}`)
    socket.end(GO)
    await readToEnd(socket)
    expect((await adoptedBy(intake))['peerIdentity']).toBe('127.0.0.1')
  })

  it('tells the user and the process behind a Unix socket', async () => {
    const intake = await startIntake({ url: unixUrl() })
    const socket = await intake.connect()
    socket.end(GO)
    await readToEnd(socket)
    const uid = process.getuid?.() ?? -1
    expect(await adoptedBy(intake)).toMatchObject({
      peerIdentity: `${uid}:${process.pid}`,
      peer: `unix:pid=${process.pid},uid=${uid}`,
    })
  })

  it('serves a client that says everything at once and ends its half, and one that sends byte by byte', async () => {
    const intake = await startIntake({ url: TCP })
    const hasty = await intake.connect()
    hasty.end(Buffer.concat([GO, Buffer.from('request')]))
    const slow = await intake.connect()
    const slowHeard = readToEnd(slow)
    for (const byte of Buffer.concat([GO, Buffer.from('request')])) {
      slow.write(Buffer.from([byte]))
      await sleep(1)
    }
    slow.end()
    for (const heard of [await readToEnd(hasty), await slowHeard]) {
      expect(heard.subarray(0, 18)).toEqual(wire.GREETING)
      expect(wire.parseReplies(heard.subarray(18, -40)).map((reply) => reply.type)).toEqual([3, 1])
      expect(heard.readBigUInt64BE(heard.length - 8)).toBe(7n)
    }
  })

  it('acknowledges ABORT before it hangs up', async () => {
    const intake = await startIntake({ url: TCP })
    const socket = await intake.connect()
    socket.write(Buffer.concat([wire.clientFlags(3), wire.option(wire.ABORT), Buffer.alloc(100_000)]))
    const heard = await readToEnd(socket)
    expect(wire.parseReplies(heard.subarray(18)).map((reply) => reply.type)).toEqual([wire.ACK])
  })

  it('hangs up on what is not NBD, and says why', async () => {
    const intake = await startIntake({ url: TCP })
    const socket = await intake.connect()
    socket.write('GET / HTTP/1.1\r\nHost: localhost\r\n\r\n')
    expect(await readToEnd(socket)).toEqual(wire.GREETING)
    await eventually('a warning', () => warningsOf(intake).length === 1)
    expect(warningsOf(intake)[0]).toContain('unknown client flags')
  })

  it('hangs up where EXPORT_NAME cannot be refused in words', async () => {
    const intake = await startIntake({ url: TCP })
    const socket = await intake.connect()
    socket.write(Buffer.concat([wire.clientFlags(3), wire.option(wire.EXPORT_NAME, Buffer.from('gone'))]))
    expect(await readToEnd(socket)).toEqual(wire.GREETING)
  })
})

describe('the deadline of a handshake', () => {
  it('cuts a peer that says nothing, one that trickles, one that does not read, and leaves the adopted alone', async () => {
    const intake = await startIntake({ url: TCP, handshakeTimeoutMs: 400 })
    const startedMs = performance.now()
    const adopted = await intake.connect()
    adopted.write(GO)
    const silent = await intake.connect()
    const trickling = await intake.connect()
    const deaf = await intake.connect()
    deaf.pause()
    const question = wire.option(wire.INFO, wire.infoData('vda', [1, 2, 3]))
    deaf.write(Buffer.concat([wire.clientFlags(3), ...Array.from({ length: 1000 }, () => question)]))
    const closed = Promise.all([readToEnd(silent), readToEnd(trickling)])
    for (const byte of Buffer.alloc(100)) {
      if (trickling.destroyed || trickling.readableEnded) break
      trickling.write(Buffer.from([byte]))
      await sleep(50)
    }
    await closed
    await eventually('three warnings', () => warningsOf(intake).length === 3)
    expect(warningsOf(intake)).toEqual(Array.from({ length: 3 }, () => 'the negotiation took too long'))
    const elapsedMs = performance.now() - startedMs
    expect(elapsedMs).toBeGreaterThan(390)
    expect(elapsedMs).toBeLessThan(3000)
    adopted.end('x')
    const heard = await readToEnd(adopted)
    expect(heard.readBigUInt64BE(heard.length - 8)).toBe(1n)
  })
})

describe('the allowance of connections', () => {
  it('counts those in negotiation and those in transmission, and lets the next one in when one has left', async () => {
    const intake = await startIntake({ url: TCP, connectionsMax: 2 })
    const adopted = await intake.connect()
    adopted.write(GO)
    await adoptedBy(intake)
    const negotiating = await intake.connect()
    await once(negotiating, 'data')
    for (let round = 0; round < 5; round++) {
      expect((await readToEnd(await intake.connect())).length).toBe(0)
    }
    expect(warningsOf(intake)).toEqual(['connections refused: there are as many as are allowed'])
    negotiating.destroy()
    await eventually('room for another client', async () => {
      const socket = await intake.connect()
      socket.end(GO)
      return (await readToEnd(socket)).length > 0
    })
  })
})

describe('closing a listener', () => {
  it('cuts negotiations, keeps what was adopted, hands nothing on afterwards, and lets the process end', async () => {
    const url = unixUrl()
    const intake = await startIntake({ url })
    const adopted = await intake.connect()
    adopted.write(GO)
    await adoptedBy(intake)
    const negotiating = await Promise.all(Array.from({ length: 5 }, () => intake.connect()))
    await Promise.all(negotiating.map((socket) => once(socket, 'data')))
    // Some of these are in the middle of their handover when the listener closes.
    const hasty = await Promise.all(Array.from({ length: 20 }, () => intake.connect()))
    for (const socket of hasty) socket.end(GO)
    const rests = Promise.all(negotiating.map((socket) => readToEnd(socket)))
    const answers = Promise.all(hasty.map((socket) => readToEnd(socket)))
    intake.program.signal('SIGTERM')
    for (const rest of await rests) expect(rest.length).toBe(0)
    await answers
    await eventually('closed', () => intake.said('closed').length === 1)
    expect(intake.said('closed')).toEqual([{ closed: true, negotiating: 0 }])
    expect(existsSync(url.slice('unix:'.length))).toBe(false)
    expect(readdirSync(join(url.slice('unix:'.length), '..'))).toEqual([])
    adopted.end('still here')
    const heard = await readToEnd(adopted)
    expect(heard.readBigUInt64BE(heard.length - 8)).toBe(10n)
    expect((await intake.program.exited).status).toBe(0)
    expect(intake.said('adopted').filter((line) => line['afterClose'] === true)).toEqual([])
  })
})

describe('an address that cannot be listened on', () => {
  it('is refused with the reason', async () => {
    expect(await refusalOfIntake({ url: 'tls:127.0.0.1:1' })).toMatchObject({ refused: 'listen-failed' })
    expect(await refusalOfIntake({ url: 'nonsense' })).toMatchObject({ refused: 'listen-failed' })
    const taken = await startIntake({ url: TCP })
    const { refused, detail } = await refusalOfIntake({ url: taken.address })
    expect(refused).toBe('listen-failed')
    expect(detail).toContain(taken.address)
    expect(detail).toContain('EADDRINUSE')
  })
})
