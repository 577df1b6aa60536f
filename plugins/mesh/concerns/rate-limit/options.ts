/** `mesh.limit`: a token bucket toward the service. */
import type { Static } from 'typebox'
import type { Key } from '../../../../config/concern.ts'
import { gatewayAndService } from '../../../../config/concern.ts'
import { Count, Duration, Mode, orOff, strict } from '../../../../config/schema/kit.ts'
import Type from '../../../../config/schema/type.ts'

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

export type LimitOptions = Static<typeof Limit>

declare module '../../../../config/schema.ts' {
  interface MeshPolicy {
    limit?: LimitOptions | false
  }
}

export const limitKey: Key = {
  name: 'limit',
  options: orOff(Limit, { description: 'A token bucket toward the service, of all callers together.' }),
  levels: gatewayAndService
}
