/** `mesh.hedge`. */

import type { Static } from 'typebox'
import type { Key } from '../../../../config/concern.ts'
import { everyLevel } from '../../../../config/concern.ts'
import { Duration, Names, orOff, strict } from '../../../../config/schema/kit.ts'
import Type from '../../../../config/schema/type.ts'
import { METHODS } from '../../../node-http.ts'

export const Hedge = Type.Object(
  {
    after: Type.Optional(Duration('A second attempt starts if the first has no response after this time.')),
    percentile: Type.Optional(
      Type.Number({
        minimum: 50,
        maximum: 99.9,
        description: "In place of `after`: this percentile of the service's latency."
      })
    ),
    attempts: Type.Integer({
      minimum: 1,
      maximum: 3,
      default: 1,
      description: 'Most hedged attempts, besides the first attempt.'
    }),
    methods: Type.Array(Names(METHODS), {
      default: ['GET', 'HEAD', 'OPTIONS'],
      description: 'Methods that are hedged.'
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
      'Starts a second attempt at another instance when the first is slow, within the retry budget. The first response wins.'
  }),
  levels: everyLevel,
  repeatsTimeouts: () => true,
  check(options: HedgeOptions, at, { report }) {
    if (!report.sound(at) || (options.after === undefined) !== (options.percentile === undefined)) return
    report.fault(at, 'needs exactly one of after and percentile')
  }
}
