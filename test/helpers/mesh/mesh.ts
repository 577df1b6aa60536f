/** A mesh over services whose instances the test chooses, and recorders of its metrics and events. */
import type { Test } from 'tap'
import type { MeshPolicy, ServiceConfig } from '../../../config/schema.ts'
import type { RetryOptions } from '../../../plugins/mesh/concerns/retry/options.ts'
import type { DispatchController, DispatchHandler } from '../../../plugins/mesh/core/types.ts'
import type { MeshOptions } from '../../../plugins/mesh/mesh.ts'
import type { Meter } from '../../../plugins/meter.ts'
import { startMesh } from './start-mesh.ts'

export const retryOptions: RetryOptions = {
  attempts: 2,
  on: ['connect-failure', 'refused-stream', 'reset'],
  methods: ['GET', 'HEAD', 'OPTIONS', 'TRACE', 'PUT', 'DELETE'],
  idempotencyKey: true,
  maxBody: 65_536,
  backoff: { base: 1, max: 2 },
  budget: 0.2
}

/** A service with long timeouts, round robin and no retry; `policy` overrides these. */
export function service(
  name: string,
  instances: NonNullable<ServiceConfig['instances']>,
  policy: Partial<MeshPolicy> = {}
): ServiceConfig {
  const mesh: MeshPolicy = {
    balance: 'round-robin',
    timeout: 20_000,
    attemptTimeout: 10_000,
    connectTimeout: 5_000,
    idleTimeout: 20_000,
    retry: false,
    ...policy
  }
  return { name, instances, mesh }
}

/**
 * Destroyed when the test ends. The first instance is the first to be chosen, unless the test says otherwise. Timeouts are
 * exact: on a busy machine they would be extended for a blocked event loop.
 */
export function meshOf(t: Test, services: ServiceConfig[], options: MeshOptions = {}) {
  const byName = Object.fromEntries(services.map((item) => [item.name, item]))
  const mesh = startMesh({ services: byName }, { random: () => 0.9999, now: () => performance.now(), ...options })
  t.teardown(() => mesh.destroy())
  return mesh
}

/** A meter that records values: `name{labels}` → count or observed values. */
export function meterStub() {
  const counts: Record<string, number> = {}
  const observed: Record<string, number[]> = {}
  const gauges: Record<string, () => [labels: Record<string, string>, value: number][]> = {}
  const collectors: Record<string, Set<Parameters<Meter['gauge']>[0]['collect']>> = {}
  const meter: Meter = {
    counter: ({ name }) => ({
      labels: (...labels) => ({
        inc: (value = 1) => {
          // A series at 0 is not recorded.
          if (value > 0) counts[`${name}{${labels}}`] = (counts[`${name}{${labels}}`] ?? 0) + value
        }
      })
    }),
    histogram: ({ name }) => ({
      labels: (...labels) => ({
        observe: (value) => {
          observed[`${name}{${labels}}`] = [...(observed[`${name}{${labels}}`] ?? []), value]
        }
      })
    }),
    gauge: ({ name, collect }) => {
      const parts = collectors[name] ?? new Set()
      collectors[name] = parts.add(collect)
      gauges[name] = () => {
        const rows: [Record<string, string>, number][] = []
        for (const part of parts) part((labels, value) => rows.push([labels, value]))
        return rows
      }
      return () => void parts.delete(collect)
    }
  }
  return { meter, counts, observed, gauges }
}

/** A dispatch handler that records every event, also those that undici's own API hides. */
export class Recorder implements DispatchHandler {
  readonly events: string[] = []
  body = ''
  status = 0
  error: (Error & { code?: string }) | null = null
  controller!: DispatchController
  readonly done: Promise<void>
  #resolve!: () => void

  constructor() {
    this.done = new Promise((resolve) => {
      this.#resolve = resolve
    })
  }

  onRequestStart(controller: DispatchController): void {
    this.controller = controller
    this.events.push('start')
  }

  onRequestUpgrade(): void {
    this.events.push('upgrade')
    this.#resolve()
  }

  onResponseStart(_controller: DispatchController, status: number): void {
    this.status = status
    this.events.push(String(status))
  }

  onResponseData(_controller: DispatchController, chunk: Buffer): void {
    if (this.events.at(-1) !== 'data') this.events.push('data')
    this.body += chunk
  }

  onResponseEnd(): void {
    this.events.push('end')
    this.#resolve()
  }

  onResponseError(_controller: DispatchController, error: Error): void {
    this.error = error
    this.events.push('error')
    this.#resolve()
  }
}
