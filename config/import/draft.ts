/** The configuration that an import writes, while it is made. */
import { ImportFault } from './foreign.ts'
import { dropUnshared } from './limits.ts'
import type { Settings } from './yaml-text.ts'
import { yamlText } from './yaml-text.ts'

export interface Imported {
  /** The configuration. */
  readonly yaml: string
  /** Lines for people: numbers of what was converted, and all that is left to do. */
  readonly summary: string
  /** Texts of files to which the configuration refers, by their names in its folder. */
  readonly files: ReadonlyMap<string, string>
}

/** Longest name of a service, route or consumer's group. */
const longestName = 63

/** Names of plugins that refuse requests. */
const protective =
  /auth|acl|restrict|jwt|oauth|oidc|openid|saml|session|mtls|cert|waf|modsec|bot|firewall|csrf|limit|rate|quota|opa|cedar|casbin|key|token|secur|guard|protect|threat|webhook|moderat|workflow|sign|verif|valid|plugin|function|lua|script|wasm|block|deny|allow|rbac|ldap/i

export class Draft {
  readonly listen: Settings = {}
  /** Several listeners, in place of `listen`. */
  readonly listeners: Settings[] = []
  readonly edge: Settings = {}
  readonly mesh: Settings = {}
  readonly services: Settings = {}
  readonly routes: Settings[] = []
  readonly consumers: Settings[] = []
  /** URL of the Redis in which limits are counted and responses stored; null for none. */
  redis: string | null = null
  /** Settings of pushed metrics. */
  metricsPush: Settings | null = null
  /** Options of `keyAuth` that one part of the file declares, for routes of another. */
  keyAuth: Settings | null = null
  /** Settings of spans. */
  tracing: Settings | null = null
  readonly #files = new Map<string, string>()
  readonly #comments = new Map<unknown, string[]>()
  readonly #notes: string[] = []
  /** Notes about the whole file, which stand at its top. */
  readonly #general: string[] = []
  readonly #names = new Set<string>()
  /** Numbers that names are tried with, by their first parts. */
  readonly #numbers = new Map<string, number>()

  /** Adds a note to the summary, and as a comment before the settings that it is about, or at the top. */
  note(about: Settings | null, text: string): void {
    this.#notes.push(text)
    if (about !== null) this.comment(about, text)
    else this.#general.push(lineOf(text))
  }

  /**
   * Notes what would leave the gateway more open than the other one. It becomes a key `todo`, which is a fault: so the
   * configuration does not start until somebody has decided.
   */
  undecided(about: Settings | null, text: string): void {
    const target = about ?? this.edge
    target.todo = [...((target.todo as string[] | undefined) ?? []), text]
    this.#notes.push(text)
  }

  /** Notes a plugin that is not converted; one that protects is undecided. */
  unknown(about: Settings | null, kind: string, text: string): void {
    if (protective.test(kind)) this.undecided(about, text)
    else this.note(about, text)
  }

  comment(about: Settings, text: string): void {
    this.#comments.set(about, [...(this.#comments.get(about) ?? []), lineOf(text)])
  }

  /** Adds a file to which the configuration refers, and returns its name. Files with one text are one. */
  file(wanted: string, ending: string, text: string): string {
    for (const [name, known] of this.#files) if (known === text && name.endsWith(ending)) return name
    const name = `${this.name('file', `${wanted}${ending.replace(/\.\w+$/, '')}`)}${/\.\w+$/.exec(ending)?.[0] ?? ''}`
    this.#files.set(name, text)
    return name
  }

  /** Returns a name that is valid and not in use: of `a-z`, `0-9` and dashes. */
  name(kind: 'service' | 'route' | 'file', wanted: string): string {
    const base =
      wanted
        .toLowerCase()
        .replace(/[^a-z0-9]+/g, '-')
        .replace(/^-+|-+$/g, '')
        .slice(0, longestName - 5)
        .replace(/-+$/, '') || kind
    const key = `${kind} ${base}`
    let name = base
    let number = this.#numbers.get(key) ?? 2
    while (this.#names.has(`${kind} ${name}`)) name = `${base}-${number++}`
    this.#numbers.set(key, number)
    this.#names.add(`${kind} ${name}`)
    return name
  }

  finish(gateway: string): Imported {
    const { listeners, redis, tracing, metricsPush, edge, mesh, services, routes, consumers } = this
    if (routes.length === 0) throw new ImportFault(`no routes of ${gateway} were found in this file`)
    dropUnshared(edge, [...routes, ...consumers])
    // Settings of all listeners, such as trusted proxies.
    for (const listener of listeners) Object.assign(listener, { ...this.listen, ...listener })
    const listen = listeners.length > 0 ? listeners : this.listen
    const all: Settings = {
      ...(Object.keys(listen).length > 0 && { listen }),
      ...(redis !== null && { redis: { url: redis } }),
      ...(tracing !== null && { tracing }),
      ...(metricsPush !== null && { metricsPush }),
      ...(Object.keys(edge).length > 0 && { edge }),
      ...(Object.keys(mesh).length > 0 && { mesh }),
      services,
      routes,
      ...(consumers.length > 0 && { consumers })
    }
    const counts = [
      count(routes.length, 'route'),
      count(Object.keys(services).length, 'service'),
      ...(consumers.length > 0 ? [count(consumers.length, 'consumer')] : [])
    ]
    const notes = [...new Set(this.#notes)]
    const general = [...new Set(this.#general)].map((text) => `# ${text}`)
    const head = `# From ${gateway}. Decide on each comment, and on each "todo", which is a fault until you do: jingwei check FILE`
    return {
      files: this.#files,
      yaml: `${[head, ...general].join('\n')}\n${yamlText(all, this.#comments)}`,
      summary: [
        `${gateway}: wrote ${counts.join(', ')}`,
        ...(notes.length === 0 ? ['nothing is left to do by hand'] : [`${notes.length} left to do by hand:`]),
        ...notes.map((note) => `- ${note}`),
        'Prefixes end at a segment boundary here: /users matches /users/7, and not /users2; for both, write /users*'
      ].join('\n')
    }
  }
}

/** Returns a text as one line of a comment. */
const lineOf = (text: string) => text.replace(/\s+/g, ' ').slice(0, 300)

const count = (number: number, what: string) => `${number} ${what}${number === 1 ? '' : 's'}`

/** Returns milliseconds as a duration. */
export function duration(ms: number): string {
  if (ms % 60_000 === 0) return `${ms / 60_000}m`
  return ms % 1000 === 0 ? `${ms / 1000}s` : `${ms}ms`
}
