/** Helpers for the tests of discovery: dependencies that record, and a source whose sets can be awaited. */
import type { MeshPolicy, ServiceConfig } from '../../../config/schema.ts'
import type { InstanceSpec, MeshDeps } from '../../../plugins/mesh/core/types.ts'
import type { Restorable } from '../../../plugins/mesh/discovery/loop.ts'
import type { Meter } from '../../../plugins/meter.ts'
import { eventually } from '../eventually.ts'

export interface Line {
  level: 'info' | 'warn' | 'error'
  fields: object
  message: string
}

export function recording() {
  const lines: Line[] = []
  const counts: Record<string, number> = {}
  const log = (level: Line['level']) => (fields: object, message: string) => void lines.push({ level, fields, message })
  const meter: Meter = {
    counter: ({ name }) => ({
      labels: (...labels) => ({
        inc: (value = 1) => {
          const key = `${name}{${labels}}`
          counts[key] = (counts[key] ?? 0) + value
        }
      })
    }),
    histogram: () => ({ labels: () => ({ observe: () => {} }) }),
    gauge: () => () => {}
  }
  const surroundings: MeshDeps = {
    log: { info: log('info'), warn: log('warn'), error: log('error') },
    meter,
    now: () => performance.now(),
    // Backoffs of half their bound: long enough for the test to observe, shorter than its timeout.
    random: () => 0.5
  }
  return { surroundings, lines, counts }
}

export function service(name: string, rest: Partial<ServiceConfig> = {}): ServiceConfig {
  const mesh: MeshPolicy = {
    balance: 'round-robin',
    timeout: 15_000,
    attemptTimeout: 5000,
    connectTimeout: 2000,
    idleTimeout: 60_000,
    retry: false
  }
  return { name, mesh, ...rest }
}

/** Starts the source and records the sets that it publishes. */
export function watch(source: Restorable, restored?: readonly InstanceSpec[]) {
  const sets: (readonly InstanceSpec[])[] = []
  source.start((set) => void sets.push(set), restored)
  return {
    sets,
    origins: () => sets.at(-1)?.map(({ origin }) => origin) ?? null,
    /** Waits until the latest set has exactly these origins. */
    async until(origins: string[], ms = 10_000): Promise<void> {
      const isThere = () => JSON.stringify(sets.at(-1)?.map(({ origin }) => origin)) === JSON.stringify(origins)
      await eventually(isThere, `instances ${origins.join(', ')}`, ms)
    }
  }
}
