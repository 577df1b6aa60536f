/** `mesh.healthCheck`. */
import type { Static } from 'typebox'
import type { Key } from '../../../config/concern.ts'
import { gatewayAndService } from '../../../config/concern.ts'
import { pointer } from '../../../config/faults.ts'
import { Count, Duration, Either, Names, orOff, Share, strict } from '../../../config/schema/kit.ts'
import Type from '../../../config/schema/type.ts'

const Statuses = Type.Array(
  Either(
    { type: 'integer' },
    Type.Integer({ minimum: 100, maximum: 599 }),
    Type.String({ pattern: '^[1-5]\\d\\d-[1-5]\\d\\d$', expected: 'a status or a range such as 200-299' })
  ),
  { minItems: 1, default: ['200-299'], description: 'Statuses that prove health: 204, 200-299.' }
)

export const HealthCheck = Type.Object(
  {
    type: Names(['http', 'tcp'], { default: 'http', description: 'tcp: a connection is proof enough.' }),
    path: Type.String({
      pattern: '^/[!-"$-~]*$',
      expected: 'a path that starts with /, in which blanks, "#" and characters beyond ASCII are percent-encoded',
      default: '/health'
    }),
    host: Type.Optional(Type.String({ description: "`Host` of the check; default: the instance's address." })),
    statuses: Statuses,
    interval: Duration('Between two checks of an instance.', { default: '5s' }),
    jitter: Share('By which the interval varies, so that gateways do not march in step.', { default: '10%' }),
    timeout: Duration('Of one check.', { default: '1s' }),
    unhealthyThreshold: Count('Failures in a row that take an instance out.', { default: 3 }),
    healthyThreshold: Count('Successes in a row that bring it back.', { default: 2 }),
    insteadOfConsul: Type.Boolean({
      default: false,
      description: "Whatever Consul's own checks say; maintenance still counts."
    })
  },
  strict
)

export type HealthCheckOptions = Static<typeof HealthCheck>

declare module '../../../config/schema.ts' {
  interface MeshPolicy {
    healthCheck?: HealthCheckOptions | false
  }
}

export const healthCheckKey: Key = {
  name: 'healthCheck',
  options: orOff(HealthCheck, { description: 'Active checks by the gateway itself, on top of the registry.' }),
  levels: gatewayAndService,
  check({ statuses }: HealthCheckOptions, at, { report }) {
    if (!report.sound(at)) return
    for (const [index, item] of statuses.entries()) {
      const [low = '', high = ''] = String(item).split('-')
      if (high !== '' && low > high) report.fault(pointer(at, 'statuses', index), 'the range ends before it begins')
    }
  }
}
