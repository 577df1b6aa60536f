/**
 * Entries of keys, in bounded memory. The newest keys have an entry each. When there are too many, those of the oldest
 * go into a table of fixed size, which keeps the largest. So a client cannot reset its own counter by sending requests with
 * many other keys.
 */
import { randomInt } from 'node:crypto'
import type { Algorithm, Entry, Quota } from './algorithms.ts'

const cellBits = 17
const cells = 2 ** cellBits
/** Numbers in a cell: those of an entry, and the mark of its key. */
const width = 4

export class Entries {
  // Two generations instead of an LRU list: a flood of keys costs no more.
  #young = new Map<string, Entry>()
  #old = new Map<string, Entry>()
  /** Entries of the old generation that are not in the table yet. */
  #leaving: Iterator<[string, Entry]> | null = null
  #table: Table | null = null
  readonly #half: number
  readonly #algorithm: Algorithm
  readonly #quota: Quota

  /** The tail and the windows depend on the window only: `max` and `burst` of the quota are not used. */
  constructor(algorithm: Algorithm, quota: Quota, maxKeys = 100_000) {
    this.#half = Math.ceil(maxKeys / 2)
    this.#algorithm = algorithm
    this.#quota = quota
  }

  /** Returns the entry of a key, moved to the present. */
  get(key: string, now: number): Entry {
    const young = this.#young.get(key)
    if (young !== undefined) {
      if (young.until <= now) this.#algorithm.roll(young, now, this.#quota)
      return young
    }
    const entry = this.#old.get(key) ?? this.#table?.read(key, now) ?? { value: 0, prev: 0, until: 0 }
    this.#algorithm.roll(entry, now, this.#quota)
    this.#young.set(key, entry)
    this.#evictOne(now)
    if (this.#young.size >= this.#half) {
      this.#old = this.#young
      this.#young = new Map()
      this.#leaving = this.#old.entries()
    }
    return entry
  }

  /** One key in, one key out: no request pays for many. */
  #evictOne(now: number): void {
    const next = this.#leaving?.next()
    if (next === undefined || next.done) return
    const [key, entry] = next.value
    if (this.#young.has(key) || entry.until + this.#algorithm.tail(this.#quota) <= now) return
    this.#table ??= new Table(this.#algorithm, this.#quota)
    this.#table.merge(key, entry, now)
  }
}

/**
 * Entries of evicted keys: each key has one of four cells, marked by a hash of the key. If all four are taken, the entry with
 * the fewest units is dropped, and of equal ones the new one: only more units on more keys than there are cells could drop an
 * exhausted counter.
 */
class Table {
  readonly #numbers = new Float64Array(cells * width)
  // Secret, so that nobody can choose keys for the cells of another.
  readonly #seeds = Array.from({ length: 3 }, () => randomInt(2 ** 32)) as [number, number, number]
  readonly #tail: number
  readonly #algorithm: Algorithm
  readonly #quota: Quota
  #mark = 0

  constructor(algorithm: Algorithm, quota: Quota) {
    this.#algorithm = algorithm
    this.#quota = quota
    this.#tail = algorithm.tail(quota)
  }

  merge(key: string, entry: Entry, now: number): void {
    this.#algorithm.roll(entry, now, this.#quota)
    let least = this.#weight(entry, now)
    let place = -1
    for (const at of this.#places(key)) {
      const cell = this.#cell(at, now)
      if (cell !== null && this.#numbers[at + 3] === this.#mark) {
        place = at
        break
      }
      const weight = cell === null ? -1 : this.#weight(cell, now)
      if (weight >= least) continue
      least = weight
      place = at
    }
    if (place === -1) return
    this.#numbers[place] = entry.value
    this.#numbers[place + 1] = entry.prev
    this.#numbers[place + 2] = entry.until
    this.#numbers[place + 3] = this.#mark
  }

  read(key: string, now: number): Entry | undefined {
    for (const at of this.#places(key)) {
      const cell = this.#cell(at, now)
      if (cell !== null && this.#numbers[at + 3] === this.#mark) return cell
    }
    return undefined
  }

  /** Returns the entry of a cell; null if it has none that still counts. */
  #cell(at: number, now: number): Entry | null {
    const until = this.#numbers[at + 2]!
    if (until + this.#tail <= now) return null
    const cell = { value: this.#numbers[at]!, prev: this.#numbers[at + 1]!, until }
    this.#algorithm.roll(cell, now, this.#quota)
    return cell
  }

  #weight({ value, prev, until }: Entry, now: number): number {
    return this.#algorithm.tag === 't' ? until - now : value + prev
  }

  /** Returns the cells of a key, and sets its mark. */
  #places(key: string): number[] {
    let [a, b, mark] = this.#seeds
    for (let i = 0; i < key.length; i++) {
      const code = key.charCodeAt(i)
      a = Math.imul(a ^ code, 0x01000193)
      b = Math.imul(b ^ code, 0x5bd1e995)
      b ^= b >>> 15
      mark = Math.imul(mark ^ code, 0x85ebca6b)
      mark ^= mark >>> 13
    }
    a ^= a >>> 16
    this.#mark = mark
    return [0, 1, 2, 3].map((i) => ((a + Math.imul(i, b | 1)) >>> (32 - cellBits)) * width)
  }
}
