/**
 * Reads and changes members of JSON values. A member named `__proto__` is data like any other: it is never assigned, which
 * would change the prototype of the object, and inherited members are never read.
 */
import type { Move } from '../../config/json-pointer.ts'
import { valueAt } from '../../config/json-pointer.ts'
import { textOfNumber } from './raw-number.ts'

export type JsonObject = Record<string, unknown>

export const isObject = (value: unknown): value is JsonObject =>
  typeof value === 'object' && value !== null && !Array.isArray(value) && textOfNumber(value) === undefined

/** Sets an own member. */
export function setOwn(object: object, name: string, value: unknown): void {
  if (name !== '__proto__') Reflect.set(object, name, value)
  else Object.defineProperty(object, name, { value, writable: true, enumerable: true, configurable: true })
}

/** Puts a value at a place below an object, and creates the objects on the way. Two objects at one place are merged. */
export function place(object: JsonObject, members: readonly string[], value: unknown): void {
  let holder: object = object
  for (const member of members.slice(0, -1)) {
    const inner: unknown = Object.hasOwn(holder, member) ? Reflect.get(holder, member) : undefined
    if (typeof inner === 'object' && inner !== null) holder = inner
    else {
      const created = {}
      setOwn(holder, member, created)
      holder = created
    }
  }
  const last = members.at(-1)
  if (last === undefined) merge(object, value)
  else {
    const before: unknown = Object.hasOwn(holder, last) ? Reflect.get(holder, last) : undefined
    if (isObject(before) && isObject(value)) merge(before, value)
    else setOwn(holder, last, value)
  }
}

/** Copies the members of a value to an object; members of the value win. */
function merge(object: JsonObject, value: unknown): void {
  if (!isObject(value)) return
  for (const name of Object.keys(value)) setOwn(object, name, value[name])
}

/** Removes the value at a place and returns it; undefined if there is none. */
function take(holder: unknown, members: readonly string[]): unknown {
  const owner = valueAt(holder, members.slice(0, -1))
  const last = members.at(-1)!
  const value = valueAt(owner, [last])
  if (value === undefined) return undefined
  if (Array.isArray(owner)) owner.splice(Number(last), 1)
  else Reflect.deleteProperty(owner as object, last)
  return value
}

/** Calls a function for each value that a pointer with `*` matches. */
function forEachAt(value: unknown, members: readonly string[], use: (found: unknown) => void): void {
  const star = members.indexOf('*')
  if (star === -1) {
    const found = valueAt(value, members)
    if (found !== undefined) use(found)
    return
  }
  const holder = valueAt(value, members.slice(0, star))
  if (typeof holder !== 'object' || holder === null) return
  for (const item of Object.values(holder)) forEachAt(item, members.slice(star + 1), use)
}

/** Calls a function for each object or list that may have the last member of a pointer. */
function forEachOwner(value: unknown, members: readonly string[], use: (owner: object) => void): void {
  forEachAt(value, members.slice(0, -1), (owner) => {
    if (typeof owner === 'object' && owner !== null) use(owner)
  })
}

/** Moves values. All are removed before the first is put back, so that two members can be exchanged. */
export function moveAll(value: unknown, moves: readonly Move[]): void {
  const taken: (() => void)[] = []
  for (const { base, from, to } of moves) {
    forEachAt(value, base, (holder) => {
      if (!isObject(holder)) return
      const moved = take(holder, from)
      if (moved !== undefined) taken.push(() => place(holder, to, moved))
    })
  }
  for (const put of taken) put()
}

export function removeAll(value: unknown, members: readonly string[]): void {
  const last = members.at(-1)!
  forEachOwner(value, members, (owner) => {
    if (last !== '*') take(owner, [last])
    else if (Array.isArray(owner)) owner.length = 0
    else for (const name of Object.keys(owner)) Reflect.deleteProperty(owner, name)
  })
}

/** Moves the items of a list to the end of another; a value that is no list counts as a list of one. */
export function append(value: unknown, { base, from, to }: Move): void {
  forEachAt(value, base, (holder) => {
    if (!isObject(holder)) return
    const more = take(holder, from)
    if (more === undefined) return
    const list = valueAt(holder, to)
    place(holder, to, [...(list === undefined ? [] : [list].flat()), ...[more].flat()])
  })
}

/** Joins the lists that a pointer matches into one, at another place; without it, joins the lists within each list. */
export function flatten(value: unknown, members: readonly string[], to: readonly string[] | null): void {
  if (to === null) {
    const last = members.at(-1)!
    forEachOwner(value, members, (owner) => {
      for (const name of last === '*' ? Object.keys(owner) : [last]) {
        const list = valueAt(owner, [name])
        if (Array.isArray(list)) setOwn(owner, name, list.flat())
      }
    })
    return
  }
  const all: unknown[] = []
  forEachAt(value, members, (found) => {
    for (const item of [found].flat()) all.push(item)
  })
  removeAll(value, members)
  if (isObject(value)) place(value, to, all)
}
