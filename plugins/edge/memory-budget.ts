/** Memory that several streams share: one of them starts only if its part is free. */
export class MemoryBudget {
  readonly #mostBytes: number
  #used = 0

  constructor(mostBytes: number) {
    this.#mostBytes = mostBytes
  }

  /** Bytes that are in use. */
  get used(): number {
    return this.#used
  }

  /** Returns false if the memory would be too much. */
  take(bytes: number): boolean {
    if (this.#used + bytes > this.#mostBytes) return false
    this.#used += bytes
    return true
  }

  give(bytes: number): void {
    this.#used -= bytes
  }
}
