/** Memory of an entry besides its texts. */
const entryBytes = 200

/** A map of texts with a bound in bytes. When it is full, the entry that was used least recently is removed. */
export class ByteLru<T> {
  readonly #entries = new Map<string, { readonly value: T; readonly bytes: number }>()
  readonly #maxBytes: number
  #bytes = 0

  constructor(maxBytes: number) {
    this.#maxBytes = maxBytes
  }

  get(key: string): T | undefined {
    const entry = this.#entries.get(key)
    if (entry === undefined) return undefined
    this.#entries.delete(key)
    this.#entries.set(key, entry)
    return entry.value
  }

  /** Adds an entry; `textBytes` is the size of its texts, key included. An entry that is larger than the whole map is not added. */
  set(key: string, value: T, textBytes: number): void {
    this.delete(key)
    const bytes = textBytes + entryBytes
    if (bytes > this.#maxBytes) return
    this.#entries.set(key, { value, bytes })
    this.#bytes += bytes
    for (const oldest of this.#entries.keys()) {
      if (this.#bytes <= this.#maxBytes) break
      this.delete(oldest)
    }
  }

  delete(key: string): void {
    this.#bytes -= this.#entries.get(key)?.bytes ?? 0
    this.#entries.delete(key)
  }
}
