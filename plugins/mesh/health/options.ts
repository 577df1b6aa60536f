/** `mesh.healthCheck`. */
import type { Static } from 'typebox'
import type { Key } from '../../../config/concern.ts'
import { gatewayAndService } from '../../../config/concern.ts'
import { Count, Duration, Names, orOff, Share, strict } from '../../../config/schema/kit.ts'
import Type from '../../../config/schema/type.ts'
import { checkStatuses, Statuses } from '../core/statuses.ts'

const HealthCheck = Type.Object(
  {
    type: Names(['http', 'tcp'], { default: 'http', description: 'http: a GET request; tcp: a connection alone.' }),
    path: Type.String({
      pattern: '^/[!-"$-~]*$',
      expected: 'a path that starts with /, in which blanks, "#" and characters beyond ASCII are percent-encoded',
      default: '/health'
    }),
    host: Type.Optional(Type.String({ description: "`Host` header of the check. Default: the instance's address." })),
    statuses: Statuses('Statuses of a healthy instance, such as 204 or 200-299.', ['200-299']),
    interval: Duration('Time between two checks of an instance.', { default: '5s' }),
    jitter: Share('Share by which the interval varies at random, so that gateways do not check in step.', {
      default: '10%'
    }),
    timeout: Duration('Longest time for one check.', { default: '1s' }),
    unhealthyThreshold: Count('Consecutive failures after which an instance is unavailable.', { default: 3 }),
    healthyThreshold: Count('Consecutive successes after which it is available again.', { default: 2 }),
    insteadOfConsul: Type.Boolean({
      default: false,
      description: "Ignores Consul's own checks, except maintenance mode."
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
  aliases: { 'healthchecks|checks': 'write healthCheck and outlierDetection under "mesh"' },
  options: orOff(HealthCheck, { description: 'Active health checks by the gateway, besides those of the registry.' }),
  levels: gatewayAndService,
  isolate: () => false,
  check({ statuses }: HealthCheckOptions, at, { report }) {
    if (report.sound(at)) checkStatuses(statuses, `${at}/statuses`, report)
  }
}
