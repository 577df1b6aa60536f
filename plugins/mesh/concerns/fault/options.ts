/** `mesh.fault`. */
import type { Static } from 'typebox'
import type { Key } from '../../../../config/concern.ts'
import { everyLevel } from '../../../../config/concern.ts'
import { Count, Duration, orOff, Share, Size, strict } from '../../../../config/schema/kit.ts'
import Type from '../../../../config/schema/type.ts'

/** Headers that ask for faults. */
export const faultHeaders = {
  delay: 'x-jingwei-fault-delay',
  abort: 'x-jingwei-fault-abort',
  bandwidth: 'x-jingwei-fault-bandwidth'
} as const

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
      description: `Trusted callers may ask for faults: ${faultHeaders.delay} (ms), ${faultHeaders.abort} (status), ${faultHeaders.bandwidth} (bytes/s).`
    }),
    maxActive: Count('Faults in force at a time; more are not injected.', { default: 1000 })
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
  options: orOff(Fault, { description: 'Faults that are injected, to see how the callers fare.' }),
  levels: everyLevel,
  // To the next gateway this one is a trusted peer, so a client's must not reach it.
  instructions: { headers: Object.values(faultHeaders), areObeyed: ({ header }: FaultOptions) => header },
  check({ delay, abort, bandwidth, header }: FaultOptions, at, { report }) {
    if (!report.sound(at) || delay || abort || bandwidth || header) return
    report.fault(at, 'names no fault: delay, abort, bandwidth or header: true')
  }
}
