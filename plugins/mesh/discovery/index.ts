/** Discovery of instances: one source per service, of the kind that its configuration names. */
import { createHash } from 'node:crypto'
import type { ConsulOptions, ServiceConfig } from '../../../config/schema.ts'
import type { MeshDeps, Source } from '../core/types.ts'
import { byAddress } from './by-address.ts'
import { ConsulSource } from './consul.ts'
import { ConsulClient } from './consul-client.ts'
import { FailoverSource } from './consul-failover.ts'
import { DnsSource } from './dns.ts'
import type { Restorable } from './loop.ts'
import { discoveryCounters } from './loop.ts'
import type { SnapshotOptions } from './snapshot.ts'
import { registerSnapshotMetrics, Snapshot } from './snapshot.ts'
import { staticSource } from './static.ts'

export interface Discovery {
  source(service: ServiceConfig): Source
  /** Enables writing of the snapshot; not called by a process that only inspects a configuration. */
  startWriting?(): void
  /** Closes every source that is still open, and the connection to Consul. */
  close(): Promise<void>
}

export interface DiscoveryOptions {
  readonly consul?: ConsulOptions
  readonly snapshot?: SnapshotOptions
}

export function createDiscovery(options: DiscoveryOptions, deps: MeshDeps): Discovery {
  const counters = discoveryCounters(deps.meter)
  const consul = options.consul ? new ConsulClient(options.consul, deps) : null
  const snapshot = options.snapshot ? new Snapshot(options.snapshot, deps) : null
  if (deps.meter !== null) registerSnapshotMetrics(deps.meter, snapshot)
  const open = new Set<Source>()

  function create(service: ServiceConfig): Source {
    // A sidecar takes precedence over all other sources: it finds the instances itself.
    if (service.mesh.mode === 'sidecar' && service.sidecar) return staticSource([service.sidecar], deps.now)
    if (service.instances) return staticSource(service.instances, deps.now)
    const source = registered(service)
    return snapshot?.wrap(service.name, identityOf(service, options.consul), source) ?? source
  }

  function registered(service: ServiceConfig): Restorable {
    if (service.dns) return new DnsSource(service.name, service.dns, deps, counters)
    if (consul === null) {
      throw new Error(`service ${service.name} has neither instances nor dns, and discovery.consul is not configured`)
    }
    const primary = new ConsulSource(service, consul, deps, counters)
    const others = service.consul?.failover?.map((datacenter, index) => {
      const failover = { datacenter, rank: index + 1 }
      return { datacenter, source: new ConsulSource(service, consul, deps, counters, undefined, failover) }
    })
    return others === undefined ? primary : new FailoverSource(primary, others)
  }

  return {
    source(service) {
      const source = create(service)
      open.add(source)
      return {
        start: (publish) => source.start((instances) => publish(byAddress(instances))),
        status: () => source.status(),
        close: async () => {
          open.delete(source)
          await source.close()
        }
      }
    },
    startWriting: () => snapshot?.startWriting(),
    async close() {
      await Promise.all([...open].map((source) => source.close()))
      open.clear()
      await snapshot?.close()
      consul?.close()
    }
  }
}

/**
 * Returns a digest of the query for a service's instances, so that a snapshot of another query is not used. No token.
 */
function identityOf({ consul, dns, mesh, name }: ServiceConfig, agent: ConsulOptions | undefined): string {
  const { host, pathname } = new URL(agent?.url ?? 'http://none')
  const { mode = 'direct', healthCheck } = mesh
  const asked = dns ?? {
    agent: [host, pathname, agent?.namespace, agent?.datacenter],
    service: { service: name, ...consul },
    connect: mode === 'connect',
    ignoreChecks: healthCheck ? healthCheck.insteadOfConsul : false
  }
  return createHash('sha256').update(JSON.stringify(asked)).digest('base64url')
}
