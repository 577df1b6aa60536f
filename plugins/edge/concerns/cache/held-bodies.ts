/**
 * Stored bodies that clients are reading. A slow client may read a body long after the store has dropped it, and each lookup in
 * Redis makes another copy of one, so the store's own limit does not bound them.
 */
import type { FastifyRequest } from 'fastify'
import { MemoryBudget } from '../../memory-budget.ts'
import { clientAddressOf, networkOf } from '../../protocol/client-address.ts'
import type { Asked } from './asked.ts'
import type { StoredResponse } from './stored.ts'

/** Size up to which bodies do not count: they are sent in one piece, as those of services are. */
const smallBytes = 64 * 1024

/** Bytes of all bodies, and of those of one client, who could take all of it. */
export const mostBytes = 256 * 1024 * 1024
export const mostOfClient = mostBytes / 4

interface Held {
  readonly body: Buffer
  readonly client: string
  readers: number
}

/** A response whose body is held until it is released. */
export interface HeldResponse {
  readonly stored: StoredResponse
  readonly release: () => void
}

export class HeldBodies {
  readonly #budget = new MemoryBudget(mostBytes, mostOfClient)
  /** One body for all that read the same response. */
  readonly #bodies = new Map<string, Held>()

  /** Bytes of the bodies. */
  get bytes(): number {
    return this.#budget.used
  }

  /** Holds the body of a response for the client of a request; null if there is no memory. `release` is to be called once. */
  hold(stored: StoredResponse, { opts }: Asked): HeldResponse | null {
    const { body, key, varyValues, storedAt } = stored
    const { length } = body
    if (length <= smallBytes) return { stored, release: () => {} }
    const id = `${key} ${varyValues} ${storedAt}`
    const same = this.#bodies.get(id)
    if (same?.body.equals(body)) {
      same.readers++
      return {
        stored: same.body === body ? stored : { ...stored, body: same.body },
        release: () => this.#leave(id, same)
      }
    }
    const client = networkOf(clientAddressOf(opts.request as FastifyRequest))
    const held: Held = { body, client, readers: 1 }
    if (!this.#budget.take(length, held.client)) return null
    if (same === undefined) this.#bodies.set(id, held)
    return { stored, release: () => this.#leave(id, held) }
  }

  #leave(id: string, held: Held): void {
    held.readers--
    if (held.readers > 0) return
    this.#budget.give(held.body.length, held.client)
    if (this.#bodies.get(id) === held) this.#bodies.delete(id)
  }
}
