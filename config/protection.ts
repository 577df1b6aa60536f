/** Concerns that stand between a request and its service, so that two routes can be compared. */
import type { EdgePolicy } from './schema.ts'

/** Concerns that keep nobody out. All others do, those of plugins included. */
const harmless: ReadonlySet<string> = new Set(['accessLog', 'cors', 'host', 'requestId'])
/** Concerns that every route has unless it switches them off; they say little of what a path is worth. */
const everywhere: ReadonlySet<string> = new Set(['bodyLimit', 'websocket'])

interface Protected {
  readonly edge: EdgePolicy
  readonly config?: Readonly<Record<string, unknown>> | undefined
  readonly plugins?: readonly string[] | undefined
}

const protecting = ({ edge }: Protected) => Object.entries(edge).filter(([name]) => !harmless.has(name))

/** The names of what a route asks for besides what every route has; of its plugins, as `config.NAME` and `plugins.NAME`. */
export function concernsOf(route: Protected): string[] {
  const names = protecting(route).flatMap(([name, options]) => (options && !everywhere.has(name) ? [name] : []))
  const settings = Object.keys(route.config ?? {}).map((name) => `config.${name}`)
  return [...names, ...settings, ...(route.plugins ?? []).map((name) => `plugins.${name}`)]
}

/** Gives routes that the same concerns protect in the same way the same object. */
export class Protections {
  readonly #known = new Map<string, object>()

  of(route: Protected): object {
    const concerns = protecting(route).filter(([, options]) => options !== undefined)
    const key = JSON.stringify([
      concerns.sort(([a], [b]) => (a < b ? -1 : 1)),
      route.config ?? {},
      [...(route.plugins ?? [])].sort()
    ])
    const known = this.#known.get(key) ?? { key }
    this.#known.set(key, known)
    return known
  }
}
