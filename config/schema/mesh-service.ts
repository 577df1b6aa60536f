/** The mesh's concerns whose state belongs to a service: balancing, health, circuit breaking, limits, TLS. */
import Type from 'typebox'
import { Count, Duration, DurationOrZero, Either, Names, orOff, Percent, Share, strict, Text } from './kit.ts'

const Mode = Names(['enforce', 'shadow'], {
  default: 'enforce',
  description: 'shadow: only count what it would have done.'
})

// ---- Load balancing ----------------------------------------------------------------------------

export const balancePolicies = [
  'round-robin', 'least-request', 'random', 'ring-hash', 'maglev', 'peak-ewma'
] as const // biome-ignore format: a table

/** What of a call the hash is taken of. */
export const HashOn = Type.Unsafe<'ip' | 'consumer' | `header:${string}` | `cookie:${string}` | `query:${string}`>({
  type: 'string',
  pattern: "^(ip|consumer|(header|cookie):[!#$%&'*+.^_`|~0-9A-Za-z-]+|query:.+)$",
  expected: 'ip, consumer, header:NAME, cookie:NAME or query:NAME',
  description: 'ip | consumer | header:NAME | cookie:NAME | query:NAME.'
})

export const Balance = Type.Object(
  {
    policy: Names(balancePolicies, { default: 'least-request', description: 'How an instance is chosen.' }),
    choices: Count('least-request: how many instances are compared.', { default: 2, minimum: 2, maximum: 16 }),
    hashOn: Type.Optional(HashOn),
    cookieTtl: Type.Optional(
      DurationOrZero('hashOn cookie: a caller without the cookie is given one of this lifetime; 0s: a session cookie.')
    ),
    ringSize: Count('ring-hash: least points on the ring.', { default: 1024, maximum: 1_048_576 }),
    tableSize: Count('maglev: size of the table, a prime.', { default: 65_537, maximum: 5_000_011 }),
    maxLoad: Type.Optional(
      Percent('Hashing with bounded load: an instance takes at most this share of the mean; 150% is a good one.')
    ),
    decay: Duration('peak-ewma: how fast a measured latency fades.', { default: '10s' }),
    slowStart: Type.Optional(
      Duration('A new or recovered instance works its way up to its full weight within this time.')
    ),
    panicThreshold: Share('With fewer available instances than this, all of them are used. 0%: never.', {
      default: '50%'
    }),
    locality: Names(['ignore', 'prefer'], {
      default: 'ignore',
      description: "prefer: instances of the gateway's own zone, then datacenter, before all others."
    }),
    localThreshold: Share('With fewer healthy local instances than this, a part of the traffic spills over.', {
      default: '70%'
    })
  },
  strict
)

// ---- Health and circuit breaking ---------------------------------------------------------------

const Statuses = Type.Array(
  Either(
    { type: 'integer' },
    Type.Integer({ minimum: 100, maximum: 599 }),
    Type.String({ pattern: '^[1-5]\\d\\d-[1-5]\\d\\d$', expected: 'a status or a range such as 200-299' })
  ),
  { minItems: 1, default: ['200-299'], description: 'Statuses that prove health: 204, 200-299.' }
)

export const HealthCheck = Type.Object(
  {
    type: Names(['http', 'tcp'], { default: 'http', description: 'tcp: a connection is proof enough.' }),
    path: Type.String({
      pattern: '^/[!-"$-~]*$',
      expected: 'a path that starts with /, in which blanks, "#" and characters beyond ASCII are percent-encoded',
      default: '/health'
    }),
    host: Type.Optional(Type.String({ description: "`Host` of the check; default: the instance's address." })),
    statuses: Statuses,
    interval: Duration('Between two checks of an instance.', { default: '5s' }),
    jitter: Share('By which the interval varies, so that gateways do not march in step.', { default: '10%' }),
    timeout: Duration('Of one check.', { default: '1s' }),
    unhealthyThreshold: Count('Failures in a row that take an instance out.', { default: 3 }),
    healthyThreshold: Count('Successes in a row that bring it back.', { default: 2 }),
    insteadOfConsul: Type.Boolean({
      default: false,
      description: "Whatever Consul's own checks say; maintenance still counts."
    })
  },
  strict
)

export const OutlierDetection = Type.Object(
  {
    mode: Mode,
    consecutive5xx: orOff(Count('5xx in a row, or no answer, that eject.'), { default: 5 }),
    consecutiveGatewayFailures: orOff(Count('502, 503, 504 in a row, or no answer, that eject.'), { default: 5 }),
    interval: Duration('Between two looks at rates and at who may return.', { default: '10s' }),
    baseEjection: Duration('Length of the first ejection; grows with each.', { default: '30s' }),
    maxEjection: Duration('Length that no ejection exceeds.', { default: '300s' }),
    maxEjectionPercent: Share('Most instances out at a time; one may always be, and one always stays.', {
      default: '10%'
    }),
    successRate: orOff(
      Type.Object(
        {
          minHosts: Count('With this many requests each, before rates are compared.', { default: 5 }),
          minRequests: Count('Of an instance within the interval.', { default: 100 }),
          stdevFactor: Type.Number({
            minimum: 0,
            default: 1.9,
            description: 'Ejected below mean - factor × standard deviation.'
          })
        },
        strict
      ),
      { default: false }
    ),
    failurePercentage: orOff(
      Type.Object(
        {
          threshold: Share('Share of failures that ejects.', { default: '85%' }),
          minHosts: Count('With this many requests each.', { default: 5 }),
          minRequests: Count('Of an instance within the interval.', { default: 50 })
        },
        strict
      ),
      { default: false }
    )
  },
  strict
)

const caps = {
  maxConnections: Count('Connections in use at a time; more attempts wait.', { default: 1024 }),
  maxPendingRequests: Count('Attempts that wait for a connection; more are refused at once.', {
    default: 1024,
    minimum: 0
  }),
  maxRequests: Type.Optional(Count('Attempts in flight, waiting ones included; more are refused at once.'))
}

export const CircuitBreaker = Type.Object(
  {
    mode: Mode,
    ...caps,
    maxRetries: Type.Optional(Count('Retries in flight at a time, besides the retry budget.')),
    perInstance: Type.Object(caps, { ...strict, default: {}, description: 'The same, of one instance.' }),
    errorRatio: orOff(Share('Share of failed calls (5xx, no answer, retries included) that opens the circuit.'), {
      default: '50%'
    }),
    slowRatio: orOff(Share('Share of slow calls that opens it.'), { default: '100%' }),
    slowAfter: Duration('A call is slow if its headers took longer.', { default: '5s' }),
    minRequests: Count('Calls within the window before ratios count.', { default: 20 }),
    window: Duration('Rolling window over which ratios are taken.', { default: '10s' }),
    openFor: Duration('How long it stays open.', { default: '10s' }),
    rampFor: Duration('Half-open: how long until all traffic is let in again, growing linearly.', { default: '10s' })
  },
  strict
)

export const AdaptiveConcurrency = Type.Object(
  {
    mode: Mode,
    initialLimit: Count('Attempts without headers yet, at the start.', { default: 20 }),
    minLimit: Count('Never fewer.', { default: 5 }),
    maxLimit: Count('Never more.', { default: 1000 }),
    tolerance: Type.Number({
      minimum: 1,
      default: 1.5,
      description: 'Latency may rise by this factor over its long-term mean before the limit shrinks.'
    }),
    window: Duration('Between two adjustments.', { default: '1s' })
  },
  strict
)

/** A token bucket toward the service. */
export const Limit = Type.Object(
  {
    mode: Mode,
    rate: Count('Attempts per `per`, of all callers together.'),
    per: Duration('The unit of time.', { default: '1s' }),
    burst: Type.Optional(Count('Attempts at once after a pause; default: `rate`.')),
    queue: Count('Attempts that may wait for their turn; more are refused at once.', { default: 100, minimum: 0 }),
    queueTimeout: Duration('Longest wait; who would wait longer is refused at once.', { default: '1s' })
  },
  strict
)

// ---- Identity ----------------------------------------------------------------------------------

export const Connections = Type.Object(
  {
    idle: DurationOrZero(
      'How long an idle connection waits for its next request where the service does not say so (`Keep-Alive: timeout`); 0: not at all.',
      { default: '4s' }
    ),
    maxAge: Type.Optional(
      Duration('A connection this old, or up to a tenth younger, takes no more requests. Unset: it may live for ever.')
    ),
    maxRequests: Type.Optional(Count('Most requests on one connection. Unset: any number.'))
  },
  { ...strict, description: 'Connections to the instances.' }
)

export const UpstreamTls = Type.Object(
  {
    ca: Type.Optional(Type.String({ description: "PEM file; default: Node's authorities." })),
    cert: Type.Optional(Type.String({ description: 'PEM file of the client certificate.' })),
    key: Type.Optional(Type.String({ description: 'PEM file of its key.' })),
    serverName: Type.Optional(Type.String({ description: "SNI; default: the instance's host name." })),
    san: Type.Optional(
      Type.Array(Text, {
        minItems: 1,
        description: "One of these URIs or DNS names must be in the instance's certificate, instead of its host name."
      })
    ),
    minVersion: Names(['TLSv1.2', 'TLSv1.3'], { default: 'TLSv1.2', description: 'Oldest version spoken.' })
  },
  strict
)

export const Intentions = Type.Object({ mode: Mode }, strict)
