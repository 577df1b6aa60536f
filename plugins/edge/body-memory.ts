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

declare module 'fastify' {
  interface FastifyInstance {
    /** Memory of the bodies that are read as a whole. */
    bodyMemory: BodyMemory
  }
  interface FastifyRequest {
    /** Memory of the bodies of the request and its response; null before one is read. */
    bodyHold: Hold | null
  }
}

/** Memory of the bodies of one request and its response. It is given back when the response has ended. */
class Hold {
  readonly #budget: MemoryBudget
  readonly #client: string
  #held = 0
  #isReleased: boolean

  constructor(budget: MemoryBudget, request: FastifyRequest, { raw }: { readonly raw: NodeJS.EventEmitter }) {
    this.#budget = budget
    this.#client = networkOf(clientAddressOf(request))
    // No event follows if the client has left.
    this.#isReleased = request.gone?.signal.aborted === true
    raw.once('close', () => this.#release())
  }

  /** Returns false if the memory would be too much. */
  take(bytes: number): boolean {
    if (this.#isReleased || !this.#budget.take(bytes, this.#client)) return false
    this.#held += bytes
    return true
  }

  #release(): void {
    this.#isReleased = true
    if (this.#held > 0) this.#budget.give(this.#held, this.#client)
    this.#held = 0
  }
}

export type { Hold }

export class BodyMemory {
  readonly #budget = new MemoryBudget(mostBytes, mostOfClient)

  get used(): number {
    return this.#budget.used
  }

  /** Returns the memory of the bodies of a request. */
  holdFor(request: FastifyRequest, reply: { readonly raw: NodeJS.EventEmitter }): Hold {
    request.bodyHold ??= new Hold(this.#budget, request, reply)
    return request.bodyHold
  }
}

/** Returns the memory of the process, and adds its metric. */
export function bodyMemoryOf(stores: Claims, meter: ConfigurationMeter): BodyMemory {
  const memory = stores.claim('jingwei.body-memory', null, () => new BodyMemory())
  meter.gauge({
    name: 'jingwei_edge_body_memory_bytes',
    help: 'Bytes of request and response bodies that concerns and plugins hold in memory as a whole.',
    collect: (set) => set({}, memory.used)
  })
  return memory
}
