/** Place and context in which a plugin of Kong is converted. */
import type { Draft } from './draft.ts'
import type { Foreign } from './foreign.ts'
import type { Upstreams } from './kong-services.ts'
import type { Settings } from './yaml-text.ts'

/** Kinds of what a plugin may be limited to. */
export const kinds = ['service', 'route', 'consumer', 'consumer_group'] as const
export type Kind = (typeof kinds)[number]

export interface KongContext {
  readonly draft: Draft
  /** Keys of the consumers' tokens, for the routes with the plugin jwt. */
  readonly issuers: Settings[]
  readonly of: Upstreams
  /** Services that plugins have added, by their addresses. */
  readonly routed: Map<string, string>
  /** True if there is a listener for https. */
  readonly isSecure: boolean
  /** True if expressions in paths begin with `~`. Before version 3, a path with other characters than those of plain paths is one. */
  readonly marksExpressions: boolean
  /** Returns further routes for the one whose plugins are converted. */
  variants?: (route: Settings) => Settings[]
}

/** Place of a plugin: a route, all routes, or a consumer. */
export interface Place {
  /** Settings of `edge` there. */
  readonly target: Settings
  /** Settings that a note is about. */
  readonly about: Settings | null
  /** Name of the limits that several routes share. */
  readonly name: string
  /** True if a consumer is known whatever the plugins. */
  readonly hasMethod: boolean
  /** True for the only route of a service. */
  readonly isAlone?: boolean
}

export interface Scope extends Place {
  readonly context: KongContext
  readonly authenticates: boolean
  /** True if the plugin is that of a service or of all routes, so that they share its limit. */
  readonly isShared: boolean
}

export type Convert = (config: Foreign, scope: Scope) => void

/** Returns the name or id to which a reference points: `service: orders` or `service: { name: orders }`. */
export function reference(fields: Foreign, key: string): string | undefined {
  const value = fields.value(key)
  if (typeof value !== 'object' || value === null) return fields.text(key)
  const target = fields.map(key)!
  return target.text('name') ?? target.text('username') ?? target.text('id')
}

/** The plugins that are listed outside of what they apply to. */
export interface Scoped {
  readonly global: readonly Foreign[]
  of(kind: Kind, name: string): readonly Foreign[]
  /** Returns the plugins of objects that are not in the file, with their owners. */
  lost(): readonly { readonly plugin: Foreign; readonly owner: string }[]
}

export function pluginsByScope(plugins: readonly Foreign[]): Scoped {
  const asked = new Set<string>()
  const scopes = plugins.map((plugin) => {
    const found = kinds.flatMap((kind) => {
      const name = reference(plugin, kind)
      return name === undefined ? [] : [{ kind, id: `${kind} ${name}` }]
    })
    // The service of a route says nothing more.
    const route = found.find(({ kind }) => kind === 'route')
    const of = route === undefined ? found : found.filter(({ kind }) => kind !== 'service')
    return { plugin, of: of.map(({ id }) => id) }
  })
  return {
    global: scopes.filter(({ of }) => of.length === 0).map(({ plugin }) => plugin),
    of(kind, name) {
      const wanted = `${kind} ${name}`
      asked.add(wanted)
      // One of a consumer at a route is for neither alone. The route has it.
      const isWhole = (of: readonly string[]) => kind === 'route' || kind === 'service' || of.length === 1
      return scopes.filter(({ of }) => of.includes(wanted) && isWhole(of)).map(({ plugin }) => plugin)
    },
    lost: () =>
      scopes.flatMap(({ plugin, of }) => {
        const lost = of.filter((each) => !asked.has(each))
        return lost.map((each) => ({ plugin, owner: `${each}, which is not in this file` }))
      })
  }
}
