/** Concerns that stand between a request and its service, so that two routes can be compared. */
import type { Keys } from './concern.ts'

interface Protected {
  readonly edge: object
  readonly config?: Readonly<Record<string, unknown>> | undefined
  readonly plugins?: readonly string[] | undefined
}

export class Protections {
  readonly #harmless: ReadonlySet<string>
  /** Keys that every route has unless it switches them off; they say little of what a path is worth. */
  readonly #everywhere: ReadonlySet<string>
  readonly #known = new Map<string, number>()

  constructor({ edge }: Keys) {
    this.#harmless = new Set(edge.filter(({ protects }) => protects === false).map(({ name }) => name))
    this.#everywhere = new Set(edge.filter((key) => key.default !== undefined).map(({ name }) => name))
  }

  /** The names of what a route asks for besides what every route has; of its plugins, as `config.NAME` and `plugins.NAME`. */
  namesOf(route: Protected): string[] {
    const names = this.#protecting(route).flatMap(([name, options]) =>
      options && !this.#everywhere.has(name) ? [name] : []
    )
    const settings = Object.keys(route.config ?? {}).map((name) => `config.${name}`)
    return [...names, ...settings, ...(route.plugins ?? []).map((name) => `plugins.${name}`)]
  }

  /** Gives routes that the same concerns protect in the same way the same number. */
  of(route: Protected): number {
    const concerns = this.#protecting(route).filter(([, options]) => options !== undefined)
    const key = JSON.stringify([
      concerns.sort(([a], [b]) => (a < b ? -1 : 1)),
      route.config ?? {},
      [...(route.plugins ?? [])].sort()
    ])
    const known = this.#known.get(key) ?? this.#known.size
    this.#known.set(key, known)
    return known
  }

  #protecting({ edge }: Protected): [string, unknown][] {
    return Object.entries(edge).filter(([name]) => !this.#harmless.has(name))
  }
}
