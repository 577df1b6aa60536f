/** `edge`: the concerns of the north-south half. */
import Type from 'typebox'
import {
  Count,
  Duration,
  DurationOrZero,
  Either,
  HeaderName,
  Names,
  oneOrMany,
  orOff,
  Size,
  SizeOrZero,
  strict,
  Text,
  Url
} from './kit.ts'

export const Cors = Type.Object(
  {
    origin: Either({ type: 'string' }, Text, Type.Array(Text, { minItems: 1 }), {
      description:
        '`"*"`, or the origins allowed: `https://app.example.com`, `https://*.example.com` (any name below it), `http://localhost:*` (any port), or a regular expression `/^…$/`. A WebSocket handshake from another origin is refused.'
    }),
    methods: Type.Optional(
      Type.Array(Type.String({ pattern: '^([A-Z][A-Z-]*|\\*)$', expected: 'a method in capitals, or *' }), {
        description: "Default: the route's methods."
      })
    ),
    allowedHeaders: Type.Optional(
      Type.Array(HeaderName('A header, or `*`.'), { description: 'Default: what the preflight asks for.' })
    ),
    exposedHeaders: Type.Optional(Type.Array(HeaderName('A header, or `*`.'))),
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
    jwksCooldown: DurationOrZero(
      'The key set is fetched at most this often for key ids that it lacks; tokens with other ids are refused meanwhile. While it cannot be fetched, it is tried every second.',
      { default: '30s' }
    ),
    issuer: Type.Optional(oneOrMany),
    audience: Type.Optional(oneOrMany),
    algorithms: Type.Optional(
      Type.Array(Names(algorithms), { minItems: 1, description: 'Default: those of the key.' })
    ),
    clockSkew: DurationOrZero('Tolerated difference of clocks for exp, nbf and iat.', { default: '5s' }),
    forward: Type.Optional(
      Type.Record(Type.String(), HeaderName('Header that carries the claim to the service.'), {
        description:
          'claim: header. `realm_access.roles` is a claim of that name, or `roles` within `realm_access`. A list is joined by commas; other characters than printable ASCII are percent-encoded. Copies of these headers that a client sends are dropped, on every route that leads to the same service.'
      })
    ),
    rememberTokens: orOff(
      Count('Verified tokens that are remembered until they expire, at most 32 MB of them; they need no verification.'),
      { default: 20_000 }
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
      pattern: "^(ip|consumer|header:[!#$%&'*+.^_`|~0-9A-Za-z-]+)$",
      expected: 'ip, consumer or header:NAME',
      default: 'ip',
      description:
        'Whose requests are counted together: ip | consumer | header:NAME. Those without a consumer, or without the header, count by address.'
    }),
    maxPerAddress: Type.Optional(
      Count(
        'With `by: header:NAME`: requests per window of one client address, whatever the header says. Without, a client that changes the header has no limit.'
      )
    ),
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

const BodyLimit = orOff(SizeOrZero('Largest request body.'))

/** What a route may say about the edge; unset keys come from the top-level `edge`. */
export const RouteEdge = Type.Object(
  {
    bodyLimit: Type.Optional(BodyLimit),
    bodyTimeout: Type.Optional(
      orOff(Duration('Longest time for a whole request body. Default: `listen.timeouts.body`.'))
    ),
    bodyRate: Type.Optional(
      orOff(
        SizeOrZero('Bytes per second that a client must send of a request body. Default: `listen.limits.bodyRate`.')
      )
    ),
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
