import type { ServiceStatus } from './service.ts'
import type { Meter } from './types.ts'

/** What is asked at scrape time rather than counted: the state of each service. */
export function registerServiceMetrics(meter: Meter, mesh: { status(): ServiceStatus[]; now(): number }): void {
  meter.gauge({
    name: 'jingwei_mesh_instances',
    help: 'Instances of the newest snapshot, by state.',
    labelNames: ['service', 'state'],
    collect(set) {
      for (const { name, instances } of mesh.status()) {
        const available = instances.filter((instance) => instance.available).length
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
      for (const { name, panic } of mesh.status()) set({ service: name }, panic ? 1 : 0)
    }
  })
  meter.gauge({
    name: 'jingwei_mesh_active_requests',
    help: 'Attempts in flight.',
    labelNames: ['service'],
    collect(set) {
      for (const { name, instances } of mesh.status()) {
        set(
          { service: name },
          instances.reduce((sum, { active }) => sum + active, 0)
        )
      }
    }
  })
  meter.gauge({
    name: 'jingwei_mesh_discovery_age_seconds',
    help: 'Time since the source of the instances last confirmed them; absent until it first answers.',
    labelNames: ['service'],
    collect(set) {
      for (const { name, source } of mesh.status()) {
        if (source.confirmedAt !== null) set({ service: name }, Math.max(0, mesh.now() - source.confirmedAt) / 1000)
      }
    }
  })
  meter.gauge({
    name: 'jingwei_mesh_discovery_up',
    help: '1 while the source of the instances answers, 0 while it does not.',
    labelNames: ['service'],
    collect(set) {
      for (const { name, source } of mesh.status()) set({ service: name }, source.error === null ? 1 : 0)
    }
  })
}

/** Counts what a concern in shadow mode would have done. */
export function shadowCounter(meter: Meter | null, service: string, concern: string): () => void {
  const counter = meter?.counter({
    name: 'jingwei_mesh_shadowed_total',
    help: 'What concerns in shadow mode would have done.',
    labelNames: ['service', 'concern']
  })
  const child = counter?.labels(service, concern)
  child?.inc(0)
  return () => child?.inc()
}
