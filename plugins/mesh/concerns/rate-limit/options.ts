/** `mesh.limit`: a token bucket toward the service. */
import type { Static } from 'typebox'
import type { Key } from '../../../../config/concern.ts'
import { gatewayAndService } from '../../../../config/concern.ts'
import { Count, Duration, Mode, orOff, strict } from '../../../../config/schema/kit.ts'
import Type from '../../../../config/schema/type.ts'

export const Limit = Type.Object(
  {
    mode: Mode,
    rate: Count('Attempts per `per`, for all callers together.'),
    per: Duration('Unit of time of `rate`.', { default: '1s' }),
    burst: Type.Optional(Count('Most attempts at once after a pause. Default: `rate`.')),
    queue: Count('Most attempts in the queue; more are refused at once.', { default: 100, minimum: 0 }),
    queueTimeout: Duration('Longest time in the queue; an attempt that would wait longer is refused at once.', {
      default: '1s'
    })
  },
  strict
)

export type LimitOptions = Static<typeof Limit>

declare module '../../../../config/schema.ts' {
  interface MeshPolicy {
    limit?: LimitOptions | false
  }
}

export const limitKey: Key = {
  name: 'limit',
  options: orOff(Limit, {
    description: 'Limits the rate of attempts at the service by a token bucket, for all callers together.'
  }),
  levels: gatewayAndService
}
