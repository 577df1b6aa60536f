/** `mesh.fault`. */
import type { Static } from 'typebox'
import type { Key } from '../../../../config/concern.ts'
import { everyLevel } from '../../../../config/concern.ts'
import { Count, Duration, orOff, Share, Size, strict } from '../../../../config/schema/kit.ts'
import Type from '../../../../config/schema/type.ts'

/** Headers by which trusted callers request faults. */
export const faultHeaders = {
  delay: 'x-jingwei-fault-delay',
  abort: 'x-jingwei-fault-abort',
  bandwidth: 'x-jingwei-fault-bandwidth'
} as const

const Part = (description: string) => Share(description, { default: '100%' })

export const Fault = Type.Object(
  {
    delay: Type.Optional(
      Type.Object({ for: Duration('Length of the delay.'), percent: Part('Share of the attempts.') }, strict)
    ),
    abort: Type.Optional(
      Type.Object(
        {
          status: Type.Integer({ minimum: 200, maximum: 599, description: 'Status of the injected response.' }),
          percent: Part('Share of the attempts.')
        },
        strict
      )
    ),
    bandwidth: Type.Optional(
      Type.Object({ limit: Size('Bytes per second of the response.'), percent: Part('Share of the attempts.') }, strict)
    ),
    header: Type.Boolean({
      default: false,
      description: `Trusted callers may request faults by headers: ${faultHeaders.delay} (ms), ${faultHeaders.abort} (status), ${faultHeaders.bandwidth} (bytes/s).`
    }),
    maxActive: Count('Most faults in force at a time; beyond this none is injected.', { default: 1000 })
  },
  strict
)

export type FaultOptions = Static<typeof Fault>

declare module '../../../../config/schema.ts' {
  interface MeshPolicy {
    fault?: FaultOptions | false
  }
}

export const faultKey: Key = {
  name: 'fault',
  aliases: { faultInjection: 'write fault under "mesh"' },
  options: orOff(Fault, { description: 'Injects faults into attempts, to test how callers cope with them.' }),
  levels: everyLevel,
  // A client's instruction must not reach the next gateway, to which this one is a trusted peer.
  instructions: { headers: Object.values(faultHeaders), areObeyed: ({ header }: FaultOptions) => header },
  check({ delay, abort, bandwidth, header }: FaultOptions, at, { report }) {
    if (!report.sound(at) || delay || abort || bandwidth || header) return
    report.fault(at, 'needs at least one of delay, abort, bandwidth and header: true')
  }
}
