import type { RouteOptions } from 'fastify'
import type { EdgeConcern } from './concern.ts'

type OnRoute = (route: RouteOptions) => void

declare module 'fastify' {
  interface FastifyInstance {
    edgeOrder: EdgeOrder
  }
}

/** Positions among the edge's concerns, at which other code can attach hooks to routes. */
export class EdgeOrder {
  /** Key of each concern; null for one that acts on every request, before all hooks of routes. */
  readonly #keys: readonly (string | null)[]
  /** What attaches hooks before the concern with the same index; last, after all of them. */
  readonly #attachers: OnRoute[][]

  constructor(concerns: readonly EdgeConcern[]) {
    this.#keys = concerns.map(({ keys }) => keys.find(({ levels }) => levels.includes('route'))?.name ?? null)
    this.#attachers = Array.from({ length: concerns.length + 1 }, () => [])
  }

  /** Keys of the concerns that have a position. */
  get names(): string[] {
    return this.#keys.filter((key) => key !== null)
  }

  /** Returns the `onRoute` hook to add before the concern with an index. */
  hookAt(index: number): OnRoute {
    const attachers = this.#attachers[index]!
    return (route) => {
      for (const attach of attachers) attach(route)
    }
  }

  /** Takes code that attaches hooks before or after a concern. Returns false if no concern has this key. */
  insert({ before, after }: { before?: string; after?: string }, attach: OnRoute): boolean {
    const index = this.#keys.indexOf(before ?? after ?? null)
    if (index === -1 || this.#keys[index] === null) return false
    this.#attachers[before === undefined ? index + 1 : index]!.push(attach)
    return true
  }
}
