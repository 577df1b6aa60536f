/**
 * The one source of the configuration's shape: TypeBox builds the JSON Schema that editors and the
 * loader use, and the TypeScript types that the code uses.
 *
 * Units are written as people write them (`15s`, `10mb`, `20%`) and arrive as numbers: durations in
 * milliseconds, sizes in bytes, percentages as a fraction of 1. The loader converts them by the
 * `unit` keyword, so every `Static` type below is the *loaded* value. `expected` says in words what a
 * `pattern` asks for.
 */
import { METHODS } from 'node:http'
import type { Static } from 'typebox'
import Type from 'typebox'

/** `250ms`, `15s`, `5m`, `1h`; loaded as milliseconds. */
const Duration = (description: string, more: { default?: string } = {}) =>
  Type.Unsafe<number>({ type: 'string', unit: 'duration', description, ...more })
/** The same, and 0 is a sensible value. */
const DurationOrZero = (description: string, more: { default?: string } = {}) =>
  Type.Unsafe<number>({ type: 'string', unit: 'duration or 0', description, ...more })
/** `512b`, `16kb`, `10mb`, `1gb`; loaded as bytes (1kb = 1024 bytes). */
const Size = (description: string, more: { default?: string } = {}) =>
  Type.Unsafe<number>({ type: 'string', unit: 'size', description, ...more })
/** `20%`; loaded as a fraction: 0.2. */
const Percent = (description: string, more: { default?: string } = {}) =>
  Type.Unsafe<number>({ type: 'string', unit: 'percent', description, ...more })
/** An absolute URL of a scheme, or of the same over TLS. */
const Url = (scheme: 'http' | 'redis', description: string) =>
  Type.String({
    format: 'url',
    pattern: `^${scheme}s?://`,
    expected: `a URL that starts with ${scheme}:// or ${scheme}s://`,
    description
  })
const Port = (description: string, min = 0) => Type.Integer({ minimum: min, maximum: 65535, description })
const Names = <T extends string>(values: readonly T[], more: object = {}) =>
  Type.Unsafe<T>({ type: 'string', enum: [...values], ...more })
const strict = { additionalProperties: false }
/**
 * One of two shapes, told apart by `when`. Not `anyOf`: with if/then/else the validator reports the faults
 * of the shape that was meant, and fills in its defaults.
 */
const Either = <A extends Type.TSchema, B extends Type.TSchema>(when: object, yes: A, no: B, more: object = {}) =>
  // biome-ignore lint/suspicious/noThenProperty: a JSON Schema keyword
  Type.Unsafe<Static<A> | Static<B>>({ if: when, then: yes, else: no, ...more })
const Name = Type.String({
  pattern: '^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$',
  expected: 'a name of a-z, 0-9 and dashes, at most 63 characters'
})
const HeaderName = (description: string, more: { default?: string } = {}) =>
  Type.String({ pattern: "^[!#$%&'*+.^_`|~0-9A-Za-z-]+$", expected: 'a header name', description, ...more })
/** `false`, or a concern's settings. */
const orOff = <T extends Type.TSchema>(schema: T, more: object = {}) =>
  Either({ const: false }, Type.Literal(false), schema, more)
const Tls = Type.Object(
  {
    cert: Type.String({ description: 'PEM file with the certificate chain.' }),
    key: Type.String({ description: 'PEM file with the private key.' }),
    ca: Type.Optional(Type.String({ description: 'PEM file; clients must show a certificate signed by it.' }))
  },
  strict
)

export const Listen = Type.Object(
  {
    host: Type.String({ default: '0.0.0.0' }),
    port: Type.Integer({ minimum: 0, maximum: 65535, default: 8080 }),
    tls: Type.Optional(Tls),
    http2: Type.Boolean({ default: false, description: 'Also speak HTTP/2 (ALPN); needs `tls`.' }),
    trustProxy: Type.Array(Type.String({ format: 'cidr' }), {
      default: [],
      description: 'Peers whose forwarding headers are believed: addresses or CIDR ranges.'
    }),
    timeouts: Type.Object(
      {
        headers: Duration('A client must send its whole request head within this time.', { default: '10s' }),
        bodyIdle: Duration('Longest silence of a client within its request body.', { default: '30s' }),
        keepAlive: Duration('How long an idle client connection stays open.', { default: '75s' })
      },
      { ...strict, default: {} }
    ),
    limits: Type.Object(
      {
        headers: Size('Largest request head.', { default: '16kb' }),
        url: Size('Longest request target.', { default: '8kb' }),
        connections: Type.Integer({ minimum: 1, default: 10000, description: 'Most client connections at a time.' })
      },
      { ...strict, default: {} }
    ),
    drain: Type.Object(
      {
        delay: DurationOrZero('After SIGTERM: how long readiness says 503 while requests are still taken.', {
          default: '5s'
        }),
        timeout: DurationOrZero('Then: how long requests in flight may take before they are cut.', { default: '25s' })
      },
      { ...strict, default: {} }
    )
  },
  { ...strict, default: {} }
)

export const Admin = Type.Object(
  { host: Type.String({ default: '127.0.0.1' }), port: Type.Integer({ minimum: 0, maximum: 65535, default: 8081 }) },
  strict
)

export const ConsulDiscovery = Type.Object(
  {
    url: Url('http', 'The HTTP API of a Consul agent.'),
    token: Type.Optional(Type.String({ description: 'ACL token; `service:read` and `node:read` are enough.' })),
    datacenter: Type.Optional(Type.String()),
    namespace: Type.Optional(Type.String({ description: 'Consul Enterprise namespace.' })),
    tls: Type.Optional(
      Type.Object(
        {
          ca: Type.Optional(Type.String({ description: 'PEM file.' })),
          cert: Type.Optional(Type.String({ description: 'PEM file.' })),
          key: Type.Optional(Type.String({ description: 'PEM file.' })),
          serverName: Type.Optional(Type.String())
        },
        strict
      )
    ),
    wait: Duration('Longest time a blocking query is held by Consul.', { default: '1m' }),
    maxStale: Duration('An answer from a server that has been without a leader for longer is not believed.', {
      default: '1m'
    })
  },
  strict
)

export const Discovery = Type.Object({ consul: Type.Optional(ConsulDiscovery) }, { ...strict, default: {} })

export const Redis = Type.Object(
  {
    url: Url('redis', 'The Redis that holds what the nodes of a cluster share.'),
    timeout: Duration('Longest time a request waits for Redis before the node decides alone.', { default: '50ms' })
  },
  strict
)

// ---- Edge ------------------------------------------------------------------------------------

const Text = Type.String({ minLength: 1 })
const oneOrMany = Either({ type: 'array' }, Type.Array(Text, { minItems: 1 }), Text)

export const Cors = Type.Object(
  {
    origin: Either({ type: 'string' }, Type.Literal('*'), Type.Array(Text, { minItems: 1 }), {
      description: '`"*"`, or the origins allowed.'
    }),
    methods: Type.Optional(Type.Array(Type.String(), { description: "Default: the route's methods." })),
    allowedHeaders: Type.Optional(Type.Array(Type.String(), { description: 'Default: what the preflight asks for.' })),
    exposedHeaders: Type.Optional(Type.Array(Type.String())),
    credentials: Type.Boolean({ default: false }),
    maxAge: Type.Optional(DurationOrZero('How long a browser may keep a preflight.'))
  },
  strict
)

export const algorithms = [
  'HS256', 'HS384', 'HS512', 'RS256', 'RS384', 'RS512', 'PS256', 'PS384', 'PS512', 'ES256', 'ES384', 'ES512', 'EdDSA'
] as const // biome-ignore format: a table

export const Jwt = Type.Object(
  {
    secret: Type.Optional(Type.String({ minLength: 32, description: 'Shared secret for HS256/384/512.' })),
    publicKey: Type.Optional(Type.String({ description: 'PEM public key, or the path of a file with one.' })),
    jwks: Type.Optional(Url('http', 'Where the key set (RFC 7517) is published.')),
    jwksMaxAge: Duration('How long a fetched key set is used before it is fetched again.', { default: '10m' }),
    jwksCooldown: DurationOrZero('Least time between two fetches, whatever key ids tokens name.', { default: '30s' }),
    issuer: Type.Optional(oneOrMany),
    audience: Type.Optional(oneOrMany),
    algorithms: Type.Optional(
      Type.Array(Names(algorithms), { minItems: 1, description: 'Default: those of the key.' })
    ),
    clockSkew: DurationOrZero('Tolerated difference of clocks for exp, nbf and iat.', { default: '5s' }),
    forward: Type.Optional(
      Type.Record(Type.String(), HeaderName('Header that carries the claim to the service.'), {
        description: 'claim: header. Copies of these headers that a client sends are dropped.'
      })
    ),
    maxTokenSize: Size('A longer token is refused unread.', { default: '8kb' })
  },
  strict
)

export const RateLimit = Type.Object(
  {
    max: Type.Integer({ minimum: 1, description: 'Requests per window.' }),
    window: Duration('Length of the window.'),
    by: Type.Unsafe<'ip' | 'consumer' | `header:${string}`>({
      type: 'string',
      pattern: '^(ip|consumer|header:.+)$',
      expected: 'ip, consumer or header:NAME',
      default: 'ip',
      description: 'Whose requests are counted together: ip | consumer | header:NAME.'
    }),
    store: Names(['memory', 'redis'], { default: 'memory', description: 'redis: one limit for the whole cluster.' })
  },
  strict
)

export const AccessLog = Type.Boolean({ description: 'One JSON line for each request.' })

export const WebSocket = Type.Object(
  {
    idleTimeout: orOff(Duration('Longest silence of both sides; then both are told 1001 and closed.'), {
      default: '5m'
    })
  },
  strict
)

const BodyLimit = orOff(Size('Largest request body.'))

/** What a route may say about the edge; unset keys come from the top-level `edge`. */
export const RouteEdge = Type.Object(
  {
    bodyLimit: Type.Optional(BodyLimit),
    accessLog: Type.Optional(AccessLog),
    cors: Type.Optional(orOff(Cors)),
    jwt: Type.Optional(orOff(Jwt)),
    rateLimit: Type.Optional(orOff(RateLimit)),
    websocket: Type.Optional(orOff(WebSocket)),
    host: Type.Optional(
      Names(['preserve', 'upstream'], {
        description: "`Host` for the service: the client's, or the instance's own address."
      })
    )
  },
  strict
)

export const Edge = Type.Object(
  {
    ...RouteEdge.properties,
    requestId: Type.Object(
      {
        header: HeaderName('Carries the request id in, upstream and back.', { default: 'x-request-id' }),
        trustClient: Type.Boolean({ default: true, description: 'Keep a well-formed id that the client sent.' })
      },
      { ...strict, default: {} }
    )
  },
  { ...strict, default: {} }
)

// ---- Mesh ------------------------------------------------------------------------------------

export const balancePolicies = ['round-robin', 'least-request', 'random'] as const
export const retryConditions = ['connect-failure', 'refused-stream', 'reset', 'gateway-error', '5xx'] as const

export const Retry = Type.Object(
  {
    attempts: Type.Integer({ minimum: 1, maximum: 10, default: 2, description: 'Tries after the first one.' }),
    on: Type.Array(Either({ type: 'integer' }, Type.Integer({ minimum: 400, maximum: 599 }), Names(retryConditions)), {
      minItems: 1,
      default: ['connect-failure', 'refused-stream', 'reset'],
      description: 'Conditions and statuses; gateway-error (502, 503, 504) and 5xx include getting no answer.'
    }),
    methods: Type.Array(Names(METHODS), {
      default: ['GET', 'HEAD', 'OPTIONS', 'TRACE', 'PUT', 'DELETE'],
      description: 'Methods that may be sent twice. A failure to connect is retried for every method.'
    }),
    backoff: Type.Object(
      {
        base: DurationOrZero('Bound of the first random pause; doubled each time.', { default: '25ms' }),
        max: DurationOrZero('Bound that it never exceeds.', { default: '250ms' })
      },
      { ...strict, default: {} }
    ),
    budget: Percent(
      'Retries, at most, as a share of the calls of the last 10 s, and 10 a second besides. A failure to connect costs none.',
      {
        default: '20%'
      }
    )
  },
  strict
)

const meshPolicy = {
  balance: Names(balancePolicies, { description: 'How an instance is chosen.' }),
  timeout: Duration("Whole call, all attempts, from the end of the request to the response's headers."),
  attemptTimeout: Duration("One attempt, from the end of the request to the response's headers."),
  connectTimeout: Duration('TCP and TLS.'),
  idleTimeout: orOff(Duration('Longest silence once the response runs.')),
  retry: orOff(Retry)
}

/** What a service or a route may say about the mesh; unset keys come from the level above. */
export const MeshOverride = Type.Partial(Type.Object(meshPolicy), strict)
/** A route's part of it: the instances, and so their pools and balancer, belong to the service. */
export const RouteMesh = Type.Omit(MeshOverride, ['balance', 'connectTimeout'], strict)

export const Mesh = Type.Object(
  {
    balance: Names(balancePolicies, { default: 'least-request', description: 'How an instance is chosen.' }),
    timeout: Duration("Whole call, all attempts, from the end of the request to the response's headers.", {
      default: '15s'
    }),
    attemptTimeout: Duration("One attempt, from the end of the request to the response's headers.", { default: '5s' }),
    connectTimeout: Duration('TCP and TLS.', { default: '2s' }),
    idleTimeout: orOff(Duration('Longest silence once the response runs.'), { default: '60s' }),
    retry: orOff(Retry, { default: {} })
  },
  { ...strict, default: {} }
)

const InstanceUrl = Url('http', 'An address of the service: scheme, host and port.')

export const Service = Type.Object(
  {
    consul: Type.Optional(
      Type.Object(
        {
          service: Type.Optional(Type.String({ minLength: 1, description: "Default: the service's own name." })),
          tags: Type.Optional(Type.Array(Type.String(), { description: 'An instance must carry all of them.' })),
          datacenter: Type.Optional(Type.String()),
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
          server: Type.Optional(Type.String({ description: 'ip:port of the DNS server; default: the system’s.' })),
          minTtl: DurationOrZero('Never ask more often than this.', { default: '1s' }),
          maxTtl: Duration('Never keep an answer longer than this.', { default: '5m' })
        },
        strict
      )
    ),
    mesh: Type.Optional(MeshOverride)
  },
  strict
)

// ---- Routes ----------------------------------------------------------------------------------

const startsWithSlash = { pattern: '^/', expected: 'a path that starts with /' }
const PathText = Type.String({
  ...startsWithSlash,
  description: 'Prefix on a segment boundary, or a pattern: /users/:id, /files/*.'
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
          pattern: '^(\\*\\.)?[A-Za-z0-9.-]+$',
          expected: 'a host name such as api.example.com or *.example.com'
        }),
        {
          minItems: 1,
          description: 'api.example.com, *.example.com'
        }
      )
    ),
    headers: Type.Optional(Type.Record(Type.String(), Type.String(), { minProperties: 1 }))
  },
  strict
)

export const Split = Type.Array(
  Type.Object({ service: Type.String(), weight: Type.Integer({ minimum: 0, maximum: 65535 }) }, strict),
  { minItems: 1, description: 'Shares of the traffic.' }
)

export const Route = Type.Object(
  {
    name: Name,
    match: Match,
    service: Type.Optional(Type.String({ description: 'One of `services`.' })),
    split: Type.Optional(Split),
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
          )
        },
        strict
      )
    ),
    edge: Type.Optional(RouteEdge),
    mesh: Type.Optional(RouteMesh),
    config: Type.Optional(
      Type.Record(Type.String(), Type.Unknown(), { description: 'For your own plugins: what they read of a route.' })
    )
  },
  strict
)

export const Plugin = Type.Object(
  {
    path: Type.Optional(Type.String({ description: 'Module file, relative to this config file.' })),
    package: Type.Optional(Type.String({ description: 'Package name.' })),
    options: Type.Optional(Type.Record(Type.String(), Type.Unknown()))
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
      maxItems: 0,
      default: [],
      description: 'Known callers; none can be declared yet.'
    }),
    plugins: Type.Array(Plugin, { default: [], description: 'Your own Fastify plugins, in order.' })
  },
  { ...strict, title: 'Jingwei gateway configuration' }
)

// ---- What the loader hands out -----------------------------------------------------------------

export type CorsOptions = Static<typeof Cors>
export type JwtOptions = Static<typeof Jwt>
export type RateLimitOptions = Static<typeof RateLimit>
export type RedisOptions = Static<typeof Redis>
export type ConsulOptions = Static<typeof ConsulDiscovery>
export type RetryOptions = Static<typeof Retry>
/** The edge concerns in force on one route: its own, else the top level's; `false` and unset are both off. */
export type EdgePolicy = Static<typeof RouteEdge>
/** The mesh concerns in force on a call, all set. */
export type MeshPolicy = Static<typeof Mesh>
/** What a route changes of its service's policy. */
export type RoutePolicy = Static<typeof RouteMesh> & { split?: Static<typeof Split> }
export type ServiceOptions = Static<typeof Service>
export type RouteMatch = Static<typeof Match>
export type PluginOptions = Static<typeof Plugin>

/** A service with its policy complete: its own `mesh`, else the top level's. */
export interface ServiceConfig extends Omit<ServiceOptions, 'mesh'> {
  readonly name: string
  readonly mesh: MeshPolicy
}

/** A route with its edge policy complete and its mesh overrides as written. */
export interface RouteConfig {
  readonly name: string
  readonly match: RouteMatch
  /** The service that serves it; with a split, the first of its services. */
  readonly service: string
  readonly path?: { strip?: string; rewrite?: { prefix: string } }
  readonly edge: EdgePolicy
  /** For user plugins, which find it in `routeOptions.config`. */
  readonly config?: Readonly<Record<string, unknown>>
  /** One frozen object per route, so that the mesh composes a chain for it once. */
  readonly mesh: RoutePolicy
}

/** The whole configuration: validated, completed and deeply frozen. */
export interface Config extends Omit<Static<typeof Gateway>, 'services' | 'routes' | 'consumers'> {
  /** Absolute path of the file it came from; paths in it are relative to its folder. */
  readonly file: string
  readonly services: Readonly<Record<string, ServiceConfig>>
  readonly routes: readonly RouteConfig[]
}
