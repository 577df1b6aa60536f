/** The mesh's concerns of a call: retries and their kin, fallbacks, faults, mirroring. */
import { METHODS } from 'node:http'
import Type from 'typebox'
import {
  Count,
  Duration,
  DurationOrZero,
  Either,
  HeaderName,
  Names,
  Percent,
  Share,
  Size,
  SizeOrZero,
  strict,
  Text
} from './kit.ts'

// ---- Retries and their kin ---------------------------------------------------------------------

export const retryConditions = ['connect-failure', 'refused-stream', 'reset', 'gateway-error', '5xx'] as const
const status = Type.Integer({ minimum: 400, maximum: 599 })
const methods = (some: readonly string[], description: string) =>
  Type.Array(Names(METHODS), { default: [...some], description })

export const Retry = Type.Object(
  {
    attempts: Type.Integer({ minimum: 1, maximum: 10, default: 2, description: 'Tries after the first one.' }),
    on: Type.Array(
      Either(
        { type: 'integer' },
        status,
        Either(
          { type: 'string', pattern: '^retriable-header:' },
          Type.Unsafe<`retriable-header:${string}`>({
            type: 'string',
            pattern: '^retriable-header:.+$',
            expected: 'retriable-header:NAME'
          }),
          Names(retryConditions)
        )
      ),
      {
        minItems: 1,
        default: ['connect-failure', 'refused-stream', 'reset'],
        description:
          'Conditions and statuses; gateway-error (502, 503, 504) and 5xx include getting no answer; retriable-header:NAME is a response with that header.'
      }
    ),
    methods: methods(
      ['GET', 'HEAD', 'OPTIONS', 'TRACE', 'PUT', 'DELETE'],
      'Methods that may be sent twice. A failure to connect is retried for every method.'
    ),
    idempotencyKey: Type.Boolean({
      default: true,
      description: 'Any method may be sent twice with an `Idempotency-Key`.'
    }),
    maxBody: SizeOrZero('Largest request body that is kept for a retry; 0b: none.', { default: '64kb' }),
    backoff: Type.Object(
      {
        base: DurationOrZero('Bound of the first random pause; doubled each time.', { default: '25ms' }),
        max: DurationOrZero('Longest pause. A response whose `Retry-After` asks for a longer one is passed on.', {
          default: '250ms'
        })
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

export const Hedge = Type.Object(
  {
    after: Type.Optional(Duration('A second attempt starts when the first has not answered by then.')),
    percentile: Type.Optional(
      Type.Number({ minimum: 50, maximum: 99.9, description: "Instead: at this percentile of the service's latency." })
    ),
    attempts: Type.Integer({ minimum: 1, maximum: 3, default: 1, description: 'Hedged attempts besides the first.' }),
    methods: methods(['GET', 'HEAD', 'OPTIONS'], 'Only safe methods are hedged.')
  },
  strict
)

const ExcludeHeaders = Type.Array(HeaderName('A request header.'), {
  default: [],
  description:
    'Request headers that do not change the response. All others must be equal for two requests to share a response, except headers of tracing. Not allowed: Authorization, Cookie, Host, Range and conditions.'
})

export const Collapse = Type.Object(
  {
    headers: Type.Array(HeaderName('A request header.'), {
      default: [],
      description: 'Request headers that must be equal, too, although they are headers of tracing.'
    }),
    excludeHeaders: ExcludeHeaders,
    maxBody: SizeOrZero('A larger response is not shared by those who came later.', { default: '1mb' })
  },
  strict
)

export const fallbackConditions = [
  'no-instance', 'circuit-open', 'overloaded', 'connect-failure', 'reset', 'timeout', '5xx'
] as const // biome-ignore format: a table

export const Fallback = Type.Object(
  {
    on: Type.Array(Either({ type: 'integer' }, status, Names(fallbackConditions)), {
      minItems: 1,
      default: ['no-instance', 'circuit-open', 'overloaded', 'connect-failure', 'reset', 'timeout'],
      description: 'When it steps in. overloaded: a cap or a limit of ours is reached.'
    }),
    service: Type.Optional(Text),
    stale: Type.Optional(
      Type.Object(
        {
          maxAge: Duration('Oldest answer that may be given again.', { default: '10m' }),
          maxEntries: Count('Answers kept.', { default: 1000 }),
          maxBody: SizeOrZero('Largest answer kept.', { default: '64kb' }),
          excludeHeaders: ExcludeHeaders
        },
        {
          ...strict,
          description:
            'The last good response to an identical GET; if it was `public`, to any GET of the resource that `Vary` allows.'
        }
      )
    ),
    status: Type.Optional(Type.Integer({ minimum: 200, maximum: 599, description: 'A static response.' })),
    headers: Type.Optional(Type.Record(Type.String(), Type.String())),
    body: Type.Optional(Type.String())
  },
  strict
)

// ---- Traffic -----------------------------------------------------------------------------------

const Part = (description: string) => Share(description, { default: '100%' })

export const Fault = Type.Object(
  {
    delay: Type.Optional(
      Type.Object({ for: Duration('Length of the delay.'), percent: Part('Of the attempts.') }, strict)
    ),
    abort: Type.Optional(
      Type.Object(
        {
          status: Type.Integer({ minimum: 200, maximum: 599, description: 'Answered instead of the service.' }),
          percent: Part('Of the attempts.')
        },
        strict
      )
    ),
    bandwidth: Type.Optional(
      Type.Object({ limit: Size('Bytes per second of the response.'), percent: Part('Of the attempts.') }, strict)
    ),
    header: Type.Boolean({
      default: false,
      description:
        'Trusted callers may ask for faults: x-jingwei-fault-delay (ms), x-jingwei-fault-abort (status), x-jingwei-fault-bandwidth (bytes/s).'
    }),
    maxActive: Count('Faults in force at a time; more are not injected.', { default: 1000 })
  },
  strict
)

export const Mirror = Type.Object(
  {
    service: Text,
    percent: Part('Of the calls.'),
    maxBody: SizeOrZero('A request with a larger body is not mirrored.', { default: '64kb' }),
    maxActive: Count('Mirrored calls in flight; more are dropped.', { default: 100 })
  },
  strict
)
