import type { Keeper, Service } from './service.ts'
import type { SourceStatus } from './types.ts'

/** State of a service's discovery. */
export interface DiscoveryStatus {
  readonly name: string
  readonly source: SourceStatus
  /** Number of instances, whatever their health. */
  readonly instances: number
}

/** What the outside may know of a service. */
export interface ServiceStatus {
  readonly name: string
  readonly source: SourceStatus
  readonly instances: readonly {
    readonly id: string
    readonly origin: string
    readonly weight: number
    readonly active: number
    readonly available: boolean
    /** Why it is not available, by concern. */
    readonly obstacles: Readonly<Record<string, string>>
    /** What the concerns and the balancer say of it, by their names. */
    readonly concerns: Readonly<Record<string, unknown>>
  }[]
  /** So few instances are available that all of them are used. */
  readonly panic: boolean
  /** Calls in flight. */
  readonly active: number
  /** What the concerns say of the service, by their names. */
  readonly concerns: Readonly<Record<string, unknown>>
}

/** What a service's own state and its concerns, by their names, say of it. */
export function statusOf(service: Service, keepers: readonly (readonly [concern: string, Keeper])[]): ServiceStatus {
  const { name, source, active, snapshot, instances } = service
  const said = keepers.flatMap(([concern, keeper]) =>
    keeper.status === undefined ? [] : [[concern, keeper.status()] as const]
  )
  return {
    name,
    source,
    active,
    panic: snapshot?.panic ?? false,
    concerns: Object.fromEntries(said),
    instances: instances.map((instance) => {
      const { id, origin, weight, endpoint } = instance
      const { available, obstacles } = endpoint.health
      const balance = snapshot?.balancers['']?.describe?.(instance)
      const said = keepers.map(([concern, keeper]) => [concern, keeper.instanceStatus?.(endpoint)] as const)
      const concerns = {
        ...(balance && { balance }),
        ...Object.fromEntries(said.filter(([, status]) => status !== undefined))
      }
      return { id, origin, weight, active: endpoint.active, available, obstacles, concerns }
    })
  }
}
