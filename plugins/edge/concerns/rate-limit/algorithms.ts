/**
 * Algorithms of rate limits. Each reads and changes the entry of one key. The script in Redis (redis-script.ts) computes the
 * same. Every algorithm has at most three numbers per key, however many requests it counts.
 */

/** State of one key. */
export interface Entry {
  /** Units of the current window; not used by the token bucket. */
  value: number
  /** Units of the window before; only of the sliding window. */
  prev: number
  /** Time at which the window ends, or at which the bucket is full again. */
  until: number
}

export interface Quota {
  readonly max: number
  /** Milliseconds. */
  readonly window: number
  /** Units that can be used at once: `max`, or the size of the bucket. */
  readonly burst: number
}

export interface Algorithm {
  /** Name in the script. */
  readonly tag: 'f' | 's' | 't'
  /** Milliseconds after `until` in which an entry still counts. */
  tail(quota: Quota): number
  /** Moves an entry to the present. */
  roll(entry: Entry, now: number, quota: Quota): void
  /** Returns the units in use. As the functions below, it takes an entry that `roll` has moved. */
  used(entry: Entry, now: number, quota: Quota): number
  add(entry: Entry, units: number, quota: Quota): void
  /** Returns the milliseconds until `units` can be used. */
  wait(entry: Entry, now: number, quota: Quota, units: number): number
}

/** Tolerance, because times are floating-point numbers. */
const epsilon = 1e-6

/** Returns the units that can be used now. */
export const available = (algorithm: Algorithm, entry: Entry, now: number, quota: Quota): number =>
  quota.burst - algorithm.used(entry, now, quota) + epsilon

/** Counts in windows that begin with the first request of a key. */
const fixedWindow: Algorithm = {
  tag: 'f',
  tail: () => 0,
  roll(entry, now, { window }) {
    if (entry.until > now) return
    entry.value = 0
    entry.until = now + window
  },
  used: ({ value }) => value,
  add(entry, units) {
    entry.value += units
  },
  wait: ({ until }, now) => until - now
}

/** Counts the current window, and of the window before the share that lies within one window's length from now. */
const slidingWindow: Algorithm = {
  tag: 's',
  tail: ({ window }) => window,
  roll(entry, now, { window }) {
    if (entry.until > now) return
    entry.prev = entry.until + window > now ? entry.value : 0
    entry.value = 0
    // All keys have the same windows.
    entry.until = (Math.floor(now / window) + 1) * window
  },
  used: ({ value, prev, until }, now, { window }) => value + (prev * (until - now)) / window,
  add(entry, units) {
    entry.value += units
  },
  wait({ value, prev, until }, now, { burst, window }, units) {
    const rest = burst - units
    if (value <= rest) return until - now - ((rest - value) / prev) * window
    return until - now + (1 - rest / value) * window
  }
}

/** Bucket that `max` units per window flow into, and that holds `burst`: stored as the time at which it is full (GCRA). */
const tokenBucket: Algorithm = {
  tag: 't',
  tail: () => 0,
  roll(entry, now) {
    if (entry.until < now) entry.until = now
  },
  used: ({ until }, now, { max, window }) => ((until - now) * max) / window,
  add(entry, units, { max, window }) {
    entry.until += (units * window) / max
  },
  wait: ({ until }, now, { max, window, burst }, units) => until - now - ((burst - units) * window) / max
}

export const algorithms = {
  'fixed-window': fixedWindow,
  'sliding-window': slidingWindow,
  'token-bucket': tokenBucket
} as const

export type AlgorithmName = keyof typeof algorithms
