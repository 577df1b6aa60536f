/** Memory that several streams share: one of them starts only if its part is free. */
export class MemoryBudget {
  readonly #mostBytes: number
  readonly #mostOfClient: number
  /** Bytes by client. */
  readonly #held = new Map<string, number>()
  #used = 0

  /** `mostOfClient`: bytes that the streams of one client may take together. */
  constructor(mostBytes: number, mostOfClient = mostBytes) {
    this.#mostBytes = mostBytes
    this.#mostOfClient = mostOfClient
  }

  /** Bytes that are in use. */
  get used(): number {
    return this.#used
  }

  /** Returns false if the memory would be too much. */
  take(bytes: number, client?: string): boolean {
    if (this.#used + bytes > this.#mostBytes) return false
    if (client !== undefined) {
      const held = (this.#held.get(client) ?? 0) + bytes
      if (held > this.#mostOfClient) return false
      this.#held.set(client, held)
    }
    this.#used += bytes
    return true
  }

  give(bytes: number, client?: string): void {
    this.#used -= bytes
    if (client === undefined) return
    const held = this.#held.get(client)! - bytes
    if (held > 0) this.#held.set(client, held)
    else this.#held.delete(client)
  }
}
