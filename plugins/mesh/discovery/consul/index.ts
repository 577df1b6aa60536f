/** Source of instances from Consul: `discovery.consul`, `services.*.consul`. */

import { checkPem } from '../../../../config/checked.ts'
import type { ConsulOptions } from '../consul-options.ts'
import { ConsulAgent, ConsulService, ConsulStoredKey } from '../consul-options.ts'
import { defineSource } from '../contract.ts'
import { ConsulClient } from './client.ts'
import { FailoverSource } from './failover.ts'
import { ConsulSource } from './source.ts'

const files = ['ca', 'cert', 'key'] as const

export default defineSource({
  name: 'consul',
  options: ConsulAgent,
  service: ConsulService,
  storedKey: ConsulStoredKey,
  needsOptions: true,
  findsByName: () => true,
  findsConnect: true,
  check(options, at, checked) {
    const place = `${at}/tls`
    if (!checked.report.usable(place)) return
    for (const key of files) checkPem(place, key, (options as ConsulOptions).tls?.[key], checked)
  },
  complete(options, absolute) {
    const agent = options as ConsulOptions
    if (agent.tls === undefined) return agent
    const paths = files.flatMap((key) => (agent.tls?.[key] === undefined ? [] : [[key, absolute(agent.tls[key])]]))
    return { ...agent, tls: { ...agent.tls, ...Object.fromEntries(paths) } }
  },
  completeService: (consul, name) => ({
    ...(consul as object),
    service: (consul as { service?: string }).service ?? name
  }),
  backends: (consul, name) => [`consul ${((consul as { service?: string }).service ?? name).toLowerCase()}`],
  create(agent, { deps, counters }) {
    if (agent === undefined) throw new Error('discovery.consul is not configured')
    const client = new ConsulClient(agent, deps)
    return {
      source(service, consul) {
        const primary = new ConsulSource(service, client, deps, counters)
        const others = consul?.failover?.map((datacenter, index) => {
          const failover = { datacenter, rank: index + 1 }
          return { datacenter, source: new ConsulSource(service, client, deps, counters, undefined, failover) }
        })
        return others === undefined ? primary : new FailoverSource(primary, others)
      },
      query({ name, mesh }, consul) {
        const { host, pathname } = new URL(agent.url)
        const { mode = 'direct', healthCheck } = mesh
        return {
          agent: [host, pathname, agent.namespace, agent.datacenter],
          service: { service: name, ...consul },
          connect: mode === 'connect',
          ignoreChecks: healthCheck ? healthCheck.insteadOfConsul : false
        }
      },
      close: () => client.close()
    }
  }
})
