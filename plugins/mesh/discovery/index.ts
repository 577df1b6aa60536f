/** Where instances come from: the service's configuration decides, one source per service. */
import type { ConsulOptions, ServiceConfig } from '../../../config/schema.ts'
import type { Source, Surroundings } from '../types.ts'
import { ConsulSource } from './consul.ts'
import { ConsulClient } from './consul-client.ts'
import { DnsSource } from './dns.ts'
import { discoveryCounters } from './loop.ts'
import { staticSource } from './static.ts'

export interface Discovery {
  source(service: ServiceConfig): Source
  /** Closes every source that is still open, and the connection to Consul. */
  close(): Promise<void>
}

export function createDiscovery(options: { consul?: ConsulOptions }, surroundings: Surroundings): Discovery {
  const counters = discoveryCounters(surroundings.meter)
  const consul = options.consul ? new ConsulClient(options.consul, surroundings.log) : null
  const open = new Set<Source>()

  function create(service: ServiceConfig): Source {
    // Whatever else is configured: the sidecar knows the way.
    if (service.mesh.mode === 'sidecar' && service.sidecar) return staticSource([service.sidecar], surroundings.now)
    if (service.instances) return staticSource(service.instances, surroundings.now)
    if (service.dns) return new DnsSource(service.name, service.dns, surroundings, counters)
    if (consul) return new ConsulSource(service, consul, surroundings, counters)
    throw new Error(`service ${service.name} has neither instances nor dns, and discovery.consul is not configured`)
  }

  return {
    source(service) {
      const source = create(service)
      open.add(source)
      return {
        start: (publish) => source.start(publish),
        status: () => source.status(),
        close: async () => {
          open.delete(source)
          await source.close()
        }
      }
    },
    async close() {
      await Promise.all([...open].map((source) => source.close()))
      open.clear()
      consul?.close()
    }
  }
}
