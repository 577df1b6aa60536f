import type { ServiceState } from '../../core/service-state.ts'

/** The last answers that a percentile is taken of. */
const kept = 512
/** With fewer, it would be a guess. */
const least = 50
/** It is taken anew after this many answers, or it would cost more than it tells. */
const stride = 32

/** The latency of a service's last answers, as percentiles. */
export class Latencies implements ServiceState {
  readonly #samples = new Float64Array(kept)
  #count = 0
  #sorted: Float64Array | null = null
  #sortedAt = 0

  add(latencyMs: number): void {
    this.#samples[this.#count++ % kept] = latencyMs
  }

  /** Milliseconds; null while there are too few answers. */
  percentile(percent: number): number | null {
    if (this.#count < least) return null
    if (this.#sorted === null || this.#count - this.#sortedAt >= stride) {
      this.#sorted = this.#samples.slice(0, Math.min(this.#count, kept)).sort()
      this.#sortedAt = this.#count
    }
    const sorted = this.#sorted
    return sorted[Math.max(0, Math.ceil((sorted.length * percent) / 100) - 1)]!
  }

  status() {
    const [p50Ms, p95Ms, p99Ms] = [50, 95, 99].map((percent) => this.percentile(percent))
    return { answers: Math.min(this.#count, kept), p50Ms, p95Ms, p99Ms }
  }
}
