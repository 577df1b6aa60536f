/** JSON pointers (RFC 6901) of composed routes. In `pick`, `drop`, `rename` and `edit`, a member `*` stands for all items. */
import { segmentsOf } from './faults.ts'

/** Returns the members of a pointer; a text without a slash at its beginning is the name of one member. */
export function membersOf(text: string): string[] {
  if (text === '') return []
  return text.startsWith('/') ? segmentsOf(text) : [text]
}

/** Index of an item of a list in a pointer. */
const index = /^(0|[1-9]\d{0,9})$/

/**
 * Returns the value at a pointer; undefined if there is none. Only own members count: `constructor` or `__proto__` of a
 * value that lacks such a member is missing.
 */
export function valueAt(value: unknown, members: readonly string[]): unknown {
  let found = value
  for (const member of members) {
    if (typeof found !== 'object' || found === null) return undefined
    if (Array.isArray(found) ? !index.test(member) : !Object.hasOwn(found, member)) return undefined
    found = Reflect.get(found, member)
  }
  return found
}

/** Returns a list of the values that a pointer with `*` matches, or the value at a pointer without. */
export function allAt(value: unknown, members: readonly string[]): unknown {
  const star = members.indexOf('*')
  if (star === -1) return valueAt(value, members)
  const holder = valueAt(value, members.slice(0, star))
  if (typeof holder !== 'object' || holder === null) return undefined
  const rest = members.slice(star + 1)
  const found = Object.values(holder).map((item) => allAt(item, rest))
  return (rest.includes('*') ? found.flat() : found).filter((item) => item !== undefined)
}

/** Returns whether all values at one pointer are at another one, or within it. */
export const covers = (outer: readonly string[], inner: readonly string[]): boolean =>
  outer.length <= inner.length && outer.every((member, at) => member === '*' || member === inner[at])

/** Returns whether two pointers may name the same value, or one a value within the other's. */
export const meet = (a: readonly string[], b: readonly string[]): boolean =>
  a.slice(0, b.length).every((member, at) => member === '*' || b[at] === '*' || member === b[at])

/** A move between two pointers, divided at the last `*`: for each item below `base`, `from` becomes `to`. */
export interface Move {
  readonly base: readonly string[]
  readonly from: readonly string[]
  readonly to: readonly string[]
}

/** Divides the pointers of a move. Throws an error whose message is the fault. */
export function moveOf(from: string, to: string): Move {
  const [source, target] = [membersOf(from), membersOf(to)]
  const star = source.lastIndexOf('*')
  const base = source.slice(0, star + 1)
  const isSame = base.every((member, at) => member === target[at]) && !target.slice(base.length).includes('*')
  if (!isSame) throw new Error(`"${from}" and "${to}" must be equal up to the last "*"`)
  const move = { base, from: source.slice(base.length), to: target.slice(base.length) }
  if (move.from.length === 0 || move.to.length === 0) throw new Error('name a member; the whole value cannot be moved')
  return move
}
