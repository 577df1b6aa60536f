/** Discovery of instances: one source per service, of the kind that its configuration names. */
import { createHash } from 'node:crypto'
import type { DiscoveryOptions, ServiceConfig } from '../../../config/schema.ts'
import type { MeshDeps, Source } from '../core/types.ts'
import { byAddress } from './by-address.ts'
import type { DiscoverySource, OpenSource } from './contract.ts'
import { fixedSource } from './fixed.ts'
import { discoveryCounters } from './loop.ts'
import { registerSnapshotMetrics, Snapshot } from './snapshot.ts'
import { sources as bundled } from './sources.ts'

export interface Discovery {
  source(service: ServiceConfig): Source
  /** Enables writing of the snapshot; not called by a process that only inspects a configuration. */
  startWriting?(): void
  /** Closes every source that is still open, and the connections to registries. */
  close(): Promise<void>
}

/** Creates the discovery of a mesh, with the sources of users after the bundled ones. */
export function createDiscovery(
  options: DiscoveryOptions,
  deps: MeshDeps,
  users: readonly DiscoverySource[] = []
): Discovery {
  const sources = [...bundled, ...users]
  const context = { deps, counters: discoveryCounters(deps.meter) }
  const snapshot = options.snapshot ? new Snapshot(options.snapshot, deps) : null
  if (deps.meter !== null) registerSnapshotMetrics(deps.meter, snapshot)
  const opened = new Map<DiscoverySource, OpenSource<unknown>>()
  const running = new Set<Source>()

  function open(source: DiscoverySource): OpenSource<unknown> {
    const known = opened.get(source) ?? source.create(Reflect.get(options, source.name), context)
    opened.set(source, known)
    return known
  }

  function create(service: ServiceConfig): Source {
    // A sidecar takes precedence over all other sources: it finds the instances itself.
    if (service.mesh.mode === 'sidecar' && service.sidecar) return fixedSource([service.sidecar], deps.now)
    const source = chosen(service)
    const own: unknown = Reflect.get(service, source.name)
    const { source: create, query } = open(source)
    const [found, asked] = [create(service, own), query(service, own)]
    return (asked && snapshot?.wrap(service.name, digestOf(asked), found)) ?? found
  }

  function chosen(service: ServiceConfig): DiscoverySource {
    const named = sources.find(({ name }) => Reflect.get(service, name) !== undefined)
    // A configuration that was not completed by the loader.
    const source =
      named ??
      sources.find(
        ({ name, findsByName }) => Reflect.get(options, name) !== undefined && findsByName?.(Reflect.get(options, name))
      )
    if (source === undefined)
      throw new Error(`service ${service.name} has no source of instances, and no registry is configured`)
    if (service.mesh.mode !== 'connect' || source.findsConnect) return source
    throw new Error(
      `service ${service.name}: mode connect finds instances in Consul; remove \`${source.name}\`, or set mode direct`
    )
  }

  return {
    source(service) {
      const source = create(service)
      running.add(source)
      return {
        start: (publish) => source.start((instances) => publish(byAddress(instances))),
        status: () => source.status(),
        close: async () => {
          running.delete(source)
          await source.close()
        }
      }
    },
    startWriting: () => snapshot?.startWriting(),
    async close() {
      await Promise.all([...running].map((source) => source.close()))
      running.clear()
      await snapshot?.close()
      await Promise.all([...opened.values()].map((source) => source.close?.()))
    }
  }
}

/** Returns a digest of a query, since a snapshot of another query must not be used. */
const digestOf = (query: object) => createHash('sha256').update(JSON.stringify(query)).digest('base64url')
