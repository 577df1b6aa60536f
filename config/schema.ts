/**
 * The shape of the configuration but for the keys of concerns, which these bring along: TypeBox builds the JSON Schema
 * that editors and the loader use (gateway-schema.ts), and the TypeScript types that the code uses.
 *
 * Units are written as people write them (`15s`, `10mb`, `20%`) and arrive as numbers: durations in
 * milliseconds, sizes in bytes, percentages as a fraction of 1. The loader converts them by the
 * `unit` keyword, so every `Static` type below is the *loaded* value. `expected` says in words what a
 * `pattern` asks for. The kinds of values are in `schema/kit.ts`.
 */
import type { Static } from 'typebox'
import Type from 'typebox'
import type { Position } from './faults.ts'
import type { ConsulDiscovery, Listen as Listener } from './schema/gateway.ts'
import { Admin, Discovery, Listeners, Redis } from './schema/gateway.ts'
import type { ViaHttpProxy } from './schema/http-proxy.ts'
import type { HashOn } from './schema/kit.ts'
import { orOff } from './schema/kit.ts'
import { Plugin } from './schema/plugin.ts'
import type { Match, Route, Split } from './schema/route.ts'
import type { Service, Subset } from './schema/service.ts'

/** The sections that belong to neither half. */
export const sections = {
  listen: Listeners,
  admin: orOff(Admin, { default: {} }),
  discovery: Discovery,
  redis: Type.Optional(Redis),
  consumers: Type.Array(Type.Unknown(), {
    default: [],
    description: 'Reserved for known callers, which cannot be declared in this version.'
  }),
  plugins: Type.Array(Plugin, { default: [], description: 'Your own Fastify plugins, in order.' }),
  watch: Type.Boolean({
    default: false,
    description:
      'Reload this file when its content has changed. It is looked at every 2 s, and reloaded once two looks in a row have found the same. The code of plugins is not reloaded.'
  })
}

// ---- What the loader hands out -----------------------------------------------------------------

export type RedisOptions = Static<typeof Redis>
export type ConsulOptions = Static<typeof ConsulDiscovery>
export type DiscoveryOptions = Static<typeof Discovery>
export type SubsetOptions = Static<typeof Subset>
export type HashSource = Static<typeof HashOn>
export type SplitShare = Static<typeof Split>[number]
/**
 * The edge concerns in force on one route: its own, else the top level's; `false` and unset are both off. Each concern
 * adds its key to this interface by declaration merging.
 */
// biome-ignore lint/suspicious/noEmptyInterface: merged by the concerns
export interface EdgePolicy {}
/** The top-level `edge`: besides the keys of routes, those that can be set nowhere else. */
export interface EdgeDefaults extends EdgePolicy {}
/**
 * The mesh concerns in force on a call, with the defaults of the top level. Each concern adds its key to this interface
 * by declaration merging.
 */
// biome-ignore lint/suspicious/noEmptyInterface: merged by the concerns
export interface MeshPolicy {}
/** Changes of a route to its service's policy. */
export type RoutePolicy = Partial<MeshPolicy> & { split?: readonly SplitShare[]; stickOn?: HashSource }
export type ServiceOptions = Static<typeof Service> & { mesh?: Partial<MeshPolicy> }
export type RouteMatch = Static<typeof Match>
/** A plugin as the file lists it. */
export interface PluginOptions extends Omit<Static<typeof Plugin>, 'routeConfig'> {
  /** The position of its entry, for messages. */
  readonly position: Position
  /** Keys of `routes[].config` that it reads; null in a configuration that was loaded without its module. */
  readonly routeConfig: readonly string[] | null
}

/** A service with its policy complete: its own `mesh`, else the top level's. */
export interface ServiceConfig extends Omit<ServiceOptions, 'mesh'> {
  readonly name: string
  readonly mesh: MeshPolicy
}

type Passing = 'refuse' | 'pass'

/** Facts that the edge concerns in force on a route declare of themselves; see `Key`. */
export interface Declared {
  readonly answersPreflights: boolean
  readonly ownsHeaders: readonly string[]
}

/** A route with its edge policy complete and its mesh overrides as written. */
export interface RouteConfig extends ViaHttpProxy {
  readonly name: string
  readonly match: RouteMatch
  /** The service that serves it; with a split, the first of its services. */
  readonly service: string
  readonly path?: { strip?: string; rewrite?: { prefix: string }; encodedSlash?: Passing; parameters?: Passing }
  readonly edge: EdgePolicy
  readonly declared: Declared
  /** The same number for routes that the same concerns protect in the same way. */
  readonly protection: number
  /** For user plugins, which find it in `routeOptions.config`. */
  readonly config?: Readonly<Record<string, unknown>>
  /** Names of plugins with `scope: routes`. */
  readonly plugins?: readonly string[]
  /** Names of the services to which its own policy sends calls. */
  readonly services: readonly string[]
  /** One frozen object per route, so that the mesh composes a chain for it once. */
  readonly mesh: RoutePolicy
}

/** Options of one listener. */
export interface Listen extends Static<typeof Listener> {
  /** JSON pointer of its mapping in the file: `/listen`, or `/listen/0` in a list. */
  readonly at: string
}

type Sections = { [K in keyof typeof sections]: Static<(typeof sections)[K]> }

/** The document once it fits the schema. */
export interface Written extends Omit<Sections, 'redis' | 'listen'> {
  /** The first listener. What belongs to the gateway rather than to one socket (`paths`, `unknownHost`, `drain`) is the same in all. */
  readonly listen: Listen
  readonly listeners: readonly Listen[]
  readonly redis?: RedisOptions
  readonly edge: EdgeDefaults
  readonly mesh: MeshPolicy
  readonly services: Readonly<Record<string, ServiceOptions>>
  readonly routes: readonly WrittenRoute[]
}

export interface WrittenRoute extends Static<typeof Route> {
  edge?: EdgePolicy
  mesh?: Partial<MeshPolicy>
  config?: Readonly<Record<string, unknown>>
}

/** The whole configuration: validated, completed and deeply frozen. */
export interface Config extends Omit<Written, 'services' | 'routes' | 'consumers' | 'plugins'> {
  /** Absolute path of the file it came from; paths in it are relative to its folder. */
  readonly file: string
  /** First 16 hexadecimal digits of the SHA-256 of the file's bytes. Values of environment variables are not in it. */
  readonly hash: string
  readonly services: Readonly<Record<string, ServiceConfig>>
  readonly routes: readonly RouteConfig[]
  readonly plugins: readonly PluginOptions[]
  /** For each service, the names of the others to which its policy sends calls. */
  readonly otherServices: Readonly<Record<string, readonly string[]>>
  /** Request headers that concerns obey of trusted peers; `believed`: those that some policy asks for. */
  readonly instructions: { readonly headers: readonly string[]; readonly believed: readonly string[] }
  /** Request headers whose value is new for each request. */
  readonly perRequestHeaders: readonly string[]
}
