/** Stored responses in this process, with a bound in bytes; those that were used least recently are removed first. */
import type { Asked } from './asked.ts'
import type { Found, Pending, Purge, ResponseStore } from './store.ts'
import { BodyMemory, isMeant, PendingFetches } from './store.ts'
import type { StoredResponse } from './stored.ts'
import { pick } from './usable.ts'

/** Memory of a response besides its texts and its body. */
const entryBytes = 1024
/** Most responses of one key, which differ in `Vary`. */
const maxVariants = 64

export interface RouteSums {
  bytes: number
  entries: number
}

export class MemoryStore implements ResponseStore {
  readonly isRemote = false
  readonly maxSize: number
  readonly bodies: BodyMemory
  /** By key, the least recently used first. */
  readonly #variants = new Map<string, StoredResponse[]>()
  readonly #keysOf = new Map<string, Set<string>>()
  readonly #pending = new PendingFetches()
  readonly #sums = new Map<string, RouteSums>()
  readonly #sizes = new WeakMap<StoredResponse, number>()
  #bytes = 0
  /** Called with the route of each response that is removed for lack of memory. */
  onEvicted: (route: string) => void = () => {}

  constructor(maxSize: number) {
    this.maxSize = maxSize
    this.bodies = new BodyMemory(maxSize)
  }

  get bytes(): number {
    return this.#bytes
  }

  get sums(): ReadonlyMap<string, RouteSums> {
    return this.#sums
  }

  lookup(asked: Asked, done: (found: Found) => void): void {
    const ofAll = this.#find(asked.publicKey)
    const own = asked.ownKey === asked.publicKey || asked.isPersonal ? ofAll : this.#find(asked.ownKey)
    const stored = pick(asked, ofAll, own)
    done({ stored, hasVariants: ofAll.length > 0, varyNames: own[0]?.varyNames ?? [], state: null })
  }

  /** Returns the responses of a key, the newest last. */
  #find(key: string): readonly StoredResponse[] {
    const variants = this.#variants.get(key)
    if (variants === undefined) return []
    this.#variants.delete(key)
    this.#variants.set(key, variants)
    return variants
  }

  begin(resource: string): Pending {
    return this.#pending.begin(resource, null)
  }

  end(pending: Pending): void {
    this.#pending.end(pending)
  }

  put(entry: StoredResponse, _asked: Asked, { isOutdated }: Pending, done: (isValid: boolean) => void): void {
    if (!isOutdated) this.#put(entry)
    done(!isOutdated)
  }

  /** Adds a response in place of the one for the same requests. */
  #put(entry: StoredResponse): void {
    const bytes = sizeOf(entry)
    if (bytes > this.maxSize) return
    const variants = this.#variants.get(entry.key) ?? []
    const same = variants.find(
      ({ varyNames, varyValues }) => varyValues === entry.varyValues && varyNames.join() === entry.varyNames.join()
    )
    if (same !== undefined) this.remove(same)
    else if (variants.length >= maxVariants) this.#evict(variants[0]!)
    const kept = this.#variants.get(entry.key) ?? []
    kept.push(entry)
    this.#variants.delete(entry.key)
    this.#variants.set(entry.key, kept)
    const keys = this.#keysOf.get(entry.resource)
    if (keys === undefined) this.#keysOf.set(entry.resource, new Set([entry.key]))
    else keys.add(entry.key)
    this.#sizes.set(entry, bytes)
    this.#count(entry.route, bytes, 1)
    while (this.#bytes > this.maxSize) {
      const [oldest] = this.#variants.values()
      this.#evict(oldest![0]!)
    }
  }

  remove(entry: StoredResponse): void {
    const variants = this.#variants.get(entry.key)
    const at = variants?.indexOf(entry) ?? -1
    if (variants === undefined || at < 0) return
    variants.splice(at, 1)
    this.#count(entry.route, -this.#sizes.get(entry)!, -1)
    if (variants.length > 0) return
    this.#variants.delete(entry.key)
    const keys = this.#keysOf.get(entry.resource)
    keys?.delete(entry.key)
    if (keys?.size === 0) this.#keysOf.delete(entry.resource)
  }

  invalidate(resources: readonly string[], done: () => void): void {
    for (const resource of resources) {
      this.#pending.outdate(resource)
      for (const key of [...(this.#keysOf.get(resource) ?? [])])
        for (const entry of [...(this.#variants.get(key) ?? [])]) this.remove(entry)
    }
    done()
  }

  /** Removes responses, and returns their number. Responses that are being received are not stored. */
  purge(purge: Purge): number {
    this.#pending.outdateAll()
    const removed = [...this.#variants.values()].flatMap((variants) => variants.filter((each) => isMeant(each, purge)))
    for (const entry of removed) this.remove(entry)
    return removed.length
  }

  #evict(entry: StoredResponse): void {
    this.remove(entry)
    this.onEvicted(entry.route)
  }

  #count(route: string, bytes: number, entries: number): void {
    const sums = this.#sums.get(route) ?? { bytes: 0, entries: 0 }
    sums.bytes += bytes
    sums.entries += entries
    this.#bytes += bytes
    if (sums.entries > 0) this.#sums.set(route, sums)
    else this.#sums.delete(route)
  }
}

/** Size of a response in memory. Texts of HTTP have one byte per character. */
function sizeOf({ body, headers, url, path, key, host, tags }: StoredResponse): number {
  let bytes = entryBytes + body.length + url.length + path.length + host.length + key.length
  for (const [name, value] of Object.entries(headers)) bytes += name.length + String(value).length + 64
  for (const tag of tags) bytes += tag.length + 16
  return bytes
}
