/**
 * Signatures and nonces that this process has accepted, each for as long as it could be accepted again. A consumer may add as
 * many as there is room left: alone at most half, so that a flood of one consumer leaves room for all others.
 */
import { hash, randomBytes } from 'node:crypto'
import createError from '@fastify/error'
import type { ConcernContext } from '../concern.ts'

const Full = createError('JW_REPLAY_WINDOW_FULL', 'The memory for accepted signatures is full', 503)
const Limited = createError('JW_SIGNATURES_LIMITED', 'This consumer has sent too many signed requests', 429)

/** Bytes of an entry: two words, in a table that is at least three eighths full, and the counts by consumer. */
const ENTRY_BYTES = 24

/** Parts of the window. Entries are removed by part, so that none needs a time of its own. */
const SLICES = 8

/** A set of digests of 64 bits in open addressing. A Set of strings takes three times the memory. */
class Digests {
  #words = new Uint32Array(128)
  #size = 0

  get size(): number {
    return this.#size
  }

  has(low: number, high: number): boolean {
    return this.#words[this.#indexOf(low, high)] !== 0
  }

  add(low: number, high: number): void {
    if ((this.#size + 1) * 8 > this.#words.length * 3) this.#grow()
    const at = this.#indexOf(low, high)
    this.#words[at] = low
    this.#words[at + 1] = high
    this.#size++
  }

  /** Returns the index of a digest, or of the place for it. `low` is not 0, which marks a free place. */
  #indexOf(low: number, high: number): number {
    const words = this.#words
    const mask = words.length - 1
    let at = (low * 2) & mask
    while (words[at] !== 0 && (words[at] !== low || words[at + 1] !== high)) at = (at + 2) & mask
    return at
  }

  #grow(): void {
    const old = this.#words
    this.#words = new Uint32Array(old.length * 2)
    this.#size = 0
    for (let i = 0; i < old.length; i += 2) if (old[i] !== 0) this.add(old[i]!, old[i + 1]!)
  }
}

/** The entries of one part of the window. */
interface Slice {
  /** Time from which entries belong to the next slice. */
  readonly fullAt: number
  /** Time at which all entries are removed. */
  readonly until: number
  readonly digests: Digests
  readonly byConsumer: Map<string, number>
}

export class Replays {
  readonly #most: number
  readonly #windowMs: number
  readonly #now: () => number
  /** Makes digests unpredictable: nobody can search for an entry that refuses another consumer's. */
  readonly #salt = randomBytes(16).toString('base64')
  /** Slices by time, the oldest first. */
  readonly #slices: Slice[] = []
  readonly #byConsumer = new Map<string, number>()
  #size = 0

  /** `windowMs`: longest time from one acceptance of a signature to the next. */
  constructor(maxBytes: number, windowMs: number, now: () => number) {
    this.#most = Math.max(1, Math.floor(maxBytes / ENTRY_BYTES))
    this.#windowMs = windowMs
    this.#now = now
  }

  /** Part of the memory that is in use, from 0 to 1. */
  get used(): number {
    this.#removeOld(this.#now())
    return this.#size / this.#most
  }

  /** Returns whether there is an entry, so that the body of a request that is refused need not be read. */
  has(...parts: readonly (string | Buffer)[]): boolean {
    this.#removeOld(this.#now())
    const [low, high] = this.#digestOf(parts)
    return this.#slices.some(({ digests }) => digests.has(low, high))
  }

  /**
   * Adds an entry of a consumer; returns false if it is there already. Throws if there is no memory for it: removing another
   * entry would let that one be used again.
   */
  add(consumer: string, ...parts: readonly (string | Buffer)[]): boolean {
    const now = this.#now()
    this.#removeOld(now)
    const [low, high] = this.#digestOf(parts)
    if (this.has(...parts)) return false
    const free = this.#most - this.#size
    const own = this.#byConsumer.get(consumer) ?? 0
    if (own >= free) {
      const retryAfterMs = Math.max(1, this.#slices[0]!.until - now)
      throw Object.assign(free === 0 ? new Full() : new Limited(), { retryAfterMs })
    }
    const { digests, byConsumer } = this.#sliceAt(now)
    digests.add(low, high)
    byConsumer.set(consumer, (byConsumer.get(consumer) ?? 0) + 1)
    this.#byConsumer.set(consumer, own + 1)
    this.#size++
    return true
  }

  #digestOf(parts: readonly (string | Buffer)[]): [low: number, high: number] {
    const text = JSON.stringify(parts.map((part) => (typeof part === 'string' ? part : part.toString('base64'))))
    const digest = hash('sha256', this.#salt + text, 'buffer')
    return [digest.readUInt32LE(0) || 1, digest.readUInt32LE(4)]
  }

  #sliceAt(now: number): Slice {
    const last = this.#slices.at(-1)
    if (last !== undefined && now < last.fullAt) return last
    const fullAt = now + this.#windowMs / SLICES
    const next = { fullAt, until: fullAt + this.#windowMs, digests: new Digests(), byConsumer: new Map() }
    this.#slices.push(next)
    return next
  }

  #removeOld(now: number): void {
    while (this.#slices.length > 0 && this.#slices[0]!.until < now) {
      const { digests, byConsumer } = this.#slices.shift()!
      this.#size -= digests.size
      for (const [consumer, count] of byConsumer) {
        const left = this.#byConsumer.get(consumer)! - count
        if (left === 0) this.#byConsumer.delete(consumer)
        else this.#byConsumer.set(consumer, left)
      }
    }
  }
}

interface WindowOptions {
  readonly replayWindow: { readonly maxSize: number }
  readonly windowMs: number
  /** True for a route in shadow mode: what it accepts takes no place of the routes that enforce. */
  readonly isShadow: boolean
}

/** Makes the metric of a concern's replay windows. Returns the function that claims one: routes with equal options share it. */
export function replayWindows(
  { stores, clock, meter }: ConcernContext,
  concern: string
): (options: WindowOptions) => Replays {
  const windows = new Set<Replays>()
  meter.gauge({
    name: 'jingwei_edge_replay_window_used_ratio',
    help: 'Part of the memory for accepted signatures that is in use, from 0 to 1. At 1, requests get 503.',
    labelNames: ['concern'],
    collect(set) {
      if (windows.size > 0) set({ concern }, Math.max(...[...windows].map(({ used }) => used)))
    }
  })
  return (options) => {
    const { replayWindow, windowMs } = options
    const claimed = stores.claim(
      `jingwei.${concern}-replays`,
      options,
      () => new Replays(replayWindow.maxSize, windowMs, clock.now)
    )
    windows.add(claimed)
    return claimed
  }
}
