/** The operations of a rule, compiled into functions that change a document. */
import { membersOf } from '../../../../config/json-pointer.ts'
import type { Document, Part, Value } from './document.ts'
import { objectWithoutMembers } from './document.ts'
import { Unfit } from './scan.ts'

/** A member of a pointer. */
interface Segment {
  readonly text: string
  /** The name as bytes of JSON, with its quotes. */
  readonly name: Buffer
  /** Index of an item; null if it is none. */
  readonly index: number | null
  /** Stands for all members and items. */
  readonly isStar: boolean
}

export type Pointer = readonly Segment[]

const index = /^(?:0|[1-9]\d{0,8})$/

/** Compiles a JSON pointer, in which a member `*` stands for all members or items. */
export const pointerOf = (text: string): Pointer =>
  membersOf(text).map((member) => ({
    text: member,
    name: Buffer.from(JSON.stringify(member)),
    index: index.test(member) ? Number(member) : null,
    isStar: member === '*'
  }))

/** Returns the part that a segment names. Throws `Unfit` if an object has several of the name: parsers differ in which one counts. */
function find(document: Document, value: Value, segment: Segment): Part | undefined {
  const parts = value.parts(document)
  if (value.isList) return segment.index === null ? undefined : parts[segment.index]
  let found: Part | undefined
  for (const part of parts) {
    if (!part.isNamed(segment.name)) continue
    if (found !== undefined) throw new Unfit('duplicate')
    found = part
  }
  return found
}

/** Returns the parts that a segment names. */
function matching(document: Document, value: Value, segment: Segment): readonly Part[] {
  if (segment.isStar) return value.parts(document)
  const part = find(document, value, segment)
  return part === undefined ? [] : [part]
}

/** Marks a value as changed if one of its parts is. */
function adopt(value: Value, parts: readonly Part[]): void {
  if (!value.isChanged && parts.some((part) => part.value.isChanged)) value.markChanged()
}

/** Removes the values at a pointer, which has a member. */
export function remove(document: Document, value: Value, pointer: Pointer, at = 0): void {
  const found = matching(document, value, pointer[at]!)
  if (found.length === 0) return
  if (at < pointer.length - 1) {
    for (const part of found) remove(document, part.value, pointer, at + 1)
    adopt(value, found)
  } else if (pointer[at]!.isStar) value.keep(document, () => false)
  else value.keep(document, (part) => part !== found[0])
}

/** Pointers by which members are kept; null keeps the whole value. */
export type Kept = { readonly names: readonly (readonly [Segment, Kept])[]; readonly all: Kept | undefined } | null

/** Joins pointers that begin alike. */
export function keptBy(pointers: readonly Pointer[]): Kept {
  if (pointers.some((pointer) => pointer.length === 0)) return null
  const groups = Map.groupBy(pointers, ([first]) => first!.text)
  const inner = (group: readonly Pointer[]) => keptBy(group.map((pointer) => pointer.slice(1)))
  const names = [...groups].filter(([text]) => text !== '*').map(([, group]) => [group[0]![0]!, inner(group)] as const)
  const all = groups.get('*')
  return { names, all: all && inner(all) }
}

/**
 * Keeps the members that a list of pointers names. Returns false if nothing of the value is kept. Items that are lists or
 * objects stay even if they are empty then, so that the others keep their places.
 */
export function keepOnly(document: Document, value: Value, kept: Kept): boolean {
  if (kept === null) return true
  const { isList } = value
  if (!isList && !value.isObject) return false
  const rules = new Map<Part, Kept>()
  if (kept.all !== undefined) for (const part of value.parts(document)) rules.set(part, kept.all)
  for (const [segment, inner] of kept.names) {
    const part = find(document, value, segment)
    if (part !== undefined) rules.set(part, inner)
  }
  value.keep(document, (part) => {
    const inner = rules.get(part)
    if (inner === undefined) return false
    const isKept = keepOnly(document, part.value, inner)
    return isKept || (isList && (part.value.isObject || part.value.isList))
  })
  const parts = value.parts(document)
  adopt(value, parts)
  return parts.length > 0
}

/** Returns whether a value has members or items that a segment may name. */
const holds = (value: Value, { isStar, index }: Segment): boolean =>
  value.isObject || (value.isList && (isStar || index !== null))

/** Makes a value for one place. It is called once for each, since places of one value would change together. */
export type Make = () => Value

/**
 * Puts a value at a pointer. Missing parents become objects. `isForced`: it replaces a value that is there, and a parent that
 * can have no such member. A `*` stands for what is there, and adds nothing.
 */
export function put(
  document: Document,
  value: Value,
  pointer: Pointer,
  make: Make,
  isForced: boolean,
  from: number
): void {
  const segment = pointer[from]!
  const isLast = from === pointer.length - 1
  const found = matching(document, value, segment)
  if (found.length === 0) {
    const isNext = !value.isList || segment.index === value.parts(document).length
    if (segment.isStar || !isNext || pointer.slice(from + 1).some(({ isStar }) => isStar)) return
    const added = isLast ? make() : objectWithoutMembers()
    if (!isLast) put(document, added, pointer, make, isForced, from + 1)
    value.append(document, value.isList ? null : segment.name, added)
    return
  }
  for (const part of found) {
    if (isLast) {
      if (isForced) value.replace(part, make())
      continue
    }
    const next = pointer[from + 1]!
    if (!holds(part.value, next)) {
      if (!isForced || next.isStar) continue
      value.replace(part, objectWithoutMembers())
    }
    put(document, part.value, pointer, make, isForced, from + 1)
  }
  adopt(value, found)
}

/** Puts a value at a pointer, which may be that of the whole document. */
export function putAt(document: Document, pointer: Pointer, make: Make, isForced: boolean): void {
  const [first] = pointer
  if (first === undefined) {
    if (isForced) document.replaceRoot(make())
    return
  }
  if (!holds(document.root, first)) {
    if (!isForced || first.isStar) return
    document.replaceRoot(objectWithoutMembers())
  }
  put(document, document.root, pointer, make, isForced, 0)
}

/** A move between two pointers, divided at the last `*`: for each value at `base`, `from` becomes `to`. */
export interface Move {
  readonly base: Pointer
  readonly from: Pointer
  readonly to: Pointer
}

/** Compiles a move. Throws an error whose message is the fault. */
export function moveBetween(source: string, target: string): Move {
  const [from, to] = [pointerOf(source), pointerOf(target)]
  const length = from.findLastIndex(({ isStar }) => isStar) + 1
  const isSame =
    from.slice(0, length).every(({ text }, at) => text === to[at]?.text) &&
    !to.slice(length).some(({ isStar }) => isStar)
  if (!isSame) throw new Error(`"${source}" and "${target}" must be equal up to the last "*"`)
  if (from.length === length || to.length === length) {
    if (length > 0) throw new Error(`name a member below "*" in both pointers`)
  }
  return { base: from.slice(0, length), from: from.slice(length), to: to.slice(length) }
}

/** Moves values. All are taken from their places before the first is put to its new one, so two names can be swapped. */
export function moveAll(document: Document, moves: readonly Move[]): void {
  const puts: (() => void)[] = []
  for (const { base, from, to } of moves) {
    if (base.length === 0) {
      if (from.length > 0 && to.length > 0 && !holds(document.root, to[0]!)) continue
      const taken = from.length === 0 ? document.root : take(document, document.root, from)
      if (taken === undefined) continue
      if (from.length === 0) document.replaceRoot(objectWithoutMembers())
      puts.push(() => putAt(document, to, () => taken, true))
      continue
    }
    each(document, document.root, base, (value) => {
      const taken = holds(value, from[0]!) && holds(value, to[0]!) ? take(document, value, from) : undefined
      if (taken !== undefined) puts.push(() => put(document, value, to, () => taken, true, 0))
    })
  }
  for (const run of puts) run()
  for (const { base } of moves) markAll(document, document.root, base)
}

/** Calls a function with each value at a pointer. */
function each(document: Document, value: Value, pointer: Pointer, call: (value: Value) => void, at = 0): void {
  if (at === pointer.length) call(value)
  else for (const part of matching(document, value, pointer[at]!)) each(document, part.value, pointer, call, at + 1)
}

/** Marks the values above changed ones. */
function markAll(document: Document, value: Value, pointer: Pointer, at = 0): void {
  if (at === pointer.length) return
  const found = matching(document, value, pointer[at]!)
  for (const part of found) markAll(document, part.value, pointer, at + 1)
  adopt(value, found)
}

/** Removes the value at a pointer without `*`, and returns it; undefined if there is none. */
function take(document: Document, value: Value, pointer: Pointer, at = 0): Value | undefined {
  const part = find(document, value, pointer[at]!)
  if (part === undefined) return undefined
  if (at === pointer.length - 1) {
    value.keep(document, (each) => each !== part)
    return part.value
  }
  const taken = take(document, part.value, pointer, at + 1)
  adopt(value, [part])
  return taken
}

/** Orders pointers so that a removed item moves none that is still to be removed. */
export function lastItemsFirst(a: Pointer, b: Pointer): number {
  for (let at = 0; at < a.length && at < b.length; at++) {
    const [one, other] = [a[at]!, b[at]!]
    if (one.index !== null && other.index !== null && one.index !== other.index) return other.index - one.index
    if (one.text !== other.text) return one.text < other.text ? -1 : 1
  }
  return 0
}
