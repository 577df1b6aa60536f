/**
 * Entries of keys, in bounded memory. The newest keys have an entry each. When there are too many, the values of the oldest
 * go into a table of fixed size, where several keys share a cell. So a client cannot reset its own counter by sending
 * requests with many other keys.
 */
import { randomInt } from 'node:crypto'
import type { Algorithm, Entry, Quota } from './algorithms.ts'

const rows = 4
const cells = 2 ** 15
/** Numbers in a cell. */
const width = 3

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
 * Largest values of the evicted keys, in four cells for each key. A key that returns continues from the smallest of its
 * cells: never less than it had, and more only if four other keys with more are in its cells.
 */
class Table {
  readonly #numbers = new Float64Array(rows * cells * width)
  // Secret, so that nobody can choose keys that share the cells of another.
  readonly #seeds = [randomInt(2 ** 32), randomInt(2 ** 32)] as const
  readonly #tail: number
  readonly #algorithm: Algorithm
  readonly #quota: Quota

  constructor(algorithm: Algorithm, quota: Quota) {
    this.#algorithm = algorithm
    this.#quota = quota
    this.#tail = algorithm.tail(quota)
  }

  merge(key: string, entry: Entry, now: number): void {
    this.#algorithm.roll(entry, now, this.#quota)
    for (const at of this.#places(key)) {
      const cell = this.#cell(at, now)
      this.#numbers[at] = Math.max(entry.value, cell?.value ?? 0)
      this.#numbers[at + 1] = Math.max(entry.prev, cell?.prev ?? 0)
      this.#numbers[at + 2] = Math.max(entry.until, cell?.until ?? 0)
    }
  }

  read(key: string, now: number): Entry | undefined {
    let least: Entry | undefined
    for (const at of this.#places(key)) {
      const cell = this.#cell(at, now)
      if (cell === null) return undefined
      least ??= cell
      least.value = Math.min(least.value, cell.value)
      least.prev = Math.min(least.prev, cell.prev)
      least.until = Math.min(least.until, cell.until)
    }
    return least
  }

  #cell(at: number, now: number): Entry | null {
    const [value, prev, until] = this.#numbers.subarray(at, at + width) as unknown as [number, number, number]
    if (until + this.#tail <= now) return null
    const cell = { value, prev, until }
    this.#algorithm.roll(cell, now, this.#quota)
    return cell
  }

  #places(key: string): number[] {
    let [a, b] = this.#seeds as unknown as [number, number]
    for (let i = 0; i < key.length; i++) {
      const code = key.charCodeAt(i)
      a = Math.imul(a ^ code, 0x01000193)
      b = Math.imul(b ^ code, 0x5bd1e995)
      b ^= b >>> 15
    }
    a ^= a >>> 16
    return Array.from({ length: rows }, (_, row) => (row * cells + ((a + Math.imul(row, b | 1)) >>> 17)) * width)
  }
}
