/** Compares routes by the concerns that protect them. */
import type { Keys } from './concern.ts'

interface Protected {
  readonly edge: object
  readonly config?: Readonly<Record<string, unknown>> | undefined
  readonly plugins?: readonly string[] | undefined
}

/** Returns the plugins of a route. The value may be malformed, since routes with faults are compared, too. */
const pluginsOf = ({ plugins }: Protected) => (Array.isArray(plugins) ? (plugins as readonly string[]) : [])

export class Protections {
  readonly #harmless: ReadonlySet<string>
  /** Keys with a default, which every route has unless it switches them off. */
  readonly #everywhere: ReadonlySet<string>
  readonly #known = new Map<string, number>()

  constructor({ edge }: Keys) {
    this.#harmless = new Set(edge.filter(({ protects }) => protects === false).map(({ name }) => name))
    this.#everywhere = new Set(edge.filter((key) => key.default !== undefined).map(({ name }) => name))
  }

  /** Returns the names of a route's own protection, without keys that every route has; plugins as `config.NAME` and `plugins.NAME`. */
  namesOf(route: Protected): string[] {
    const names = this.#protecting(route).flatMap(([name, options]) =>
      options && !this.#everywhere.has(name) ? [name] : []
    )
    const settings = Object.keys(route.config ?? {}).map((name) => `config.${name}`)
    return [...names, ...settings, ...pluginsOf(route).map((name) => `plugins.${name}`)]
  }

  /** Returns a number that is equal for routes with the same protecting concerns and options. */
  of(route: Protected): number {
    const concerns = this.#protecting(route).filter(([, options]) => options !== undefined)
    const key = JSON.stringify([
      concerns.sort(([a], [b]) => (a < b ? -1 : 1)),
      route.config ?? {},
      [...pluginsOf(route)].sort()
    ])
    const known = this.#known.get(key) ?? this.#known.size
    this.#known.set(key, known)
    return known
  }

  #protecting({ edge }: Protected): [string, unknown][] {
    // In shadow mode, a concern refuses nothing.
    const isShadow = (options: { mode?: unknown } | null | undefined) => options?.mode === 'shadow'
    return Object.entries(edge).filter(([name, options]) => !this.#harmless.has(name) && !isShadow(options))
  }
}

/** Compares routes by the names of the concerns that protect them. */
export class Protection<R> {
  readonly namesOf: (route: R) => string[]

  constructor(namesOf: (route: R) => string[]) {
    this.namesOf = namesOf
  }

  /** Returns the protecting concerns that `route` has and `other` lacks. */
  lacks(other: R, route: R): string[] {
    const has = new Set(this.namesOf(other))
    return this.namesOf(route).filter((name) => !has.has(name))
  }
}
