/** `mesh.adaptiveConcurrency`. */
import type { Static } from 'typebox'
import type { Key } from '../../../../config/concern.ts'
import { gatewayAndService } from '../../../../config/concern.ts'
import { Count, Duration, Mode, orOff, strict } from '../../../../config/schema/kit.ts'
import Type from '../../../../config/schema/type.ts'

const AdaptiveConcurrency = Type.Object(
  {
    mode: Mode,
    initialLimit: Count('Limit at the start: attempts whose response headers have not come yet.', { default: 20 }),
    minLimit: Count('Lowest value of the limit.', { default: 5 }),
    maxLimit: Count('Highest value of the limit.', { default: 1000 }),
    tolerance: Type.Number({
      minimum: 1,
      default: 1.5,
      description: 'Latency may rise by this factor over its long-term mean before the limit shrinks.'
    }),
    window: Duration('Time between two adjustments of the limit.', { default: '1s' })
  },
  strict
)

export type AdaptiveConcurrencyOptions = Static<typeof AdaptiveConcurrency>

declare module '../../../../config/schema.ts' {
  interface MeshPolicy {
    adaptiveConcurrency?: AdaptiveConcurrencyOptions | false
  }
}

export const adaptiveConcurrencyKey: Key = {
  name: 'adaptiveConcurrency',
  options: orOff(AdaptiveConcurrency, {
    description: 'A limit of attempts in flight that adapts to the latency (gradient algorithm).'
  }),
  levels: gatewayAndService,
  check({ minLimit, initialLimit, maxLimit }: AdaptiveConcurrencyOptions, at, { report }) {
    if (!report.sound(at) || (minLimit <= initialLimit && initialLimit <= maxLimit)) return
    report.fault(at, 'expected minLimit ≤ initialLimit ≤ maxLimit')
  }
}
