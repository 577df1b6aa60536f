import type { RouteOptions } from 'fastify'
import type { Config } from '../../config/schema.ts'
import type { EdgeConcern, ShownRoute } from './concern.ts'

type OnRoute = (route: RouteOptions) => void
type Shown = Pick<EdgeConcern, 'name' | 'isOn' | 'keys' | 'ownRoutes'>

/** A place beside a concern; exactly one of the two. */
export interface Order {
  readonly before?: string
  readonly after?: string
}

declare module 'fastify' {
  interface FastifyInstance {
    edgeOrder: EdgeOrder
  }
}

/** Key of a concern; null for one that acts on every request, before all hooks of routes, and so has no position. */
const keyOf = ({ keys }: Shown) => keys.find(({ levels }) => levels.includes('route'))?.name ?? null

const attachNothing: OnRoute = () => {}

/** A position at which other code attaches hooks to routes. */
class Slot {
  /** The concern of a user that stands here; null for other hooks. */
  readonly concern: Shown | null
  /** The concern of a user after which it was placed. */
  after: Slot | null = null
  attach = attachNothing

  constructor(concern: Shown | null) {
    this.concern = concern
  }
}

/** Returns the last slot of those that were placed after a slot, and after these; the slot itself if there is none. */
function lastAfter(slots: readonly Slot[], slot: Slot): Slot {
  const last = slots.findLast(({ after }) => after === slot)
  return last === undefined ? slot : lastAfter(slots, last)
}

/** The edge's concerns in their order, and positions among them for concerns and hooks of users. */
export class EdgeOrder {
  readonly #concerns: readonly Shown[]
  readonly #listeners: Config['listeners']
  /** Slots before the concern with the same index; last, after all of them. */
  readonly #slots: Slot[][]

  constructor(concerns: readonly Shown[], listeners: Config['listeners'] = []) {
    this.#concerns = concerns
    this.#listeners = listeners
    this.#slots = Array.from({ length: concerns.length + 1 }, () => [])
  }

  /** Keys of the concerns that have a position. */
  get names(): string[] {
    return this.concerns.flatMap((concern) => keyOf(concern) ?? [])
  }

  /** Names of the concerns in force on a route, in their order. */
  namesOn(route: ShownRoute): string[] {
    return this.concerns.flatMap(({ name, isOn }) => (isOn(route, this.#listeners) ? [name] : []))
  }

  /** All concerns in their order; those of users are among them before the first plugin starts. */
  get concerns(): Shown[] {
    return this.#slots.flatMap((slots, index) => {
      const own = this.#concerns[index]
      return [...slots.flatMap(({ concern }) => concern ?? []), ...(own === undefined ? [] : [own])]
    })
  }

  /** Returns whether a concern attaches hooks to routes by now: one of a user does once its plugin has started. */
  hasStarted(key: string): boolean {
    const slots = this.#slots.flat().filter(({ concern }) => concern !== null && keyOf(concern) === key)
    return slots.every(({ attach }) => attach !== attachNothing)
  }

  /** Returns the `onRoute` hook to add before the concern with an index. */
  hookAt(index: number): OnRoute {
    const slots = this.#slots[index]!
    return (route) => {
      for (const slot of slots) slot.attach(route)
    }
  }

  /**
   * Makes a position before or after a concern; without an order, after all of them. Several at one position keep the
   * order in which they were made. Returns null if there is no concern with this key, or none yet.
   */
  slot(order: Order | null, concern: Shown | null = null): Slot | null {
    const slot = new Slot(concern)
    if (order === null) {
      this.#slots.at(-1)!.push(slot)
      return slot
    }
    const { before, after } = order
    const wanted = before ?? after
    const index = this.#concerns.findIndex((each) => keyOf(each) === wanted)
    if (index !== -1) {
      this.#slots[before === undefined ? index + 1 : index]!.push(slot)
      return slot
    }
    for (const slots of this.#slots) {
      const beside = slots.find((each) => each.concern !== null && keyOf(each.concern) === wanted)
      if (beside === undefined) continue
      if (before === undefined) slot.after = beside
      slots.splice(before === undefined ? slots.indexOf(lastAfter(slots, beside)) + 1 : slots.indexOf(beside), 0, slot)
      return slot
    }
    return null
  }
}
