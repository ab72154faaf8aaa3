/**
 * Which client of an exclusive export may write. A frontend that lost its connection comes back on a new one while bytes
 * of the old one may still be on their way, in a socket that nobody has read to its end; this rule makes sure that such
 * bytes are never admitted once the new connection has written. Clients are the numbers of their arrival, which only grow.
 *
 * 1. The newest client that has written is the writer. No client that arrived before it is ever admitted again, also
 *    after the writer itself has gone: the newest arrival that ever wrote is remembered, not the connection.
 * 2. The first write of a newer client, not its arrival, makes it the writer and evicts the older one. A client that
 *    only reads (somebody's nbdinfo) disturbs nobody.
 * 3. While a writer lives, the identities of those evicted in its favour are barred: they may not come back, nor may
 *    another connection of theirs write, unless the identity is the writer's own. Otherwise two hosts with the same
 *    disk would evict each other for ever. When the writer goes the bar falls.
 *
 * A shared export has no succession: everybody may write.
 */

import { assert, present } from '../foundation/assert.ts'

/**
 * admit: go on. evict-older: go on, and nothing more is admitted from `evicted`; cut it. barred: this client is to be
 * cut itself, and the write dropped.
 */
export type WriteDecision = 'admit' | 'evict-older' | 'barred'
/** barred: refuse the connection and log it. barred-again: refuse it in silence. */
export type ArrivalDecision = 'welcome' | 'barred' | 'barred-again'

const NOBODY = -1

export class WriterSuccession {
  readonly #exclusive: boolean
  readonly #identities = new Map<number, string>()
  /** The writer, while its connection lives. */
  #writer = NOBODY
  /** The newest client that ever wrote. */
  #newest = NOBODY
  #evicted = NOBODY
  /** Barred identities, and whether a refusal of theirs was reported. */
  readonly #barred = new Map<string, boolean>()

  constructor(clients: 'exclusive' | 'shared') {
    this.#exclusive = clients === 'exclusive'
  }

  /** The living client that wrote last, or -1. Always -1 in a shared export. */
  get writer(): number {
    return this.#writer
  }

  /** Whom the latest 'evict-older' evicted. */
  get evicted(): number {
    return this.#evicted
  }

  /** A connection comes in. One that is not welcome is not remembered. */
  arrive(client: number, identity: string): ArrivalDecision {
    assert(!this.#identities.has(client), 'a client arrives once')
    const reported = this.#barred.get(identity)
    if (reported !== undefined) {
      this.#barred.set(identity, true)
      return reported ? 'barred-again' : 'barred'
    }
    this.#identities.set(client, identity)
    return 'welcome'
  }

  /** A write of this client has passed the gate and would be admitted next. */
  admitWrite(client: number): WriteDecision {
    if (client === this.#writer || !this.#exclusive) return 'admit'
    const identity = this.#identityOf(client)
    if (client < this.#newest || this.#barred.has(identity)) {
      this.#bar(identity)
      return 'barred'
    }
    const older = this.#writer
    this.#barred.clear()
    this.#writer = client
    this.#newest = client
    if (older === NOBODY) return 'admit'
    this.#evicted = older
    this.#bar(this.#identityOf(older))
    return 'evict-older'
  }

  /** The connection is gone, whoever ended it. */
  leave(client: number): void {
    assert(this.#identities.delete(client), 'a client that leaves has arrived')
    if (client !== this.#writer) return
    this.#writer = NOBODY
    this.#barred.clear()
  }

  isBarred(identity: string): boolean {
    return this.#barred.has(identity)
  }

  invariants(): void {
    assert(this.#writer <= this.#newest, 'nobody newer than the writer has written')
    assert(this.#writer === NOBODY || this.#identities.has(this.#writer), 'the writer is connected')
    assert(this.#barred.size === 0 || this.#writer !== NOBODY, 'only a living writer bars anybody')
    assert(
      this.#writer === NOBODY || !this.#barred.has(this.#identityOf(this.#writer)),
      "the writer's own identity is not barred",
    )
    assert(this.#exclusive || this.#newest === NOBODY, 'a shared export has no succession')
  }

  /** Bars an identity in favour of the living writer, whose own is never barred. */
  #bar(identity: string): void {
    if (this.#writer === NOBODY || identity === this.#identityOf(this.#writer)) return
    if (!this.#barred.has(identity)) this.#barred.set(identity, false)
  }

  #identityOf(client: number): string {
    return present(this.#identities.get(client), 'the identity of a client that has arrived')
  }
}
