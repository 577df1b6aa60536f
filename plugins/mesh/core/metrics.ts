import type { Service } from './service.ts'
import type { Meter } from './types.ts'

/**
 * What is asked at scrape time rather than counted: the state of each service. Not by `status()`, which says far more:
 * of a thousand services that would hold up all calls for a tenth of a second.
 */
export function registerServiceMetrics(meter: Meter, services: () => Iterable<Service>, now: () => number): void {
  meter.gauge({
    name: 'jingwei_mesh_instances',
    help: 'Instances of the newest snapshot, by state.',
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
    help: 'Time since the source of the instances last confirmed them; absent until it first answers.',
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
    help: '1 while the source of the instances answers, 0 while it does not or the DNS name does not exist.',
    labelNames: ['service'],
    collect(set) {
      for (const { name, source } of services()) set({ service: name }, source.error === null ? 1 : 0)
    }
  })
}
