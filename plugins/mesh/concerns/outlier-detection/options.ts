/** `mesh.outlierDetection`. */
import type { Static } from 'typebox'
import type { Key } from '../../../../config/concern.ts'
import { gatewayAndService } from '../../../../config/concern.ts'
import { Count, Duration, Mode, orOff, Share, strict } from '../../../../config/schema/kit.ts'
import Type from '../../../../config/schema/type.ts'

const OutlierDetection = Type.Object(
  {
    mode: Mode,
    consecutive5xx: orOff(Count('Consecutive failures (5xx or no response) after which an instance is ejected.'), {
      default: 5
    }),
    consecutiveGatewayFailures: orOff(
      Count('Consecutive gateway failures (502, 503, 504 or no response) after which an instance is ejected.'),
      { default: 5 }
    ),
    interval: Duration('Time between two evaluations of rates and of ejections that are over.', { default: '10s' }),
    baseEjection: Duration('Length of the first ejection; each further one is longer by this much.', {
      default: '30s'
    }),
    maxEjection: Duration('Longest ejection.', { default: '300s' }),
    maxEjectionPercent: Share(
      'Most instances ejected or unavailable at a time. One may always be ejected, and one always stays.',
      {
        default: '10%'
      }
    ),
    successRate: orOff(
      Type.Object(
        {
          minHosts: Count('Fewest instances with `minRequests` for which rates are compared.', { default: 5 }),
          minRequests: Count('Fewest requests of an instance within the interval for which it is judged.', {
            default: 100
          }),
          stdevFactor: Type.Number({
            minimum: 0,
            default: 1.9,
            description: 'An instance is ejected if its success rate is below mean - factor × standard deviation.'
          })
        },
        strict
      ),
      { default: false }
    ),
    failurePercentage: orOff(
      Type.Object(
        {
          threshold: Share('Share of failures at which an instance is ejected.', { default: '85%' }),
          minHosts: Count('Fewest instances with `minRequests` for which this applies.', { default: 5 }),
          minRequests: Count('Fewest requests of an instance within the interval for which it is judged.', {
            default: 50
          })
        },
        strict
      ),
      { default: false }
    )
  },
  strict
)

export type OutlierOptions = Static<typeof OutlierDetection>

declare module '../../../../config/schema.ts' {
  interface MeshPolicy {
    outlierDetection?: OutlierOptions | false
  }
}

export const outlierDetectionKey: Key = {
  name: 'outlierDetection',
  options: orOff(OutlierDetection, {
    description: 'Passive health checks: ejects instances that fail more often than the others.'
  }),
  levels: gatewayAndService,
  check({ baseEjection, maxEjection }: OutlierOptions, at, { report }) {
    if (!report.sound(at) || baseEjection <= maxEjection) return
    report.fault(at, 'baseEjection must not be longer than maxEjection')
  }
}
