import type { ServiceState } from '../../core/service-state.ts'

/** Number of responses over which percentiles are computed. */
const kept = 512
/** Fewest responses for which a percentile is meaningful. */
const least = 50
/** Responses after which the samples are sorted again; sorting for each would cost too much. */
const stride = 32

/** Percentiles of the latency of a service's last responses. */
export class Latencies implements ServiceState {
  readonly #samples = new Float64Array(kept)
  #count = 0
  #sorted: Float64Array | null = null
  #sortedAt = 0

  add(latencyMs: number): void {
    this.#samples[this.#count++ % kept] = latencyMs
  }

  /** Returns a percentile in milliseconds; null while there are too few responses. */
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
