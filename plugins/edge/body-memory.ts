/**
 * Memory of the bodies that concerns and plugins read as a whole: bounded for the gateway, and for each client, who could take
 * all of it.
 */
import type { FastifyRequest } from 'fastify'
import type { ConfigurationMeter } from '../meter.ts'
import type { Claims } from '../stores.ts'
import { MemoryBudget } from './memory-budget.ts'
import { clientAddressOf, networkOf } from './protocol/client-address.ts'

/** Bytes of all bodies that are in memory. */
const mostBytes = 256 * 1024 * 1024

/** Bytes of those of one client. */
const mostOfClient = 64 * 1024 * 1024

/** Memory of the bodies of one request and its response. */
export interface Hold {
  /** Returns false if the memory would be too much. */
  take(bytes: number): boolean
}

export class BodyMemory {
  readonly #budget = new MemoryBudget(mostBytes, mostOfClient)
  readonly #holds = new WeakMap<FastifyRequest, Hold>()

  get used(): number {
    return this.#budget.used
  }

  /** Returns the memory of the bodies of a request, which is given back when the response has ended. */
  holdFor(request: FastifyRequest, reply: { readonly raw: NodeJS.EventEmitter }): Hold {
    let hold = this.#holds.get(request)
    if (hold === undefined) {
      hold = this.#newHold(request, reply)
      this.#holds.set(request, hold)
    }
    return hold
  }

  #newHold(request: FastifyRequest, { raw }: { readonly raw: NodeJS.EventEmitter }): Hold {
    const client = networkOf(clientAddressOf(request))
    let held = 0
    // No event follows if the client has left.
    let isReleased = request.gone?.signal.aborted === true
    raw.once('close', () => {
      isReleased = true
      if (held > 0) this.#budget.give(held, client)
      held = 0
    })
    return {
      take: (bytes) => {
        if (isReleased || !this.#budget.take(bytes, client)) return false
        held += bytes
        return true
      }
    }
  }
}

/** Returns the memory of the process. */
export const bodyMemoryOf = (stores: Claims): BodyMemory =>
  stores.claim('jingwei.body-memory', null, () => new BodyMemory())

/** Adds the metric of the memory. */
export function measureBodies(memory: BodyMemory, meter: ConfigurationMeter): void {
  meter.gauge({
    name: 'jingwei_edge_body_memory_bytes',
    help: 'Bytes of request and response bodies that concerns and plugins hold in memory as a whole.',
    collect: (set) => set({}, memory.used)
  })
}
