import type { Timer, Timers } from '../../../clock.ts'
import { systemTimers } from '../../../clock.ts'
import { counterOf, serviceGauge, shadowCounter } from '../../core/metrics.ts'
import type { ServiceState } from '../../core/service-state.ts'
import type { Endpoint, Instance, MeshDeps } from '../../core/types.ts'
import type { OutlierOptions } from './options.ts'
import { byFailurePercentage, bySuccessRate } from './statistics.ts'

export const concern = 'outlier-detection'

const reasons = ['consecutive-5xx', 'consecutive-gateway-failures', 'success-rate', 'failure-percentage'] as const
type Reason = (typeof reasons)[number]

/** State of one instance; the counts of responses are those of the current interval. */
export class Host {
  readonly endpoint: Endpoint
  successes = 0
  failures = 0
  consecutive5xx = 0
  consecutiveGatewayFailures = 0
  /** Share of successful requests in the last interval; null without requests. */
  successRate: number | null = null
  ejected = false
  ejectedAt = 0
  returnsAt = 0
  /** Total number of ejections. */
  ejections = 0
  /** Factor of the last ejection's length; each interval without ejection reduces it. */
  multiplier = 0

  constructor(endpoint: Endpoint) {
    this.endpoint = endpoint
  }

  /** Resets the counts when the instance returns. */
  reset(): void {
    this.successes = 0
    this.failures = 0
    this.consecutive5xx = 0
    this.consecutiveGatewayFailures = 0
  }
}

/**
 * Outlier detection like Envoy's. Consecutive failures eject an instance at once; its success rate or failure
 * percentage does so at the end of an interval. It returns at the first end of an interval after its ejection time, or
 * when an active check passes. At most `maxEjectionPercent` of the instances are ejected or unavailable for other
 * reasons.
 */
export class OutlierDetector implements ServiceState {
  readonly #service: string
  readonly #options: OutlierOptions
  readonly #deps: MeshDeps
  readonly #hosts = new Map<Endpoint, Host>()
  readonly #count: (reason: Reason) => void
  readonly #overflow: () => void
  readonly #shadow: (() => void) | null
  readonly #closeGauge: () => void
  #timer: Timer | undefined
  readonly #timers: Timers
  #closed = false

  constructor(service: string, options: OutlierOptions, deps: MeshDeps) {
    const { meter } = deps
    this.#service = service
    this.#options = options
    this.#deps = deps
    this.#timers = deps.timers ?? systemTimers
    const ejections = {
      name: 'jingwei_mesh_ejections_total',
      help: 'Ejections of instances by outlier detection, by reason.'
    }
    const counts = new Map(reasons.map((reason) => [reason, counterOf(meter, ejections, { service, reason })]))
    this.#count = (reason) => counts.get(reason)!()
    const overflows = {
      name: 'jingwei_mesh_ejection_overflows_total',
      help: 'Ejections that did not happen because maxEjectionPercent of the instances are ejected or unavailable.'
    }
    this.#overflow = counterOf(meter, overflows, { service })
    this.#shadow = options.mode === 'shadow' ? shadowCounter(meter, service, concern) : null
    const gauge = { name: 'jingwei_mesh_ejections_active', help: 'Instances that outlier detection has ejected.' }
    this.#closeGauge = serviceGauge(meter, gauge, service, () => (this.#shadow === null ? this.#ejected() : 0))
  }

  update(instances: readonly Instance[]): void {
    const listed = new Set(instances.map(({ endpoint }) => endpoint))
    for (const endpoint of this.#hosts.keys()) if (!listed.has(endpoint)) this.#hosts.delete(endpoint)
    for (const endpoint of listed) {
      if (this.#hosts.has(endpoint)) continue
      const host = new Host(endpoint)
      this.#hosts.set(endpoint, host)
      endpoint.health.whenProven((begunMs) => {
        // Ignore a check that began before the ejection.
        if (host.ejected && begunMs >= host.ejectedAt) this.#return(host, 'an active check succeeded')
      })
    }
  }

  /** Returns the state of an instance; undefined if it was removed from the service. */
  host(endpoint: Endpoint): Host | undefined {
    return this.#hosts.get(endpoint)
  }

  succeeded(host: Host): void {
    host.successes++
    host.consecutive5xx = 0
    host.consecutiveGatewayFailures = 0
    if (this.#timer === undefined) this.#arm()
  }

  /** Counts a failure; `status` is that of a 5xx, or 0 without a response. */
  failed(host: Host, status: number): void {
    const { consecutive5xx: most, consecutiveGatewayFailures: mostGateway } = this.#options
    if (this.#timer === undefined) this.#arm()
    host.failures++
    host.consecutive5xx++
    const gateway = status === 0 || (status >= 502 && status <= 504)
    host.consecutiveGatewayFailures = gateway ? host.consecutiveGatewayFailures + 1 : 0
    if (mostGateway !== false && host.consecutiveGatewayFailures >= mostGateway) {
      this.#eject(
        host,
        'consecutive-gateway-failures',
        `${mostGateway} attempts in a row failed (502, 503, 504 or no response)`
      )
    } else if (most !== false && host.consecutive5xx >= most) {
      this.#eject(host, 'consecutive-5xx', `${most} attempts in a row failed (5xx or no response)`)
    }
  }

  /** Ends an interval: returns and ejects instances. */
  tick(): void {
    const { successRate, failurePercentage } = this.#options
    const now = this.#deps.now()
    let busy = false
    for (const host of this.#hosts.values()) {
      const requests = host.successes + host.failures
      host.successRate = requests === 0 ? null : host.successes / requests
      if (!host.ejected) host.multiplier = Math.max(0, host.multiplier - 1)
      else if (now >= host.returnsAt) this.#return(host, 'its ejection is over')
      busy ||= requests > 0 || host.ejected || host.multiplier > 0
    }
    const judged = [...this.#hosts.values()].filter((host) => !host.ejected)
    const slow = successRate === false ? [] : bySuccessRate(judged, successRate)
    for (const { host, detail } of slow) this.#eject(host, 'success-rate', detail)
    const failing = failurePercentage === false ? [] : byFailurePercentage(judged, failurePercentage)
    for (const { host, detail } of failing) this.#eject(host, 'failure-percentage', detail)
    for (const host of this.#hosts.values()) {
      host.successes = 0
      host.failures = 0
    }
    if (!busy) this.#disarm()
  }

  #eject(host: Host, reason: Reason, detail: string): void {
    // Attempts that were in flight, or made in panic, may fail after the ejection.
    if (host.ejected || this.#hosts.get(host.endpoint) !== host) return
    host.consecutive5xx = 0
    host.consecutiveGatewayFailures = 0
    if (!this.#mayEject(host)) {
      this.#overflow()
      return
    }
    const { baseEjection, maxEjection } = this.#options
    host.ejected = true
    host.ejections++
    // No growth beyond `maxEjection`, else the multiplier would take too long to decay.
    if (host.multiplier * baseEjection < maxEjection) host.multiplier++
    const forMs = Math.min(maxEjection, baseEjection * host.multiplier)
    host.ejectedAt = this.#deps.now()
    host.returnsAt = host.ejectedAt + forMs
    const why = `${detail}; ejected for ${forMs} ms`
    if (this.#shadow === null) {
      this.#count(reason)
      host.endpoint.health.obstruct(concern, why)
    } else {
      this.#shadow()
      const about = { service: this.#service, instance: host.endpoint.origin, concern, reason: why }
      this.#deps.log.info(about, 'outlier detection in shadow mode: the instance would be ejected')
    }
  }

  /** Returns whether another instance may be ejected: at least one may be, and one always stays. */
  #mayEject(host: Host): boolean {
    let others = 0
    for (const other of this.#hosts.values()) {
      if (other !== host && (other.ejected || !other.endpoint.health.available)) others++
    }
    const most = Math.max(1, Math.floor(this.#hosts.size * this.#options.maxEjectionPercent + 1e-9))
    return others + 1 <= most && others + 1 < this.#hosts.size
  }

  #return(host: Host, reason: string): void {
    host.ejected = false
    host.reset()
    if (this.#shadow === null) host.endpoint.health.clear(concern, reason)
  }

  #ejected(): number {
    let count = 0
    for (const { ejected } of this.#hosts.values()) if (ejected) count++
    return count
  }

  /** Starts the intervals; they stop while there are no requests and no ejections. */
  #arm(): void {
    if (this.#closed) return
    const timer = this.#timers.setTimeout(() => {
      timer.refresh()
      this.tick()
    }, this.#options.interval)
    timer.unref()
    this.#timer = timer
  }

  #disarm(): void {
    this.#timers.clearTimeout(this.#timer)
    this.#timer = undefined
  }

  status() {
    return { mode: this.#options.mode, ejected: this.#ejected() }
  }

  instanceStatus(endpoint: Endpoint): unknown {
    const host = this.#hosts.get(endpoint)
    if (host === undefined) return undefined
    const { ejected, ejections, consecutive5xx, consecutiveGatewayFailures, successRate } = host
    const returnsInMs = Math.max(0, Math.round(host.returnsAt - this.#deps.now()))
    const counts = { ejections, consecutive5xx, consecutiveGatewayFailures, successRate }
    return { ejected, ...(ejected && { returnsInMs }), ...counts }
  }

  close(): void {
    this.#closed = true
    this.#disarm()
    this.#closeGauge()
  }
}
