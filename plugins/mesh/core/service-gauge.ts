import type { Meter, MetricOptions } from './types.ts'

/** By meter and name: what each service says at a scrape. */
const registered = new WeakMap<Meter, Map<string, Map<string, () => number>>>()

/**
 * A gauge with a series per service, of a concern that exists once per service: a meter takes each gauge once.
 * Returns what ends the service's series.
 */
export function serviceGauge(
  meter: Meter | null,
  { name, help }: Pick<MetricOptions, 'name' | 'help'>,
  service: string,
  read: () => number
): () => void {
  if (meter === null) return () => {}
  const gauges = registered.get(meter) ?? new Map<string, Map<string, () => number>>()
  registered.set(meter, gauges)
  let readers = gauges.get(name)
  if (readers === undefined) {
    const all = new Map<string, () => number>()
    readers = all
    gauges.set(name, all)
    meter.gauge({
      name,
      help,
      labelNames: ['service'],
      collect(set) {
        for (const [service, read] of all) set({ service }, read())
      }
    })
  }
  const mine = readers
  mine.set(service, read)
  return () => {
    if (mine.get(service) === read) mine.delete(service)
  }
}
