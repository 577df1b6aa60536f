import type { DiscoveryStatus, ServiceStatus, SourceView } from '../../seam.ts'
import type { ServiceState } from './service-state.ts'
import type { Instance, Snapshot, SourceStatus } from './types.ts'

interface Described {
  readonly name: string
  readonly source: SourceStatus
  readonly active: number
  readonly snapshot: Snapshot | null
  readonly instances: readonly Instance[]
}

/** Maximum of origins in a list of a log line. */
const mostListed = 20

/** Returns a field of a log line with a list of origins. A longer list is cut, and a second field has its length. */
export function originsField(name: 'added' | 'removed', origins: readonly string[]): object {
  if (origins.length <= mostListed) return { [name]: origins }
  return { [name]: origins.slice(0, mostListed), [`${name}Count`]: origins.length }
}

/** Returns a source's state for the admin API; `nowMs` is the time on the mesh's clock. */
export function viewOf(source: SourceStatus, nowMs: number): SourceView {
  const { confirmedAt } = source
  return {
    ...source,
    confirmedAt: confirmedAt === null ? null : new Date(Date.now() - (nowMs - confirmedAt)).toISOString()
  }
}

/** Returns the state of a service's discovery. Its cost does not grow with the number of instances. */
export function discoveryOf({ name, source, instances }: Described, nowMs: number): DiscoveryStatus {
  const { confirmedAt } = source
  const ageMs = confirmedAt === null ? null : Math.round(nowMs - confirmedAt)
  return { name, source: viewOf(source, nowMs), ageMs, instances: instances.length }
}

/** Returns a service's state for the admin API: its own fields, and the states of its concerns by their names. */
export function statusOf(
  service: Described,
  states: readonly (readonly [string, ServiceState])[],
  nowMs: number
): ServiceStatus {
  const { name, source, active, snapshot, instances } = service
  const reported = states.flatMap(([concern, state]) =>
    state.status === undefined ? [] : [[concern, state.status()] as const]
  )
  return {
    name,
    source: viewOf(source, nowMs),
    active,
    panic: snapshot?.panic ?? false,
    concerns: Object.fromEntries(reported),
    instances: instances.map((instance) => {
      const { id, origin, weight, endpoint } = instance
      const { available, obstacles } = endpoint.health
      const balance = snapshot?.balancers['']?.describe?.(instance)
      const ofInstance = states.map(([concern, state]) => [concern, state.instanceStatus?.(endpoint)] as const)
      const concerns = {
        ...(balance && { balance }),
        ...Object.fromEntries(ofInstance.filter(([, status]) => status !== undefined))
      }
      return { id, origin, weight, active: endpoint.active, available, obstacles, concerns }
    })
  }
}
