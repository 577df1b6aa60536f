/**
 * Whether an instance may be chosen: yes unless a concern says why not. Each concern (active checks, outlier
 * detection) speaks for itself under its own name, and the instance is back when all have taken their word back.
 */
export class Health {
  readonly #obstacles = new Map<string, string>()
  readonly #onFlip: (available: boolean, concern: string, reason: string) => void
  /** When it last became available, on the mesh's clock; slow start counts from here. */
  since: number
  readonly #now: () => number
  readonly #onProof: ((begunMs: number) => void)[] = []

  /** `onFlip` is called when `available` changes, with the concern and the reason that changed it. */
  constructor(now: () => number, onFlip: (available: boolean, concern: string, reason: string) => void) {
    this.#now = now
    this.#onFlip = onFlip
    this.since = now()
  }

  /** The one predicate: nothing else decides whether an instance takes part. */
  get available(): boolean {
    return this.#obstacles.size === 0
  }

  /** Why it is kept out, by concern. */
  get obstacles(): Readonly<Record<string, string>> {
    return Object.fromEntries(this.#obstacles)
  }

  /** Keeps it out; said again, a newer reason takes the place of the older. */
  obstruct(concern: string, reason: string): void {
    const before = this.available
    this.#obstacles.set(concern, reason)
    if (before) this.#onFlip(false, concern, reason)
  }

  clear(concern: string, reason: string): void {
    if (!this.#obstacles.delete(concern) || !this.available) return
    this.since = this.#now()
    this.#onFlip(true, concern, reason)
  }

  /** Who judges by other means hears here that the instance was asked, and is well. */
  whenProven(hear: (begunMs: number) => void): void {
    this.#onProof.push(hear)
  }

  /** A check, begun at `begunMs` on the mesh's clock, found the instance well. */
  prove(begunMs: number): void {
    for (const hear of this.#onProof) hear(begunMs)
  }
}
