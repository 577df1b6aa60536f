/**
 * The part of the seam by which the edge reads keys of a key-value store: the mesh has the client of Consul, the edge knows what
 * the values mean. Types only: nothing here runs.
 */

/** A key, as the configuration names it. */
export interface KeyName {
  /** Name of the registry under `discovery`. */
  readonly source: string
  readonly key: string
  readonly datacenter?: string | undefined
}

/** A key that is watched. It outlives a configuration. */
export interface WatchedKey {
  /** Newest value; null before the first one, and while the store does not have the key. */
  readonly value: string | null
  /** Last value for which `keep` was called, also before a restart; null if there is none. */
  readonly kept: string | null
  /** Reason why there is no value, or no newer one; null if the store has responded. */
  readonly error: string | null
  /** Calls back with each change of the value or the error. Returns a function that ends this. */
  onChange(hear: () => void): () => void
  /** Resolves at the first value or error, or after the time. */
  first(timeoutMs: number): Promise<void>
  /** Keeps a value that is usable for the next start. */
  keep(value: string): void
}

export type WatchKey = (name: KeyName) => Promise<WatchedKey>
