import type { Count } from './counters.ts'
import { counterOf } from './counters.ts'
import type { Meter } from './types.ts'

export type Cap = 'maxConnections' | 'maxPendingRequests' | 'maxRequests' | 'instance' | 'adaptive'

/** Counts what a cap held up or refused. */
export function overflowCounter(meter: Meter | null, service: string, cap: Cap): Count {
  const counter = {
    name: 'jingwei_mesh_overflows_total',
    help: 'Attempts that met a full cap: maxConnections made them wait, the others refused them.'
  }
  return counterOf(meter, counter, { service, cap })
}
