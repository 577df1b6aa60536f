import type { Health } from '../core/types.ts'

/** Health of one address, for as long as it is an instance of the service. */
export class InstanceHealth implements Health {
  readonly #obstacles = new Map<string, string>()
  readonly #onFlip: (available: boolean, concern: string, reason: string) => void
  since: number
  readonly #now: () => number
  readonly #onProof: ((begunMs: number) => void)[] = []

  /** Takes a callback, `onFlip`, for changes of `available`, with the concern and its reason. */
  constructor(now: () => number, onFlip: (available: boolean, concern: string, reason: string) => void) {
    this.#now = now
    this.#onFlip = onFlip
    this.since = now()
  }

  get available(): boolean {
    return this.#obstacles.size === 0
  }

  get obstacles(): Readonly<Record<string, string>> {
    return Object.fromEntries(this.#obstacles)
  }

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

  whenProven(hear: (begunMs: number) => void): void {
    this.#onProof.push(hear)
  }

  prove(begunMs: number): void {
    for (const hear of this.#onProof) hear(begunMs)
  }
}
