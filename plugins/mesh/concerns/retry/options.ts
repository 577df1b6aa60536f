/** `mesh.retry`. */

import type { Static } from 'typebox'
import type { Key } from '../../../../config/concern.ts'
import { everyLevel } from '../../../../config/concern.ts'
import { DurationOrZero, Either, Names, orOff, Percent, SizeOrZero, strict } from '../../../../config/schema/kit.ts'
import Type from '../../../../config/schema/type.ts'
import { METHODS } from '../../../node-http.ts'

const retryConditions = ['connect-failure', 'refused-stream', 'reset', 'gateway-error', '5xx'] as const
const status = Type.Integer({ minimum: 400, maximum: 599 })
const methods = Type.Array(Names(METHODS), {
  default: ['GET', 'HEAD', 'OPTIONS', 'TRACE', 'PUT', 'DELETE'],
  description: 'Methods that are retried. A failed connect is retried for every method.'
})

export const Retry = Type.Object(
  {
    attempts: Type.Integer({
      minimum: 1,
      maximum: 10,
      default: 2,
      description: 'Most retries after the first attempt.'
    }),
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
          'Conditions and statuses that are retried. gateway-error (502, 503, 504) and 5xx include attempts without a response; retriable-header:NAME is a response with that header.'
      }
    ),
    methods,
    idempotencyKey: Type.Boolean({
      default: true,
      description: 'A request with an `Idempotency-Key` is retried whatever its method.'
    }),
    maxBody: SizeOrZero('Largest streamed request body that is buffered for a retry; 0b: none.', { default: '64kb' }),
    backoff: Type.Object(
      {
        base: DurationOrZero('Upper bound of the first random pause; doubled for each retry.', { default: '25ms' }),
        max: DurationOrZero('Longest pause. A response whose `Retry-After` asks for a longer one is passed on.', {
          default: '250ms'
        })
      },
      { ...strict, default: {} }
    ),
    budget: Percent(
      "Retries may be at most this share of the last 10 s' calls, plus 10 per second. Retries after a failed connect are not counted.",
      {
        default: '20%'
      }
    )
  },
  strict
)

export type RetryOptions = Static<typeof Retry>

declare module '../../../../config/schema.ts' {
  interface MeshPolicy {
    retry: RetryOptions | false
  }
}

export const retryKey: Key = {
  name: 'retry',
  options: orOff(Retry),
  levels: everyLevel,
  default: {},
  repeatsTimeouts: ({ on }: RetryOptions) => on.some((item) => item === 'gateway-error' || item === '5xx'),
  aliases: { retries: 'write retry: { attempts: 2 } under "mesh"' }
}
