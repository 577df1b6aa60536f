/** A member that knows whether it has left. */
interface Leaving {
  /** Set by `delete`. */
  isGone: boolean
}

/**
 * Members in the order in which they joined. Joining, leaving and looking at the first take constant time on average,
 * so that 16,000 callers cost 16,000 steps. Members may leave while it is iterated.
 */
export class Members<T extends Leaving> {
  #list: T[] = []
  /** Before it, all are gone. */
  #begin = 0
  #size = 0

  get size(): number {
    return this.#size
  }

  get first(): T | undefined {
    while (this.#begin < this.#list.length && this.#list[this.#begin]!.isGone) this.#begin++
    return this.#list[this.#begin]
  }

  add(member: T): void {
    this.#list.push(member)
    this.#size++
  }

  delete(member: T): void {
    if (member.isGone) return
    member.isGone = true
    this.#size--
    // Members that come and go must not pile up. A new list: the old one may be in the middle of an iteration.
    if (this.#list.length > 2 * this.#size + 16) {
      this.#list = this.#list.filter(({ isGone }) => !isGone)
      this.#begin = 0
    }
  }

  /** Those that are here now; one that joins meanwhile is left out. */
  *[Symbol.iterator](): Generator<T> {
    const list = this.#list
    for (let i = this.#begin, end = list.length; i < end; i++) if (!list[i]!.isGone) yield list[i]!
  }
}
