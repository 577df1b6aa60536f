/** `mesh.outlierDetection`. */
import type { Static } from 'typebox'
import type { Key } from '../../../../config/concern.ts'
import { gatewayAndService } from '../../../../config/concern.ts'
import { Count, Duration, Mode, orOff, Share, strict } from '../../../../config/schema/kit.ts'
import Type from '../../../../config/schema/type.ts'

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

export type OutlierOptions = Static<typeof OutlierDetection>

declare module '../../../../config/schema.ts' {
  interface MeshPolicy {
    outlierDetection?: OutlierOptions | false
  }
}

export const outlierDetectionKey: Key = {
  name: 'outlierDetection',
  options: orOff(OutlierDetection, {
    description: 'Passive checks: instances that answer worse than the others are ejected.'
  }),
  levels: gatewayAndService,
  check({ baseEjection, maxEjection }: OutlierOptions, at, { report }) {
    if (!report.sound(at) || baseEjection <= maxEjection) return
    report.fault(at, 'baseEjection is longer than maxEjection, which no ejection exceeds')
  }
}
