/** Load of the process, as shares of the limits of `edge.overload`. */
import { totalmem } from 'node:os'
import { getHeapStatistics } from 'node:v8'
import type { InFlightCount } from '../../protocol/in-flight.ts'
import type { OverloadOptions, Priority } from './options.ts'

const periodMs = 500

/** Shares of a limit at which requests of a priority are refused. */
export const margins: Readonly<Record<Priority, number>> = { low: 0.9, normal: 1, high: 1.1 }

/** Resources in the order in which they are reported. */
const resources = ['event-loop', 'memory', 'requests'] as const
export type Resource = (typeof resources)[number]

/** The least of the last three samples: one long block, or one pause of the garbage collector, is no overload. */
class Sustained {
  #samples = [0, 0, 0]

  get value(): number {
    return Math.min(...this.#samples)
  }

  add(sample: number): void {
    this.#samples = [...this.#samples.slice(1), sample]
  }
}

/** Reads the used share of memory. `constrainedMemory` is 0, or more than there is, without a limit. */
export function usedMemory(): number {
  const total = totalmem()
  const constrained = process.constrainedMemory()
  const available = constrained > 0 && constrained < total ? constrained : total
  const { used_heap_size: used, heap_size_limit: limit } = getHeapStatistics()
  return Math.max(process.memoryUsage.rss() / available, used / limit)
}

/** Measures the load, twice a second, and decides which requests are refused. */
export class Load {
  readonly #options: OverloadOptions
  readonly #requests: InFlightCount
  readonly #onChange: (resource: Resource, isShort: boolean) => void
  readonly #timer: NodeJS.Timeout
  readonly #delay = new Sustained()
  readonly #memory = new Sustained()
  /** Used shares of the limits. */
  readonly #used = { 'event-loop': 0, memory: 0 }
  /** Number of requests in flight from which on those of the lowest priority are refused. */
  readonly #mostRequests: number
  #dueMs: number
  /** True while no measured resource is short for any priority. */
  #isRelaxed = true

  /** `onChange` is called when a measured resource becomes short, or is no longer short, for normal requests. */
  constructor(
    options: OverloadOptions,
    requests: InFlightCount,
    onChange: (resource: Resource, isShort: boolean) => void,
    nowMs = performance.now()
  ) {
    this.#options = options
    this.#requests = requests
    this.#onChange = onChange
    this.#mostRequests =
      options.requests === false ? Number.POSITIVE_INFINITY : Math.floor(options.requests * margins.low)
    this.#dueMs = nowMs + periodMs
    this.#timer = setInterval(() => this.tick(performance.now(), usedMemory), periodMs).unref()
  }

  tick(nowMs: number, memory: () => number): void {
    const { eventLoopDelay, memory: mostMemory } = this.#options
    if (eventLoopDelay !== false) {
      this.#delay.add(nowMs - this.#dueMs)
      this.#set('event-loop', this.#delay.value / eventLoopDelay)
    }
    if (mostMemory !== false) {
      this.#memory.add(memory())
      this.#set('memory', this.#memory.value / mostMemory)
    }
    this.#dueMs = nowMs + periodMs
    this.#isRelaxed = Math.max(this.#used['event-loop'], this.#used.memory) <= margins.low
  }

  #set(resource: 'event-loop' | 'memory', used: number): void {
    const was = this.#used[resource] > 1
    this.#used[resource] = used
    if (used > 1 !== was) this.#onChange(resource, used > 1)
  }

  /** True while no request is refused, whatever its priority. */
  get isCalm(): boolean {
    return this.#isRelaxed && this.#requests.count < this.#mostRequests
  }

  /** Returns the resource that is short for requests of this priority, or null. */
  shortage(priority: Priority): Resource | null {
    const { count } = this.#requests
    const margin = margins[priority]
    if (this.#used['event-loop'] > margin) return 'event-loop'
    if (this.#used.memory > margin) return 'memory'
    const { requests } = this.#options
    return requests !== false && count >= Math.floor(requests * margin) ? 'requests' : null
  }

  close(): void {
    clearInterval(this.#timer)
  }
}
