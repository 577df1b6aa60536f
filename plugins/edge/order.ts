import type { RouteOptions } from 'fastify'

type OnRoute = (route: RouteOptions) => void

declare module 'fastify' {
  interface FastifyInstance {
    edgeOrder: EdgeOrder
  }
}

/** Returns a concern's name as its key is written in the configuration: `rateLimit` for `rate-limit`. */
const keyOf = (name: string) => name.replace(/-(.)/g, (_, letter: string) => letter.toUpperCase())

/** Positions among the edge's concerns, at which other code can attach hooks to routes. */
export class EdgeOrder {
  readonly names: readonly string[]
  /** What attaches hooks before the concern with the same index; last, after all of them. */
  readonly #attachers: OnRoute[][]

  constructor(names: readonly string[]) {
    this.names = names.map(keyOf)
    this.#attachers = Array.from({ length: names.length + 1 }, () => [])
  }

  /** Returns the `onRoute` hook to add before the concern with an index. */
  hookAt(index: number): OnRoute {
    const attachers = this.#attachers[index]!
    return (route) => {
      for (const attach of attachers) attach(route)
    }
  }

  /** Takes code that attaches hooks before or after a concern. Returns false if there is no concern of this name. */
  insert({ before, after }: { before?: string; after?: string }, attach: OnRoute): boolean {
    const index = this.names.indexOf(keyOf(before ?? after ?? ''))
    if (index === -1) return false
    this.#attachers[before === undefined ? index + 1 : index]!.push(attach)
    return true
  }
}
