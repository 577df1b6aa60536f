import type { Meter } from '../types.ts'

export type Cap = 'maxConnections' | 'maxPendingRequests' | 'maxRequests' | 'instance' | 'adaptive'

/** Counts what a cap held up or refused. */
export function overflowCounter(meter: Meter | null, service: string, cap: Cap): () => void {
  const child = meter
    ?.counter({
      name: 'jingwei_mesh_overflows_total',
      help: 'Attempts that met a full cap: maxConnections made them wait, the others refused them.',
      labelNames: ['service', 'cap']
    })
    .labels(service, cap)
  child?.inc(0)
  return () => child?.inc()
}
