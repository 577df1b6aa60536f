import type { FastifyInstance } from 'fastify'
import { Gauge, Registry } from 'prom-client'
import { maskCredentials } from '../../../../config/credentials.ts'
import type { KeySet } from './jwks.ts'

/** Metrics of key sets, by URL with its credentials masked; in the gateway's registry, if it keeps one. */
export class KeySetMetrics {
  readonly #up: Gauge<'url'> | null = null
  readonly #sets: [url: string, set: KeySet][] = []

  constructor(fastify: FastifyInstance) {
    const metrics = (fastify as { meter?: { registry?: unknown } }).meter?.registry
    if (!(metrics instanceof Registry)) return
    const sets = this.#sets
    this.#up = new Gauge({
      name: 'jingwei_edge_key_set_up',
      help: 'Whether the key set could be fetched the last time.',
      labelNames: ['url'],
      registers: [metrics]
    })
    new Gauge({
      name: 'jingwei_edge_key_set_age_seconds',
      help: 'Time since the key set was fetched; absent while none ever was.',
      labelNames: ['url'],
      registers: [metrics],
      collect() {
        for (const [url, set] of sets) {
          const age = set.age()
          if (age !== null) this.set({ url }, age / 1000)
        }
      }
    })
  }

  /** Returns a listener for the outcome of each fetch. */
  onFetch(url: string): (succeeded: boolean) => void {
    const up = this.#up?.labels(maskCredentials(url))
    return (succeeded) => up?.set(succeeded ? 1 : 0)
  }

  watch(url: string, set: KeySet): void {
    this.#sets.push([maskCredentials(url), set])
  }
}
