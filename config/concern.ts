/** The contract between the configuration and a concern: a concern describes its key, and `config/` knows none by name. */
import type { TSchema } from 'typebox'
import type { Report } from './faults.ts'
import type { Written } from './schema.ts'

/** A level at which a key can be set: the top-level section, `services.NAME.mesh`, or a route. */
export type Level = 'gateway' | 'service' | 'route'

/** A key of `edge` or `mesh`. */
export interface Key {
  /** The key: `jwt` is written `edge.jwt` and `routes[].edge.jwt`. */
  readonly name: string
  /** Schema of its value. Its description is the key's. */
  readonly options: TSchema
  /** Levels at which it can be set. The most specific one wins, and replaces the value of the others whole. */
  readonly levels: readonly Level[]
  /** Value at the gateway's level where the file sets none, as it would be written: `15s`. Without: unset, which is off. */
  readonly default?: unknown
  /** False for a key that keeps no request out, so that a route without it is protected as well as one with it. */
  readonly protects?: boolean
  /** The reason why the key works on routes of the bridge alone. It is unset on routes with `via`, and a fault there. */
  readonly needsBridge?: string
  /** Facts that later concerns and plugins may rely on where it is on: `consumer`, the caller. */
  readonly provides?: readonly 'consumer'[]
  /** Fact that it relies on where one of its options has a value: `{ fact: 'consumer', option: 'by', value: 'consumer' }`. */
  readonly needs?: { readonly fact: 'consumer'; readonly option: string; readonly value: unknown }
  /**
   * True if hooks of the concern answer CORS preflights where it is on. A preflight then finds the route that takes the
   * method it asks for, whatever its path looks like, and routes that do not take OPTIONS have one for preflights besides:
   * its `config.preflightFor` has the methods.
   */
  readonly answersPreflights?: boolean
  /** Beginnings of names of response headers that are the concern's where it is on: `access-control-`. A service's are left out. */
  readonly ownsHeaders?: readonly string[]
  /** Key of a route's config that it sets where it is on, in place of the value in the file: `cors`. */
  readonly setsRouteConfig?: string
  /** Returns the request headers whose value it sets anew for each request, with these options. */
  perRequestHeaders?(options: unknown): readonly string[]
  /** Request headers by which a peer instructs the concern. They reach services only from trusted peers, and where they are obeyed. */
  readonly instructions?: { readonly headers: readonly string[]; areObeyed(options: unknown): boolean }
  /** Returns the other services to which it sends calls, or copies of them, with these options. */
  otherServices?(options: unknown): readonly string[]
  /** Checks what the schema cannot express, for each value whose place has no fault; values below it may have some. */
  check?(options: unknown, at: string, checked: Checked, place: Place): void
  /**
   * Checks how values of all levels fit each other. A generator that yields for each route and service lets the event loop
   * go on while a large file is checked.
   */
  checkAll?(checked: Checked): void | Iterable<void>
  /** Returns the options with paths of files made absolute. */
  complete?(options: unknown, absolute: (path: string) => string): unknown
  /** Returns whether, with these options, another attempt follows one that timed out. */
  repeatsTimeouts?(options: unknown): boolean
  /** Advice for keys that users of other gateways write instead of this one: `retries: 'write retry: { attempts: 2 }'`. */
  readonly aliases?: Readonly<Record<string, string>>
  /** Advice for keys that they write within its options. */
  readonly innerAliases?: Readonly<Record<string, string>>
}

/** Place at which a value is set. */
export interface Place {
  /** The service whose policy it is; null at the gateway's level, and for a route with a split. */
  readonly service: string | null
}

/** The keys of both halves. */
export interface Keys {
  readonly edge: readonly Key[]
  readonly mesh: readonly Key[]
  /** Without: any key can be in `routes[].config`. */
  readonly routeConfig?: RouteConfigKeys
  /** True if a plugin's concern is not among them, as its module or the concern has a fault: unknown keys may be its. */
  readonly lackConcerns?: boolean
  /** Keys of the edge's concerns that a plugin's `order` can name. */
  readonly positions?: readonly string[]
  /** Indexes of the plugins that are concerns of the mesh: their `order` names one of the mesh. */
  readonly meshPlugins?: ReadonlySet<number>
}

/** The keys of `routes[].config`. */
export interface RouteConfigKeys {
  /** Their schemas; `{}` takes any value. */
  readonly schemas: ReadonlyMap<string, TSchema>
  /** Names that cannot be set, each with advice. */
  readonly reserved: ReadonlyMap<string, string>
  /** The keys that each plugin of the file reads; null where a module, or for null all modules, have not been imported. */
  readonly plugins: readonly (readonly string[] | null)[] | null
}

export const gatewayOnly: readonly Level[] = ['gateway']
export const gatewayAndService: readonly Level[] = ['gateway', 'service']
export const gatewayAndRoute: readonly Level[] = ['gateway', 'route']
export const everyLevel: readonly Level[] = ['gateway', 'service', 'route']

/** Returns the keys that can be set at a level. */
export const keysAt = (keys: readonly Key[], level: Level): Key[] => keys.filter(({ levels }) => levels.includes(level))

/** Parameters of every check. */
export interface Checked {
  readonly data: Written
  readonly keys: Keys
  readonly report: Report
  /** Absolute, from what is relative to the configuration's folder. */
  readonly absolute: (path: string) => string
}
