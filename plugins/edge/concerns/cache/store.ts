/** Stores of responses: what the cache of a route needs of one, and what all of them share. */
import type { Asked } from './asked.ts'
import type { StoredHead, StoredResponse } from './stored.ts'

export const criteria = ['path', 'prefix', 'tag', 'host', 'route'] as const

/** Responses that a purge removes: those that match all of its criteria. */
export type Purge = { readonly [name in (typeof criteria)[number]]?: string | undefined }

/** Result of a lookup. */
export interface Found {
  /** The newest stored response that fits the request; null if there is none. */
  readonly stored: StoredResponse | null
  /** True if responses for other values of `Vary` are stored. */
  readonly hasVariants: boolean
  /** Names in `Vary` of an earlier response, by which requests differ. */
  readonly varyNames: readonly string[]
  /** State of the store at the time of the lookup, by which it sees later invalidations; for the store only. */
  readonly state: unknown
}

/** A fetch whose response may be stored, so that an invalidation in the meantime prevents it. */
export interface Pending {
  readonly resource: string
  readonly state: unknown
  isOutdated: boolean
}

/** A store. Callbacks are called exactly once, possibly before the method returns, and within a bounded time. */
export interface ResponseStore {
  /** True if invalidations take time, so that responses to unsafe methods have to wait for them. */
  readonly isRemote: boolean
  readonly bodies: BodyMemory
  lookup(asked: Asked, done: (found: Found) => void): void
  /** Begins a fetch of a resource; `end` has to follow. */
  begin(resource: string, found: Found): Pending
  end(pending: Pending): void
  /** Stores the response to a request. `done` gets false if it was invalidated while it was received. */
  put(entry: StoredResponse, asked: Asked, pending: Pending, done: (isValid: boolean) => void): void
  /** Removes a response that was found for a request. */
  remove(entry: StoredHead, asked: Asked): void
  /** Removes all responses for URIs, also those that are being received. */
  invalidate(resources: readonly string[], done: () => void): void
}

/** The fetches of a process whose responses may be stored, by resource. */
export class PendingFetches {
  readonly #all = new Map<string, Set<Pending>>()

  begin(resource: string, state: unknown): Pending {
    const pending = { resource, state, isOutdated: false }
    const all = this.#all.get(resource)
    if (all === undefined) this.#all.set(resource, new Set([pending]))
    else all.add(pending)
    return pending
  }

  end(pending: Pending): void {
    const all = this.#all.get(pending.resource)
    all?.delete(pending)
    if (all?.size === 0) this.#all.delete(pending.resource)
  }

  outdate(resource: string): void {
    for (const pending of this.#all.get(resource) ?? []) pending.isOutdated = true
  }

  outdateAll(): void {
    for (const all of this.#all.values()) for (const pending of all) pending.isOutdated = true
  }
}

/** Memory of bodies that are being received or written, with a bound in bytes. */
export class BodyMemory {
  readonly #maxBytes: number
  #bytes = 0

  constructor(maxBytes: number) {
    this.#maxBytes = maxBytes
  }

  get bytes(): number {
    return this.#bytes
  }

  /** Reserves memory for a part of a body; returns false if there is none. */
  reserve(bytes: number): boolean {
    if (this.#bytes + bytes > this.#maxBytes) return false
    this.#bytes += bytes
    return true
  }

  release(bytes: number): void {
    this.#bytes -= bytes
  }
}

/** Returns whether a purge removes a response. */
export function isMeant({ url, path, host, tags, route }: StoredHead, purge: Purge): boolean {
  if (purge.host !== undefined && purge.host.toLowerCase() !== host) return false
  if (purge.route !== undefined && purge.route !== route) return false
  if (purge.tag !== undefined && !tags.includes(purge.tag)) return false
  if (purge.prefix !== undefined && !url.startsWith(purge.prefix) && !path.startsWith(purge.prefix)) return false
  if (purge.path === undefined) return true
  const isPath = (each: string) =>
    each === purge.path || (!purge.path!.includes('?') && each.split('?', 1)[0] === purge.path)
  return isPath(url) || isPath(path)
}
