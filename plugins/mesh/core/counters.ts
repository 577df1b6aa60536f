import type { Meter, MetricOptions } from './types.ts'

/** Counts one more. */
export type Count = () => void

/** One series of a counter, there from the start: a rate() cannot see the first step of one that begins with it. */
export function counterOf(
  meter: Meter | null,
  { name, help }: Pick<MetricOptions, 'name' | 'help'>,
  labels: Readonly<Record<string, string>>
): Count {
  const child = meter?.counter({ name, help, labelNames: Object.keys(labels) }).labels(...Object.values(labels))
  child?.inc(0)
  return () => child?.inc()
}

/** What a concern in shadow mode would have done. */
export function shadowCounter(meter: Meter | null, service: string, concern: string): Count {
  const counter = { name: 'jingwei_mesh_shadowed_total', help: 'What concerns in shadow mode would have done.' }
  return counterOf(meter, counter, { service, concern })
}
