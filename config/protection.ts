/** What stands between a request and its service, so that two routes can be compared. */
import type { EdgePolicy } from './schema.ts'

/** Concerns that keep nobody out. All others do, those of plugins included. */
const harmless: ReadonlySet<string> = new Set(['accessLog', 'cors', 'host', 'requestId'])

interface Protected {
  readonly edge: EdgePolicy
  readonly config?: Readonly<Record<string, unknown>>
}

/** Gives equal routes the same object: routes that the same concerns protect in the same way. */
export class Protections {
  readonly #known = new Map<string, object>()

  of({ edge, config = {} }: Protected): object {
    const concerns = Object.entries(edge).filter(([name, options]) => !harmless.has(name) && options !== undefined)
    const key = JSON.stringify([concerns.sort(([a], [b]) => (a < b ? -1 : 1)), config])
    const known = this.#known.get(key) ?? { key }
    this.#known.set(key, known)
    return known
  }
}
