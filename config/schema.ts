/**
 * The one source of the configuration's shape: TypeBox builds the JSON Schema that editors and the
 * loader use, and the TypeScript types that the code uses.
 *
 * Units are written as people write them (`15s`, `10mb`, `20%`) and arrive as numbers: durations in
 * milliseconds, sizes in bytes, percentages as a fraction of 1. The loader converts them by the
 * `unit` keyword, so every `Static` type below is the *loaded* value. `expected` says in words what a
 * `pattern` asks for. The kinds of values are in `schema/kit.ts`, the two halves in files of their own.
 */
import { METHODS } from 'node:http'
import type { Static } from 'typebox'
import Type from 'typebox'
import type { Position } from './faults.ts'
import type { Cors, Jwt, RateLimit } from './schema/edge.ts'
import { Edge, RouteEdge } from './schema/edge.ts'
import type { ConsulDiscovery } from './schema/gateway.ts'
import { Admin, Discovery, Listen, Redis } from './schema/gateway.ts'
import { Duration, DurationOrZero, Either, Name, Names, orOff, Port, strict, Url } from './schema/kit.ts'
import { Mesh, MeshOverride, RouteMesh, SidecarUrl, Subset } from './schema/mesh.ts'
import type { Collapse, Fallback, Fault, Hedge, Mirror, Retry } from './schema/mesh-call.ts'
import type {
  AdaptiveConcurrency, Balance, CircuitBreaker, HealthCheck, Limit, OutlierDetection, UpstreamTls
} from './schema/mesh-service.ts' // biome-ignore format: a list
import { HashOn } from './schema/mesh-service.ts'
import { Plugin } from './schema/plugin.ts'

const InstanceUrl = Url('http', 'An address of the service: scheme, host and port.')

export const Service = Type.Object(
  {
    consul: Type.Optional(
      Type.Object(
        {
          service: Type.Optional(Type.String({ minLength: 1, description: "Default: the service's own name." })),
          tags: Type.Optional(Type.Array(Type.String(), { description: 'An instance must carry all of them.' })),
          datacenter: Type.Optional(Type.String()),
          failover: Type.Optional(
            Type.Array(Type.String(), {
              minItems: 1,
              description: 'Datacenters whose instances serve, in this order, when none is left in the first.'
            })
          ),
          passingOnly: Type.Boolean({ default: true, description: 'false: instances in warning state serve too.' })
        },
        strict
      )
    ),
    instances: Type.Optional(
      Type.Array(
        Either(
          { type: 'string' },
          InstanceUrl,
          Type.Object({ url: InstanceUrl, weight: Type.Integer({ minimum: 0, maximum: 65535, default: 1 }) }, strict)
        ),
        { minItems: 1 }
      )
    ),
    dns: Type.Optional(
      Type.Object(
        {
          host: Type.String({ minLength: 1, description: 'A/AAAA name; with `srv: true`, the SRV name.' }),
          port: Type.Optional(Port('For A/AAAA; an SRV record brings its own.', 1)),
          srv: Type.Boolean({ default: false }),
          tls: Type.Boolean({ default: false, description: 'Speak https to the instances.' }),
          server: Type.Optional(
            Type.String({
              format: 'authority',
              expected: 'a host and port such as 10.0.0.2:8600',
              description: 'ip:port of the DNS server; default: the system’s.'
            })
          ),
          minTtl: DurationOrZero('Never ask more often than this.', { default: '1s' }),
          maxTtl: Duration('Never keep an answer longer than this.', { default: '5m' })
        },
        strict
      )
    ),
    sidecar: Type.Optional(SidecarUrl),
    subsets: Type.Optional(Type.Record(Name, Subset, strict)),
    mesh: Type.Optional(MeshOverride)
  },
  strict
)

// ---- Routes ----------------------------------------------------------------------------------

const startsWithSlash = { pattern: '^/', expected: 'a path that starts with /' }
const PathText = Type.String({
  ...startsWithSlash,
  description:
    'A prefix of whole segments (`/users`), or a pattern for the whole path: `/users/:id`, `/users/:id(^[0-9]+$)`, `/files/*` (all below). routes/README.md says which route wins.'
})

export const Match = Type.Object(
  {
    path: Either({ type: 'string' }, PathText, Type.Object({ exact: Type.String(startsWithSlash) }, strict)),
    methods: Type.Optional(
      Type.Array(Names(METHODS.filter((method) => method !== 'CONNECT')), {
        minItems: 1,
        description: 'GET brings HEAD. Default: GET, HEAD, POST, PUT, PATCH, DELETE, OPTIONS.'
      })
    ),
    hosts: Type.Optional(
      Type.Array(
        Type.String({
          pattern: '^(\\*\\.)?[^\\s*:/?#@%]+$|^\\[[0-9A-Fa-f:.]+\\]$',
          expected: 'a host name such as api.example.com or *.example.com, or an IPv6 address in brackets'
        }),
        {
          minItems: 1,
          description:
            '`*.example.com` is every name below it, at any depth, and not `example.com`. Case, the port that a client names, and a last dot do not matter. Without: all hosts.'
        }
      )
    ),
    headers: Type.Optional(Type.Record(Type.String(), Type.String(), { minProperties: 1 }))
  },
  strict
)

/** All that is given must fit. */
const SplitMatch = Type.Object(
  {
    headers: Type.Optional(Type.Record(Type.String(), Type.String(), { minProperties: 1 })),
    cookies: Type.Optional(Type.Record(Type.String(), Type.String(), { minProperties: 1 })),
    consumers: Type.Optional(
      Type.Array(Type.String(), {
        minItems: 1,
        description:
          'Any of these consumers: the `sub` of their tokens; `ISSUER|SUB` where the routes accept several issuers.'
      })
    )
  },
  { ...strict, minProperties: 1, description: 'Calls that go here whatever the weights: a canary for some.' }
)

export const Split = Type.Array(
  Type.Object(
    {
      service: Type.String(),
      subset: Type.Optional(Type.String({ description: "One of that service's `subsets`." })),
      weight: Type.Integer({ minimum: 0, maximum: 65535, default: 0 }),
      match: Type.Optional(SplitMatch)
    },
    strict
  ),
  { minItems: 1, description: 'Shares of the traffic; the first `match` that fits goes before the weights.' }
)

export const Route = Type.Object(
  {
    name: Name,
    match: Match,
    service: Type.Optional(Type.String({ description: 'One of `services`.' })),
    split: Type.Optional(Split),
    stickOn: Type.Optional(HashOn),
    path: Type.Optional(
      Type.Object(
        {
          strip: Type.Optional(
            Type.String({ ...startsWithSlash, description: 'Prefix taken off before the service sees it.' })
          ),
          rewrite: Type.Optional(
            Type.Object(
              { prefix: Type.String({ ...startsWithSlash, description: 'Put in place of the matched prefix.' }) },
              strict
            )
          ),
          encodedSlash: Type.Optional(
            Names(['refuse', 'pass'], {
              default: 'refuse',
              description: 'pass: `%2F` goes on to the service, which must tell it from `/`.'
            })
          ),
          parameters: Type.Optional(
            Names(['refuse', 'pass'], {
              default: 'refuse',
              description: 'pass: path parameters (`/users;v=1/7`) go on to the service. They are not matched.'
            })
          )
        },
        strict
      )
    ),
    edge: Type.Optional(RouteEdge),
    mesh: Type.Optional(RouteMesh),
    config: Type.Optional(
      Type.Record(Type.String(), Type.Unknown(), { description: 'For your own plugins: what they read of a route.' })
    ),
    plugins: Type.Optional(
      Type.Array(Type.String(), {
        description:
          'Names of plugins with `scope: routes` whose hooks run on this route. They run in the order of `plugins`.'
      })
    )
  },
  strict
)

export const Gateway = Type.Object(
  {
    listen: Listen,
    admin: orOff(Admin, { default: {} }),
    discovery: Discovery,
    redis: Type.Optional(Redis),
    edge: Edge,
    mesh: Mesh,
    services: Type.Record(Name, Service, { ...strict, default: {} }),
    routes: Type.Array(Route, { default: [] }),
    consumers: Type.Array(Type.Unknown(), {
      default: [],
      description: 'Reserved for known callers, which cannot be declared in this version.'
    }),
    plugins: Type.Array(Plugin, { default: [], description: 'Your own Fastify plugins, in order.' })
  },
  {
    ...strict,
    // Sections of the user's own, which hold anchors; the loader removes them.
    patternProperties: { '^x-': {} },
    title: 'Jingwei gateway configuration'
  }
)

// ---- What the loader hands out -----------------------------------------------------------------

export type CorsOptions = Static<typeof Cors>
export type JwtOptions = Static<typeof Jwt>
export type RateLimitOptions = Static<typeof RateLimit>
export type RedisOptions = Static<typeof Redis>
export type ConsulOptions = Static<typeof ConsulDiscovery>
export type DiscoveryOptions = Static<typeof Discovery>
export type BalanceOptions = Static<typeof Balance>
export type HealthCheckOptions = Static<typeof HealthCheck>
export type OutlierOptions = Static<typeof OutlierDetection>
export type CircuitBreakerOptions = Static<typeof CircuitBreaker>
export type AdaptiveConcurrencyOptions = Static<typeof AdaptiveConcurrency>
export type LimitOptions = Static<typeof Limit>
export type RetryOptions = Static<typeof Retry>
export type HedgeOptions = Static<typeof Hedge>
export type CollapseOptions = Static<typeof Collapse>
export type FallbackOptions = Static<typeof Fallback>
export type FaultOptions = Static<typeof Fault>
export type MirrorOptions = Static<typeof Mirror>
export type UpstreamTlsOptions = Static<typeof UpstreamTls>
export type SubsetOptions = Static<typeof Subset>
export type HashSource = Static<typeof HashOn>
export type SplitShare = Static<typeof Split>[number]
/** The edge concerns in force on one route: its own, else the top level's; `false` and unset are both off. */
export type EdgePolicy = Static<typeof RouteEdge>
/** The mesh concerns in force on a call, all set. */
export type MeshPolicy = Static<typeof Mesh> & { subset?: string }
/** What a route changes of its service's policy. */
export type RoutePolicy = Static<typeof RouteMesh> & { split?: readonly SplitShare[]; stickOn?: HashSource }
export type ServiceOptions = Static<typeof Service>
export type RouteMatch = Static<typeof Match>
/** A plugin as the file lists it, and the position of its entry there, for messages. */
export type PluginOptions = Static<typeof Plugin> & { readonly position: Position }

/** A service with its policy complete: its own `mesh`, else the top level's. */
export interface ServiceConfig extends Omit<ServiceOptions, 'mesh'> {
  readonly name: string
  readonly mesh: MeshPolicy
}

type Passing = 'refuse' | 'pass'

/** A route with its edge policy complete and its mesh overrides as written. */
export interface RouteConfig {
  readonly name: string
  readonly match: RouteMatch
  /** The service that serves it; with a split, the first of its services. */
  readonly service: string
  readonly path?: { strip?: string; rewrite?: { prefix: string }; encodedSlash?: Passing; parameters?: Passing }
  readonly edge: EdgePolicy
  /** For user plugins, which find it in `routeOptions.config`. */
  readonly config?: Readonly<Record<string, unknown>>
  /** Names of plugins with `scope: routes`. */
  readonly plugins?: readonly string[]
  /** One frozen object per route, so that the mesh composes a chain for it once. */
  readonly mesh: RoutePolicy
}

/** The whole configuration: validated, completed and deeply frozen. */
export interface Config extends Omit<Static<typeof Gateway>, 'services' | 'routes' | 'consumers' | 'plugins'> {
  /** Absolute path of the file it came from; paths in it are relative to its folder. */
  readonly file: string
  readonly services: Readonly<Record<string, ServiceConfig>>
  readonly routes: readonly RouteConfig[]
  readonly plugins: readonly PluginOptions[]
}
