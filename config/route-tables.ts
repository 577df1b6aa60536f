/** Route tables by listener. A route with `match.listeners` exists only on these listeners. Pure. */
import type { PathReadings } from './path-reading.ts'
import type { Candidate } from './route-table.ts'
import { RouteTable } from './route-table.ts'
import type { RouteMatch } from './schema.ts'

type Listeners = Pick<RouteMatch, 'listeners'>

/** One table for each listener that some route names, and one for all other listeners. */
export class RouteTables<T> {
  /** All methods of all routes. */
  readonly methods = new Set<string>()
  readonly #others: RouteTable<T>
  readonly #named = new Map<string, RouteTable<T>>()

  /** `matches`: the matches of all routes that will be added. */
  constructor(readings: PathReadings, matches: readonly Listeners[]) {
    this.#others = new RouteTable(readings)
    for (const name of matches.flatMap(({ listeners }) => listeners ?? [])) {
      if (!this.#named.has(name)) this.#named.set(name, new RouteTable(readings))
    }
  }

  /** The only table, if no route names a listener; null otherwise. */
  get only(): RouteTable<T> | null {
    return this.#named.size === 0 ? this.#others : null
  }

  /** Returns the table of a listener. */
  of(listener: string): RouteTable<T> {
    return this.#named.get(listener) ?? this.#others
  }

  /** Returns the tables that contain a route. */
  with({ listeners }: Listeners): RouteTable<T>[] {
    if (listeners === undefined) return [this.#others, ...this.#named.values()]
    return [...new Set(listeners)].map((name) => this.of(name))
  }

  /** Adds a route. Returns the value of a route that matches some of the same requests, if there is one. */
  add(candidate: Candidate<T>): T | undefined {
    let other: T | undefined
    for (const table of this.with(candidate.match)) {
      const found = table.add(candidate)
      other ??= found
      for (const method of table.methods) this.methods.add(method)
    }
    return other
  }
}
