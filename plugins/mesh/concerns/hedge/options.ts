/** `mesh.hedge`. */
import { METHODS } from 'node:http'
import type { Static } from 'typebox'
import type { Key } from '../../../../config/concern.ts'
import { everyLevel } from '../../../../config/concern.ts'
import { Duration, Names, orOff, strict } from '../../../../config/schema/kit.ts'
import Type from '../../../../config/schema/type.ts'

export const Hedge = Type.Object(
  {
    after: Type.Optional(Duration('A second attempt starts when the first has not answered by then.')),
    percentile: Type.Optional(
      Type.Number({ minimum: 50, maximum: 99.9, description: "Instead: at this percentile of the service's latency." })
    ),
    attempts: Type.Integer({ minimum: 1, maximum: 3, default: 1, description: 'Hedged attempts besides the first.' }),
    methods: Type.Array(Names(METHODS), {
      default: ['GET', 'HEAD', 'OPTIONS'],
      description: 'Only safe methods are hedged.'
    })
  },
  strict
)

export type HedgeOptions = Static<typeof Hedge>

declare module '../../../../config/schema.ts' {
  interface MeshPolicy {
    hedge?: HedgeOptions | false
  }
}

export const hedgeKey: Key = {
  name: 'hedge',
  options: orOff(Hedge, {
    description:
      'A second attempt at another instance when the first is slow, within the retry budget. The first answer wins.'
  }),
  levels: everyLevel,
  repeatsTimeouts: () => true,
  check(options: HedgeOptions, at, { report }) {
    if (!report.sound(at) || (options.after === undefined) !== (options.percentile === undefined)) return
    report.fault(at, 'a hedge starts either after a time or at a percentile: exactly one of "after" and "percentile"')
  }
}
