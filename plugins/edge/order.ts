import type { RouteOptions } from 'fastify'
import type { Config, EdgePolicy } from '../../config/schema.ts'
import type { ApiFacts } from './api-facts.ts'
import type { EdgeConcern, Example, ShownRoute } from './concern.ts'
import { attachWaiting } from './consumers/hook-chain.ts'

type OnRoute = (route: RouteOptions) => void
type Shown = Pick<EdgeConcern, 'name' | 'isOn' | 'isShadow' | 'explain' | 'apiFacts' | 'keys' | 'ownRoutes'>

/** A position relative to a concern; exactly one of the two keys. */
export interface Order {
  readonly before?: string
  readonly after?: string
}

declare module 'fastify' {
  interface FastifyInstance {
    edgeOrder: EdgeOrder
  }
}

/** Returns the key of a concern; null for a concern that acts on all requests, before the hooks of routes: it has no position. */
const keyOf = ({ keys }: Shown) => keys.find(({ levels }) => levels.includes('route'))?.name ?? null

const attachNothing: OnRoute = () => {}

/** A position at which other code attaches hooks to routes. */
class Slot {
  /** The user's concern at this position; null for other hooks. */
  readonly concern: Shown | null
  /** The slot of the user's concern after which this slot was placed. */
  after: Slot | null = null
  attach = attachNothing

  constructor(concern: Shown | null) {
    this.concern = concern
  }
}

/** Returns the last slot that was placed after `slot`, directly or through another slot; `slot` itself if there is none. */
function lastAfter(slots: readonly Slot[], slot: Slot): Slot {
  const last = slots.findLast(({ after }) => after === slot)
  return last === undefined ? slot : lastAfter(slots, last)
}

/** The edge's concerns in order, with positions among them for concerns and hooks of users. */
export class EdgeOrder {
  readonly #concerns: readonly Shown[]
  readonly #listeners: Config['listeners']
  readonly #edge: EdgePolicy
  /** By index: the slots before the concern with that index. The last entry has the slots after all concerns. */
  readonly #slots: Slot[][]

  constructor(concerns: readonly Shown[], listeners: Config['listeners'] = [], edge: EdgePolicy = {}) {
    this.#concerns = concerns
    this.#listeners = listeners
    this.#edge = edge
    this.#slots = Array.from({ length: concerns.length + 1 }, () => [])
  }

  /** Keys of the concerns that have a position. */
  get names(): string[] {
    return this.concerns.flatMap((concern) => keyOf(concern) ?? [])
  }

  /** Returns the names of the concerns in force on a route, in order, with ` (shadow)` after those in shadow mode. */
  namesOn(route: ShownRoute): string[] {
    return this.concerns.flatMap(({ name, isOn, isShadow }) =>
      isOn(route, this.#listeners) ? [isShadow?.(route, this.#edge) ? `${name} (shadow)` : name] : []
    )
  }

  /** Returns what the concerns of a route would do with a request, by their names, as far as they say it. */
  explain(route: ShownRoute, example: Example): [name: string, text: string][] {
    return this.concerns.flatMap(({ name, explain }) => {
      const text = explain?.(route, example, this.#edge) ?? null
      return text === null ? [] : [[name, text]]
    })
  }

  /** Returns the facts of the concerns of a route for its OpenAPI document. */
  apiFacts(route: ShownRoute): ApiFacts[] {
    return this.concerns.flatMap(({ apiFacts }) => apiFacts?.(route) ?? [])
  }

  /** Returns whether a concern may refuse some callers of a route, apart from those that every route has. */
  isGuarded({ edge }: ShownRoute): boolean {
    const keys = this.concerns.flatMap((concern) => concern.keys)
    return keys.some(
      ({ name, protects, default: always }) => protects !== false && always === undefined && Reflect.get(edge, name)
    )
  }

  /** All concerns in order. Users' concerns are included before the first plugin starts. */
  get concerns(): Shown[] {
    return this.#slots.flatMap((slots, index) => {
      const own = this.#concerns[index]
      return [...slots.flatMap(({ concern }) => concern ?? []), ...(own === undefined ? [] : [own])]
    })
  }

  /** Returns whether a concern attaches hooks to routes yet: a user's concern does so once its plugin has started. */
  hasStarted(key: string): boolean {
    const slots = this.#slots.flat().filter(({ concern }) => concern !== null && keyOf(concern) === key)
    return slots.every(({ attach }) => attach !== attachNothing)
  }

  /** Returns the `onRoute` hook to add before the concern at `index`. */
  hookAt(index: number): OnRoute {
    const slots = this.#slots[index]!
    return (route) => {
      for (const slot of slots) {
        attachWaiting(route)
        slot.attach(route)
      }
    }
  }

  /**
   * Makes a position before or after a concern; with a null `order`, after all concerns. Slots at the same position keep
   * the order of their creation. Returns null if no concern has this key, or none has it yet.
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
