/**
 * Schema and types of the configuration, without the keys of concerns, which each concern defines itself. From the same
 * TypeBox definitions come the JSON Schema of the loader and of editors (gateway-schema.ts) and the TypeScript types.
 *
 * Values with units (`15s`, `10mb`, `20%`) are loaded as numbers: durations in milliseconds, sizes in bytes, percentages
 * as a fraction of 1. The loader converts them by the keyword `unit`, so every `Static` type below is the *loaded* value.
 * The keyword `expected` describes a `pattern` in messages. Builders for the kinds of values are in `schema/kit.ts`.
 */
import type { Static } from 'typebox'
import type { Position } from './faults.ts'
import type { DirectOptions } from './schema/direct.ts'
import type { ForwardPolicy } from './schema/forward.ts'
import type { Listen as Listener } from './schema/gateway.ts'
import { Admin, Discovery, Listeners, MetricsPush, Redis } from './schema/gateway.ts'
import type { ViaHttpProxy } from './schema/http-proxy.ts'
import type { HashOn } from './schema/kit.ts'
import { orOff } from './schema/kit.ts'
import { Plugin } from './schema/plugin.ts'
import type { Match, Route, Split } from './schema/route.ts'
import type { Instances, Service } from './schema/service.ts'
import type { SidecarOptions } from './schema/sidecar.ts'
import type { TracingOptions } from './schema/tracing.ts'
import { Tracing } from './schema/tracing.ts'
import Type from './schema/type.ts'

/** Sections that belong to neither the edge nor the mesh; `discovery` without the keys of sources. */
export const sections = {
  listen: Listeners,
  admin: orOff(Admin, { default: {} }),
  discovery: Discovery,
  redis: Type.Optional(Redis),
  tracing: Type.Optional(Tracing),
  metricsPush: Type.Optional(MetricsPush),
  plugins: Type.Array(Plugin, { default: [], description: 'Your own Fastify plugins, in order.' }),
  watch: Type.Boolean({
    default: false,
    description:
      'true: reload this file when its content changes. It is read every 2 s and reloaded once two reads in a row find the same new content. The code of plugins is not reloaded.'
  })
}

// ---- Types of the loaded configuration ----------------------------------------------------------

export type RedisOptions = Static<typeof Redis>
/** The section `discovery`. Each source of instances adds its key by declaration merging. */
export interface DiscoveryOptions extends Static<typeof Discovery> {}
/** Keys of a service that choose the source of its instances. Each source adds its key by declaration merging. */
export interface ServiceSources {
  instances?: Static<typeof Instances>
}
export type HashSource = Static<typeof HashOn>
export type SplitShare = Static<typeof Split>[number]
/**
 * Options of the edge concerns in force on one route: its own, else those of the top level. A concern is off if its key is
 * `false` or unset. Each concern adds its key to this interface by declaration merging.
 */
// biome-ignore lint/suspicious/noEmptyInterface: merged by the concerns
export interface EdgePolicy {}
/** The top-level `edge`: the keys of routes, and keys that can only be set here. */
export interface EdgeDefaults extends EdgePolicy {}
/**
 * Options of the mesh concerns in force on a call, with the defaults of the top level. Each concern adds its key to this
 * interface by declaration merging.
 */
// biome-ignore lint/suspicious/noEmptyInterface: merged by the concerns
export interface MeshPolicy {}
/** Settings by which a route overrides the policy of its service. */
export type RoutePolicy = Partial<MeshPolicy> & { split?: readonly SplitShare[]; stickOn?: HashSource }
/** A service that a route calls. */
export interface RouteTarget {
  readonly service: string
  /**
   * The policy of these calls. One frozen object per policy: by its identity the mesh finds the chain that it composed for
   * it. With `mesh: false` it is the route's `forward`.
   */
  readonly mesh: RoutePolicy
  /** The call that a response is made of; null where the response is that of the service. */
  readonly call: RouteCall | null
}
/** A call of a route that makes its response from several. */
interface RouteCall {
  readonly name: string
  readonly method: string
  readonly path: string
  /** Names of the calls for whose responses it waits. They precede it in `targets`. */
  readonly after: readonly string[]
  readonly required: boolean
}
export type ServiceOptions = Static<typeof Service> &
  ServiceSources & { mesh?: Partial<MeshPolicy>; forward?: Partial<ForwardPolicy> }
/** Settings by which a route overrides the `forward` of its service. */
type RouteForward = Partial<Pick<ForwardPolicy, 'timeout' | 'idleTimeout' | 'responseTimeout'>>
export type RouteMatch = Static<typeof Match>
/** A plugin as the file lists it. */
export interface PluginOptions extends Omit<Static<typeof Plugin>, 'routeConfig'> {
  /** Position of its entry in the file, for messages. */
  readonly position: Position
  /** Keys of `routes[].config` that the plugin reads; null if the configuration was loaded without its module. */
  readonly routeConfig: readonly string[] | null
}

/** A service with its complete policy: its own `mesh`, else that of the top level. */
export interface ServiceConfig extends Omit<ServiceOptions, 'mesh' | 'forward'> {
  readonly name: string
  readonly mesh: MeshPolicy
  /** With `mesh: false`: its own `forward`, else that of the top level. Absent with the mesh. */
  readonly forward?: ForwardPolicy
}

/** `path.rewrite`: exactly one of `prefix`, `path`, and `regex` with `to`. */
type Rewriting = { prefix?: string; path?: string; regex?: string; to?: string }

type Passing = 'refuse' | 'pass'

/** Facts that the edge concerns in force on a route declare about themselves; see `Key`. */
export interface Declared {
  readonly answersPreflights: boolean
  readonly ownsHeaders: readonly string[]
  /** Paths on the route's hosts that the concerns serve themselves. */
  readonly ownPaths: readonly string[]
}

/** A route with its complete edge policy, and its mesh overrides as written. */
export interface RouteConfig extends ViaHttpProxy, DirectOptions {
  readonly name: string
  readonly match: RouteMatch
  /** The group whose settings it shares. */
  readonly group?: string
  readonly priority: number
  /** The service that it calls; with a split or several calls, the first of the services. Empty if the gateway responds itself. */
  readonly service: string
  /** The services that it calls; a split is the policy of one target. */
  readonly targets: readonly RouteTarget[]
  readonly path?: { strip?: string | true; rewrite?: Rewriting; encodedSlash?: Passing; parameters?: Passing }
  readonly edge: EdgePolicy
  readonly declared: Declared
  /** Number that is equal for routes whose protecting concerns have equal options; see `Protections`. */
  readonly protection: number
  /** Settings for plugins, which read them from `routeOptions.config`. */
  readonly config?: Readonly<Record<string, unknown>>
  /** Names of plugins with `scope: routes`. */
  readonly plugins?: readonly string[]
  /** Names of all services to which it sends calls, those of a split and of its own policy, such as a fallback, included. */
  readonly services: readonly string[]
  /** True if requests are passed on as they are: no header is added or removed, and no path is refused. */
  readonly isTransparent?: boolean
  /** True in the sidecar of a gateway, for calls that the gateway hands over: the caller is in a header. */
  readonly isHandedOver?: boolean
  /** True if the bridge forwards its requests; false with `via: http-proxy`, and where the gateway makes the response. */
  readonly isBridged: boolean
  /** The policy of its target; calls that a response is made of have their own. */
  readonly mesh: RoutePolicy
}

/** Options of one listener. */
export interface Listen extends Static<typeof Listener> {
  /** JSON pointer of its mapping in the file: `/listen`, or `/listen/0` in a list. */
  readonly at: string
}

/** A declared consumer. Each concern with credentials adds its key by declaration merging. */
export interface ConsumerConfig {
  readonly name: string
  readonly groups: readonly string[]
  readonly tags: readonly string[]
  /** Options in place of those of the route. */
  readonly edge?: Partial<EdgePolicy>
}

/** The declared consumers. */
export interface Consumers {
  /** Absolute path of the file that lists them; null if the configuration does. */
  readonly file: string | null
  /** SHA-256 of the file's content, in hexadecimal; null without a file. */
  readonly digest: string | null
  /** Key of a registry's key-value store with the list, which is not known before the registry has responded; else null. */
  readonly stored: { readonly source: string; readonly key: string; readonly datacenter?: string } | null
  readonly list: readonly ConsumerConfig[]
}

type Sections = { [K in keyof typeof sections]: Static<(typeof sections)[K]> }

/** The document after validation against the schema: defaults filled in, units converted. */
export interface Written extends Omit<Sections, 'redis' | 'tracing' | 'metricsPush' | 'listen' | 'discovery'> {
  /** The first listener. Keys of the gateway rather than of one socket (`paths`, `unknownHost`, `drain`) are the same in all. */
  readonly listen: Listen
  readonly listeners: readonly Listen[]
  readonly discovery: DiscoveryOptions
  readonly redis?: RedisOptions
  /** Export of spans; absent: none are made. */
  readonly tracing?: TracingOptions
  readonly metricsPush?: Static<typeof MetricsPush>
  readonly edge: EdgeDefaults
  readonly mesh: MeshPolicy
  /** Present with `mesh: false` only. */
  readonly forward?: ForwardPolicy
  readonly services: Readonly<Record<string, ServiceOptions>>
  readonly routes: readonly WrittenRoute[]
  /** Settings that routes share; merged into the routes, and removed at the end. */
  readonly groups?: Readonly<Record<string, object>>
  /** A mapping is complete once the file that it names has been read. */
  readonly consumers: readonly ConsumerConfig[] | Consumers
  /** The listeners of a sidecar; removed once they have become routes. */
  readonly sidecar?: SidecarOptions
  /** With `sidecar.gateway`: the services that the gateway's process calls by its sidecar; removed, too. */
  readonly handedOver?: readonly string[]
  /** True for the configuration of a sidecar. */
  readonly isSidecar?: boolean
}

export interface WrittenRoute extends Static<typeof Route> {
  edge?: EdgePolicy
  mesh?: Partial<MeshPolicy>
  forward?: RouteForward
  config?: Readonly<Record<string, unknown>>
  isTransparent?: boolean
}

/** The whole configuration: validated, completed and deeply frozen. */
export interface Config extends Omit<Written, 'groups' | 'services' | 'routes' | 'consumers' | 'plugins'> {
  /** Absolute path of the configuration file. Paths in the file are relative to its folder. */
  readonly file: string
  /** First 16 hexadecimal digits of the SHA-256 of the file's bytes. Values of environment variables do not change it. */
  readonly hash: string
  readonly services: Readonly<Record<string, ServiceConfig>>
  readonly routes: readonly RouteConfig[]
  readonly consumers: Consumers
  readonly plugins: readonly PluginOptions[]
  /** For each service, the names of other services to which its policy sends calls. */
  readonly otherServices: Readonly<Record<string, readonly string[]>>
  /** For each service, names of its instances: two services with a name in common share instances. */
  readonly backends: Readonly<Record<string, readonly string[]>>
  /** Request headers by which trusted peers instruct concerns. `believed`: those that some policy in force obeys. */
  readonly instructions: { readonly headers: readonly string[]; readonly believed: readonly string[] }
  /** Request headers whose value differs for each request. */
  readonly perRequestHeaders: readonly string[]
  /** Users' modules whose functions edge concerns call, each with the first key that names it. */
  readonly calledModules: readonly { readonly module: string; readonly path: string; readonly position: Position }[]
}
