import { counterOf } from '../core/metrics.ts'
import type { Service } from '../core/service.ts'
import type { ServiceState } from '../core/service-state.ts'
import { StateKey } from '../core/service-state.ts'
import type { Endpoint, Instance, MeshDeps } from '../core/types.ts'
import type { CheckContext } from './instance-check.ts'
import { healthCheck, InstanceCheck } from './instance-check.ts'
import type { Probe } from './probe.ts'
import { probeOf } from './probe.ts'

/** Most concurrent checks of a service; further ones are queued. */
const mostAtOnce = 128
/** Time per new instance over which their first checks are spread, at most over an interval. */
const spreadMs = 50

const activeChecks = new StateKey<ActiveChecks>(healthCheck)

/**
 * Starts active checks of a service's instances, besides those of the registry. An instance is used from the start. If
 * it has passed Consul's checks, it becomes unavailable after `unhealthyThreshold` failures; otherwise its first check
 * decides.
 */
export function activeCheck(service: Service, { meter, now, random, stalledMs }: MeshDeps): void {
  const options = service.config.mesh.healthCheck
  if (!options) return
  const checks = { name: 'jingwei_mesh_health_checks_total', help: 'Active checks of instances, by outcome.' }
  const counts = {
    success: counterOf(meter, checks, { service: service.name, outcome: 'success' }),
    failure: counterOf(meter, checks, { service: service.name, outcome: 'failure' })
  }
  service.state(activeChecks, () => {
    const vouched = service.status().source.kind === 'consul' && !options.insteadOfConsul
    const context = {
      options,
      vouched,
      now,
      random,
      count: (outcome: keyof typeof counts) => counts[outcome]()
    }
    return new ActiveChecks(context, (origin) => probeOf(origin, options, service.transport.to(origin), stalledMs))
  })
}

/** Active checks of all instances of a service; each starts and ends with its instance. */
export class ActiveChecks implements ServiceState {
  readonly #checks = new Map<Endpoint, InstanceCheck>()
  readonly #context: CheckContext
  readonly #probeOf: (origin: string) => Probe
  readonly #waiting: InstanceCheck[] = []
  #running = 0

  constructor(context: Omit<CheckContext, 'due'>, probe: (origin: string) => Probe) {
    this.#context = { ...context, due: (check) => this.#due(check) }
    this.#probeOf = probe
  }

  update(instances: readonly Instance[]): void {
    const listed = new Set(instances.map(({ endpoint }) => endpoint))
    for (const [endpoint, check] of this.#checks) {
      if (listed.has(endpoint)) continue
      this.#checks.delete(endpoint)
      check.end()
    }
    const fresh = [...listed].filter((endpoint) => !this.#checks.has(endpoint))
    const { options, random } = this.#context
    const withinMs = Math.min(options.interval, fresh.length * spreadMs)
    for (const endpoint of fresh) {
      const check = new InstanceCheck(endpoint, this.#probeOf(endpoint.origin), this.#context)
      this.#checks.set(endpoint, check)
      check.after(random() * withinMs)
    }
  }

  #due(check: InstanceCheck): void {
    if (this.#running >= mostAtOnce) this.#waiting.push(check)
    else this.#run(check)
  }

  #run(check: InstanceCheck): void {
    this.#running++
    check.run(() => {
      this.#running--
      let next = this.#waiting.shift()
      while (next?.ended) next = this.#waiting.shift()
      if (next !== undefined) this.#run(next)
    })
  }

  instanceStatus(endpoint: Endpoint): unknown {
    return this.#checks.get(endpoint)?.status()
  }

  close(): void {
    this.#waiting.length = 0
    for (const check of this.#checks.values()) check.end()
    this.#checks.clear()
  }
}
