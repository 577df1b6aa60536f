/**
 * The contract between the configuration and concerns: each concern describes its key, and each source of instances its keys;
 * `config/` knows none by name.
 */
import type { TSchema } from 'typebox'
import type { Report } from './faults.ts'
import type { EdgeDefaults, Written } from './schema.ts'

/** A level at which a key can be set: the top-level section, `services.NAME.mesh`, a route, or `consumers[].edge`. */
export type Level = 'gateway' | 'service' | 'route' | 'consumer'

/** A fact about a request: `consumer`, the caller; `claims`, those of the caller's token (`request.user`). */
export type Fact = 'consumer' | 'claims'

/** A method of authentication, as the rules for several methods on one route see it. */
export interface AuthenticationMethod {
  /**
   * Failed attempts that are counted by client address: `guesses`, all wrong credentials; `forgeries`, those whose verification
   * costs work and that no honest client sends, counted apart; null for none.
   */
  readonly counts: 'guesses' | 'forgeries' | null
  /** Returns the scheme of `Authorization` without which a request has no credentials of this kind; null if there is none. */
  scheme?(options: unknown): string | null
  /** Returns whether, with these options, callers must be declared consumers. Absent: they need not be. */
  onlyDeclared?(options: unknown): boolean
}

/** A fact on which a concern relies. */
interface Need {
  readonly fact: Fact
  readonly option?: string
  readonly value?: unknown
}

/** A key of `edge` or `mesh`. */
export interface Key {
  /** The key: `jwt` is written `edge.jwt` and `routes[].edge.jwt`. */
  readonly name: string
  /** Schema of the value. Its description is that of the key. */
  readonly options: TSchema
  /** Schema of the value on routes, if it is another one. */
  readonly routeOptions?: TSchema
  /** Levels at which the key can be set. The most specific one wins and replaces the whole value of the others. */
  readonly levels: readonly Level[]
  /**
   * Present if consumers may override the concern by `consumers[].edge`. `options`: the schema there; default: that of the key.
   * `needsRoute`: the override has no effect on routes on which the concern is off.
   */
  readonly forConsumers?: { readonly options?: TSchema; readonly needsRoute?: true }
  /** Value at the gateway's level if the file sets none, as written in a file: `15s`. Without a default the key is off. */
  readonly default?: unknown
  /** False for a key that refuses no requests, so that a route without it is equally protected. */
  readonly protects?: boolean
  /** Reason why the key works only on routes of the bridge. On routes with `via` an inherited value is unset, and setting it is a fault. */
  readonly needsBridge?: string
  /** Top-level section without which the concern is off on all routes. */
  readonly needsSection?: 'tracing'
  /** Facts that the concern provides to later concerns and plugins where it is on. */
  readonly provides?: readonly Fact[]
  /** Returns the facts that it provides with these options, if not always all of `provides`. */
  provided?(options: unknown): readonly Fact[]
  /** True if callers that it names, besides declared consumers, have no groups. */
  readonly hasNoGroups?: boolean
  /** Present if the concern is a method of authentication, with its place in `edge.authentication`. */
  readonly authenticates?: AuthenticationMethod
  /**
   * Fact that the concern needs if one of its options has a value: `{ fact: 'consumer', option: 'by', value: 'consumer' }`. A
   * function as `value` gets the option's value. Options may be a list. Without `option` the fact is always needed. Of a list of
   * facts, the first one that nothing provides is reported.
   */
  readonly needs?: Need | readonly Need[]
  /**
   * True if hooks of the concern respond to CORS preflights. A preflight then matches the route for the requested method, and
   * routes without OPTIONS get a second Fastify route for preflights, whose `config.preflightFor` has the methods. In shadow
   * mode the concern does neither, and owns no headers.
   */
  readonly answersPreflights?: boolean
  /** Name prefixes of response headers that the concern owns where it is on: `access-control-`. A service's headers with them are dropped. */
  readonly ownsHeaders?: readonly string[]
  /** Key of `routes[].config` that the concern sets where it is on, instead of the file: `cors`. */
  readonly setsRouteConfig?: string
  /** Returns the request headers to which the concern gives a new value for each request, with these options. */
  perRequestHeaders?(options: unknown): readonly string[]
  /** Request headers by which a trusted peer instructs the concern. They are dropped from other peers, and where no options obey them. */
  readonly instructions?: { readonly headers: readonly string[]; areObeyed(options: unknown): boolean }
  /** Option with the path of a user's module, whose default export is a function that the concern calls: `fastify.userFunctions`. */
  readonly callsModule?: string
  /** Returns the other services to which the concern sends calls, or copies of them, with these options. */
  otherServices?(options: unknown): readonly string[]
  /** Returns paths that the concern serves itself, on the hosts and listeners of the routes that enable it, with these options. */
  ownPaths?(options: unknown): readonly string[]
  /** Checks rules that the schema cannot express, for each value without a fault; values within it may have faults. */
  check?(options: unknown, at: string, checked: Checked, place: Place): void
  /**
   * Checks rules between values of all levels. In `checked.data`, sections with a fault are empty and options with a fault are
   * `false`; `report` tells which routes and other values are usable. A generator that yields for each route and service lets the event loop run
   * while a large file is checked.
   */
  checkAll?(checked: Checked): void | Iterable<void>
  /** Returns the options with absolute paths of files. */
  complete?(options: unknown, absolute: (path: string) => string): unknown
  /** Returns whether, with these options, an attempt that timed out is repeated. */
  repeatsTimeouts?(options: unknown): boolean
  /**
   * Returns the options for a gateway under test (`jingwei/testing`), with which the concern needs no other program; false
   * switches it off. Absent: the options are kept.
   */
  isolate?(options: unknown): unknown
  /** Credentials of declared consumers: `consumers[].NAME`. */
  readonly credentials?: Credentials
  /** Returns a token that the concern accepts with these options, after `isolate`; for `gateway.token()` of `jingwei/testing`. */
  token?(options: unknown, request: TokenRequest): string
  /** Advice for keys of other gateways with the same purpose, of which several are joined: `'retries|tries': 'write retry'`. */
  readonly aliases?: Readonly<Record<string, string>>
  /** The same for keys within the options; `oauth2.scope` for those of a mapping in them. */
  readonly innerAliases?: Readonly<Record<string, string>>
}

/** The kind of credentials by which a concern identifies declared consumers. */
export interface Credentials {
  readonly schema: TSchema
  /**
   * Returns the names by which the concern finds the credentials in a value, each with a pointer to its place in the value.
   * They are unique among all consumers.
   */
  ids(value: unknown): readonly (readonly [id: string, below: string])[]
  /** Checks rules that the schema cannot express. */
  check?(value: unknown, at: string, report: Report): void
}

/** Returns the credentials in a value, which is one or a list, each with a pointer to its place in the value. */
export const eachCredential = <T>(value: T | readonly T[]): readonly (readonly [credential: T, below: string])[] =>
  Array.isArray(value) ? value.map((each: T, index) => [each, `/${index}`]) : [[value as T, '']]

/** Parameters of a token for a test. */
export interface TokenRequest {
  /** Claims that replace those that the concern sets. */
  readonly claims: Readonly<Record<string, unknown>>
  /** Milliseconds since 1970. */
  readonly issuedAt: number
  /** Seconds until the token expires. */
  readonly expiresIn: number
}

/** Level of a value that is checked. */
export interface Place {
  /** The service to which the value applies; null at the gateway's level, and for a route with a split. */
  readonly service: string | null
}

/** The keys of a source of instances: `discovery.NAME`, its options, and `services.*.NAME`, by which a service chooses it. */
export interface SourceKey {
  /** Both keys. */
  readonly name: string
  /** Schema of `discovery.NAME`; absent: the source has no options. */
  readonly options?: TSchema
  /** Schema of `services.*.NAME`. */
  readonly service: TSchema
  /** Schema of `consumers.NAME`, a key of the registry's key-value store with a value to watch; absent: it has no such store. */
  readonly storedKey?: TSchema
  /** True if a service that names the source needs `discovery.NAME`. */
  readonly needsOptions?: boolean
  /**
   * Returns whether the source, with these options, finds a service by its name alone, so that it can be the default of services
   * that name no source. Absent: it cannot.
   */
  findsByName?(options: unknown): boolean
  /** True if the source finds the instances of Consul Connect, which `mode: connect` needs. */
  readonly findsConnect?: boolean
  /** Checks rules of `discovery.NAME` that the schema cannot express; values within it may have faults. */
  check?(options: unknown, at: string, checked: Checked): void
  /** The same for `services.*.NAME`. */
  checkService?(service: unknown, at: string, checked: Checked): void
  /**
   * Returns names of the instances of a service, `name`: two services with a name in common share instances. Absent: the key of
   * the service as a text.
   */
  backends?(service: unknown, name: string): readonly string[]
  /** Returns the options with absolute paths of files. */
  complete?(options: unknown, absolute: (path: string) => string): unknown
  /** Returns the key of a service with values that depend on the service's name, and with absolute paths of files. */
  completeService?(service: unknown, name: string, absolute: (path: string) => string): unknown
}

/** The keys of both halves. */
export interface Keys {
  readonly edge: readonly Key[]
  readonly mesh: readonly Key[]
  readonly sources: readonly SourceKey[]
  /** Keys of `routes[].config`; if absent, any key is allowed. */
  readonly routeConfig?: RouteConfigKeys
  /** True if a plugin's concern could not be loaded: unknown keys may belong to it. */
  readonly lackConcerns?: boolean
  /** Names of edge concerns that a plugin's `order` can name. */
  readonly positions?: readonly string[]
  /** True for a configuration without the mesh (`mesh: false`), which has no keys of the mesh. */
  readonly withoutMesh?: boolean
  /** Indexes of the plugins that are mesh concerns; their `order` names a mesh concern. */
  readonly meshPlugins?: ReadonlySet<number>
  /** The edge of a sidecar; absent if no file may have `sidecar`. */
  readonly sidecar?: SidecarKeys
}

/** The edge of a sidecar, which has few concerns. */
export interface SidecarKeys {
  /** Keys that a file can set, under `sidecar`. */
  readonly keys: readonly Key[]
  /** Options of other keys. */
  readonly fixed: Readonly<Record<string, unknown>>
  /** Returns these options for the sidecar of a gateway, whose edge has the given ones. */
  fixedFor(edge: EdgeDefaults): Readonly<Record<string, unknown>>
}

/** The keys of `routes[].config`. */
export interface RouteConfigKeys {
  /** Schemas by key; `{}` accepts any value. */
  readonly schemas: ReadonlyMap<string, TSchema>
  /** Reserved names, each with advice. */
  readonly reserved: ReadonlyMap<string, string>
  /** Keys that each plugin reads; an item is null if its module was not imported, the whole list if none was. */
  readonly plugins: readonly (readonly string[] | null)[] | null
}

export const gatewayOnly: readonly Level[] = ['gateway']
export const gatewayAndService: readonly Level[] = ['gateway', 'service']
export const gatewayAndRoute: readonly Level[] = ['gateway', 'route']
export const everyLevel: readonly Level[] = ['gateway', 'service', 'route']

/** Returns the keys that can be set at a level. */
export const keysAt = (keys: readonly Key[], level: Level): Key[] => keys.filter(({ levels }) => levels.includes(level))

/** Parameters of all checks. */
export interface Checked {
  readonly data: Written
  readonly keys: Keys
  readonly report: Report
  /** Resolves a path relative to the configuration's folder. */
  readonly absolute: (path: string) => string
}
