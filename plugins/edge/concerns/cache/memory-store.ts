/** Stored responses in this process, with a bound in bytes; those that were used least recently are removed first. */
import type { StoredResponse } from './stored.ts'

/** Memory of a response besides its texts and its body. */
const entryBytes = 1024
/** Most responses of one key, which differ in `Vary`. */
const maxVariants = 64

/** Responses that a purge removes. */
export interface Purge {
  readonly path?: string | undefined
  readonly prefix?: string | undefined
  readonly tag?: string | undefined
  readonly host?: string | undefined
  readonly route?: string | undefined
}

export interface RouteSums {
  bytes: number
  entries: number
}

/** A fetch whose response may be stored, so that an invalidation in the meantime prevents it. */
export interface Pending {
  readonly resource: string
  isOutdated: boolean
}

export class MemoryStore {
  readonly maxSize: number
  /** By key, the least recently used first. */
  readonly #variants = new Map<string, StoredResponse[]>()
  readonly #keysOf = new Map<string, Set<string>>()
  readonly #pending = new Map<string, Set<Pending>>()
  readonly #sums = new Map<string, RouteSums>()
  readonly #sizes = new WeakMap<StoredResponse, number>()
  #bytes = 0
  /** Bytes of bodies that are being received. */
  #receiving = 0
  /** Called with the route of each response that is removed for lack of memory. */
  onEvicted: (route: string) => void = () => {}

  constructor(maxSize: number) {
    this.maxSize = maxSize
  }

  get bytes(): number {
    return this.#bytes
  }

  get sums(): ReadonlyMap<string, RouteSums> {
    return this.#sums
  }

  /** Returns the responses of a key, the newest last. */
  find(key: string): readonly StoredResponse[] {
    const variants = this.#variants.get(key)
    if (variants === undefined) return []
    this.#variants.delete(key)
    this.#variants.set(key, variants)
    return variants
  }

  /** Begins a fetch of a resource; `end` has to follow. */
  begin(resource: string): Pending {
    const pending = { resource, isOutdated: false }
    const all = this.#pending.get(resource)
    if (all === undefined) this.#pending.set(resource, new Set([pending]))
    else all.add(pending)
    return pending
  }

  end(pending: Pending): void {
    const all = this.#pending.get(pending.resource)
    all?.delete(pending)
    if (all?.size === 0) this.#pending.delete(pending.resource)
  }

  /** Reserves memory for a part of a body that is being received; returns false if there is none. */
  reserve(bytes: number): boolean {
    if (this.#receiving + bytes > this.maxSize) return false
    this.#receiving += bytes
    return true
  }

  release(bytes: number): void {
    this.#receiving -= bytes
  }

  /** Adds a response in place of the one for the same requests. */
  put(entry: StoredResponse): void {
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

  /** Removes all responses for a URI, also those that are being received. */
  invalidate(resource: string): void {
    for (const pending of this.#pending.get(resource) ?? []) pending.isOutdated = true
    const keys = this.#keysOf.get(resource)
    if (keys === undefined) return
    for (const key of [...keys]) for (const entry of [...(this.#variants.get(key) ?? [])]) this.remove(entry)
  }

  /** Removes responses, and returns their number. Responses that are being received are not stored. */
  purge(purge: Purge): number {
    for (const all of this.#pending.values()) for (const pending of all) pending.isOutdated = true
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

function isMeant({ url, path, host, tags, route }: StoredResponse, purge: Purge): boolean {
  if (purge.host !== undefined && purge.host.toLowerCase() !== host) return false
  if (purge.route !== undefined && purge.route !== route) return false
  if (purge.tag !== undefined && !tags.includes(purge.tag)) return false
  if (purge.prefix !== undefined && !url.startsWith(purge.prefix) && !path.startsWith(purge.prefix)) return false
  if (purge.path === undefined) return true
  const isPath = (each: string) =>
    each === purge.path || (!purge.path!.includes('?') && each.split('?', 1)[0] === purge.path)
  return isPath(url) || isPath(path)
}

/** Size of a response in memory. Texts of HTTP have one byte per character. */
function sizeOf({ body, headers, url, path, key, host, tags }: StoredResponse): number {
  let bytes = entryBytes + body.length + url.length + path.length + host.length + key.length
  for (const [name, value] of Object.entries(headers)) bytes += name.length + String(value).length + 64
  for (const tag of tags) bytes += tag.length + 16
  return bytes
}
