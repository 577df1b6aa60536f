/** Metrics of the mesh's services and concerns. */
import type { Meter, MetricOptions } from '../../meter.ts'
import type { Instance, Snapshot, SourceStatus } from './types.ts'

/** Increments a counter. */
export type Count = () => void

/**
 * Returns the increment of one series of a counter. The series exists from the start, else rate() misses its first
 * step.
 */
export function counterOf(
  meter: Meter | null,
  { name, help }: Pick<MetricOptions, 'name' | 'help'>,
  labels: Readonly<Record<string, string>>
): Count {
  const child = meter?.counter({ name, help, labelNames: Object.keys(labels) }).labels(...Object.values(labels))
  child?.inc(0)
  return () => child?.inc()
}

/** Returns the counter of calls on which a concern in shadow mode would have acted. */
export function shadowCounter(meter: Meter | null, service: string, concern: string): Count {
  const counter = {
    name: 'jingwei_mesh_shadowed_total',
    help: 'Calls and attempts on which a concern in shadow mode would have acted.'
  }
  return counterOf(meter, counter, { service, concern })
}

type Cap = 'maxConnections' | 'maxPendingRequests' | 'maxRequests' | 'instance' | 'adaptive'

/** Returns the counter of attempts that met a cap. */
export function overflowCounter(meter: Meter | null, service: string, cap: Cap): Count {
  const counter = {
    name: 'jingwei_mesh_overflows_total',
    help: 'Attempts that met a reached cap: maxConnections queues them, the other caps refuse them.'
  }
  return counterOf(meter, counter, { service, cap })
}

/**
 * Registers a gauge of a concern, with a series for each service that has the concern. Returns a function that removes
 * the service's series.
 */
export function serviceGauge(
  meter: Meter | null,
  { name, help }: Pick<MetricOptions, 'name' | 'help'>,
  service: string,
  read: () => number
): () => void {
  return stateGauge(meter, { name, help }, { service }, read)
}

/** Registers a series of a gauge with these labels. Returns a function that removes it. */
export function stateGauge(
  meter: Meter | null,
  { name, help }: Pick<MetricOptions, 'name' | 'help'>,
  labels: Readonly<Record<string, string>>,
  read: () => number
): () => void {
  if (meter === null) return () => {}
  return meter.gauge({ name, help, labelNames: Object.keys(labels), collect: (set) => set(labels, read()) })
}

/** Fields of a service that are read at a scrape. `status()` would be too slow for a thousand services. */
interface Measured {
  readonly name: string
  readonly instances: readonly Instance[]
  readonly snapshot: Snapshot | null
  readonly source: SourceStatus
}

/** Registers gauges of the state of each service. */
export function registerServiceMetrics(meter: Meter, services: () => Iterable<Measured>, now: () => number): void {
  meter.gauge({
    name: 'jingwei_mesh_instances',
    help: 'Instances of the service, by state.',
    labelNames: ['service', 'state'],
    collect(set) {
      for (const { name, instances } of services()) {
        let available = 0
        for (const { endpoint } of instances) if (endpoint.health.available) available++
        set({ service: name, state: 'available' }, available)
        set({ service: name, state: 'unavailable' }, instances.length - available)
      }
    }
  })
  meter.gauge({
    name: 'jingwei_mesh_panic',
    help: '1 while so few instances are available that all of them are used.',
    labelNames: ['service'],
    collect(set) {
      for (const { name, snapshot } of services()) set({ service: name }, snapshot?.panic ? 1 : 0)
    }
  })
  meter.gauge({
    name: 'jingwei_mesh_active_requests',
    help: 'Attempts in flight.',
    labelNames: ['service'],
    collect(set) {
      for (const { name, instances } of services()) {
        let active = 0
        for (const { endpoint } of instances) active += endpoint.active
        set({ service: name }, active)
      }
    }
  })
  meter.gauge({
    name: 'jingwei_mesh_discovery_age_seconds',
    help: 'Time since the source of the instances last confirmed them; absent until its first response.',
    labelNames: ['service'],
    collect(set) {
      for (const { name, source } of services()) {
        const { confirmedAt } = source
        if (confirmedAt !== null) set({ service: name }, Math.max(0, now() - confirmedAt) / 1000)
      }
    }
  })
  meter.gauge({
    name: 'jingwei_mesh_discovery_up',
    help: '1 while the source of the instances is available, 0 while it fails or the DNS name does not exist.',
    labelNames: ['service'],
    collect(set) {
      for (const { name, source } of services()) set({ service: name }, source.error === null ? 1 : 0)
    }
  })
}
