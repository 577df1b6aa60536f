/** The tree of the routes of one host, keyed by folded segments of their paths. */
import type { Condition, Conditions } from './match-conditions.ts'
import type { Part, PathPattern } from './path-pattern.ts'
import type { Folding, PathReadings } from './path-reading.ts'
import { fold } from './path-reading.ts'

export interface Entry<T> {
  readonly value: T
  readonly pattern: PathPattern
  readonly methods: ReadonlySet<string>
  readonly answersPreflights: boolean
  readonly protection: unknown
  /** Equal for routes at one node whose paths match the same requests. */
  readonly key: string
  /** True if a plain path (unchanged by folding) that reaches the route in the tree always matches exactly. */
  readonly plain: boolean
  /** Returns whether unfolded segments that reached the route match exactly; `partial`: length of a partial last part. */
  readonly fits: (segments: readonly string[], partial: number) => boolean
}

/** Routes with the same conditions, except for the values of headers. */
export interface Group<T> {
  /** Headers with an exact value. */
  readonly names: readonly string[]
  /** Conditions besides these; null for most routes. */
  readonly others: readonly Condition[] | null
  /** Number of all conditions, and of those for an exact value. */
  readonly rank: readonly [all: number, exact: number]
  readonly whole: boolean
  /** By the values of the headers. */
  readonly entries: Map<string, Entry<T>[]>
}

export interface Node<T> {
  texts: Map<string, Node<T>> | null
  patterns: { readonly source: string; readonly fixed: number; readonly loose: RegExp; readonly node: Node<T> }[] | null
  any: Node<T> | null
  partials: { readonly text: string; readonly groups: Group<T>[] }[] | null
  /** Groups of routes for paths that end at this node, in the order of precedence. */
  readonly atEnd: Group<T>[]
  /** Groups of routes for paths that continue below this node. */
  readonly beyond: Group<T>[]
}

export class RouteNode<T> implements Node<T> {
  texts: Node<T>['texts'] = null
  patterns: Node<T>['patterns'] = null
  any: Node<T> | null = null
  partials: Node<T>['partials'] = null
  readonly atEnd: Group<T>[] = []
  readonly beyond: Group<T>[] = []
}

export function entryOf<T>(
  fields: Pick<Entry<T>, 'value' | 'pattern' | 'methods' | 'answersPreflights' | 'protection'>,
  readings: PathReadings
): Entry<T> {
  const { parts, end, trailingSlash } = fields.pattern
  const ignored: Folding = { case: readings.case === 'ignore', dot: readings.trailingDot === 'ignore' }
  const loose: Folding = { case: readings.case !== 'distinct', dot: readings.trailingDot !== 'distinct' }
  const isFolded = (part: Part) => part.kind === 'text' && fold(part.text, loose) === part.text
  const whole = parts.every((part) => part.kind === 'any' || isFolded(part))
  const tests = parts.map((part, at) => testOf(part, ignored, end === 'partial' && at === parts.length - 1))
  return {
    ...fields,
    key: JSON.stringify([
      parts.map((part) => (part.kind === 'text' ? fold(part.text, ignored) : part.kind)),
      trailingSlash && readings.trailingSlash !== 'ignore'
    ]),
    plain: whole && !trailingSlash && (end === 'whole' || end === 'prefix'),
    fits: (segments, partial) =>
      tests.every((test, at) =>
        test(partial > 0 && at === tests.length - 1 ? segments.slice(at).join('/') : (segments[at] ?? ''))
      )
  }
}

function testOf(part: Part, ignored: Folding, partial: boolean): (segment: string) => boolean {
  if (part.kind === 'any') return () => true
  if (part.kind === 'regex') {
    const regex = ignored.case ? new RegExp(part.regex, 'i') : part.regex
    return (segment) => regex.test(segment)
  }
  if (partial) {
    const start = fold(part.text, { ...ignored, dot: false })
    return (rest) => fold(rest, { ...ignored, dot: false }).startsWith(start)
  }
  const text = fold(part.text, ignored)
  return (segment) => segment === part.text || fold(segment, ignored) === text
}

/** Returns the node at which a pattern ends; creates missing nodes. */
export function nodeFor<T>(tree: Node<T>, { parts, end }: PathPattern, loose: Folding): Node<T> {
  let node = tree
  for (const part of end === 'partial' ? parts.slice(0, -1) : parts) node = childFor(node, part, loose)
  return node
}

function childFor<T>(node: Node<T>, part: Part, loose: Folding): Node<T> {
  if (part.kind === 'any') {
    node.any ??= new RouteNode()
    return node.any
  }
  if (part.kind === 'text') {
    const text = fold(part.text, loose)
    node.texts ??= new Map()
    const child = node.texts.get(text) ?? new RouteNode<T>()
    node.texts.set(text, child)
    return child
  }
  node.patterns ??= []
  const { regex, fixed } = part
  const { source } = regex
  const known = node.patterns.find((pattern) => pattern.source === source)
  if (known !== undefined) return known.node
  const made = { source, fixed, loose: loose.case ? new RegExp(regex, 'i') : regex, node: new RouteNode<T>() }
  node.patterns.push(made)
  // More static text is more specific.
  node.patterns.sort((a, b) => b.fixed - a.fixed)
  return made.node
}

/** Adds a route to the node at which its path ends. Returns a route that matches some of the same requests, if there is one. */
export function addEntry<T>(
  node: Node<T>,
  entry: Entry<T>,
  { names, values, others }: Conditions,
  loose: Folding
): Entry<T> | undefined {
  const keys = others.map(({ key }) => key)
  const whole = entry.pattern.end === 'whole'
  const lists =
    entry.pattern.end === 'partial' ? [partialOf(node, entry, loose)] : whole ? [node.atEnd] : [node.atEnd, node.beyond]
  let other: Entry<T> | undefined
  const keysOf = (group: Group<T>) => group.others?.map(({ key }) => key) ?? []
  let group = lists[0]!.find((each) => each.whole === whole && isSame(each.names, names) && isSame(keysOf(each), keys))
  if (group === undefined) {
    const exact = names.length + others.filter(({ isExact }) => isExact).length
    const rank = [names.length + others.length, exact] as const
    group = { names, others: others.length === 0 ? null : others, rank, whole, entries: new Map() }
    for (const list of lists) insert(list, group)
  }
  const entries = group.entries.get(values)
  if (entries === undefined) group.entries.set(values, [entry])
  else {
    other = entries.find((each) => overlap(each, entry))
    entries.push(entry)
  }
  return other
}

function partialOf<T>(node: Node<T>, { pattern }: Entry<T>, loose: Folding): Group<T>[] {
  const last = pattern.parts.at(-1)
  const text = last?.kind === 'text' ? fold(last.text, { ...loose, dot: false }) : ''
  node.partials ??= []
  let partial = node.partials.find((each) => each.text === text)
  if (partial === undefined) {
    partial = { text, groups: [] }
    node.partials.push(partial)
    node.partials.sort((a, b) => b.text.length - a.text.length)
  }
  return partial.groups
}

/**
 * Inserts a group by precedence: more conditions first, then more exact ones, then whole paths before prefixes, then later
 * before earlier.
 */
function insert<T>(list: Group<T>[], group: Group<T>): void {
  const { whole } = group
  const [all, exact] = group.rank
  const before = ({ rank, ...each }: Group<T>) => {
    if (rank[0] !== all) return rank[0] > all
    return rank[1] !== exact ? rank[1] > exact : each.whole && !whole
  }
  const at = list.findIndex((each) => !before(each))
  list.splice(at === -1 ? list.length : at, 0, group)
}

const isSame = (a: readonly string[], b: readonly string[]) =>
  a.length === b.length && a.every((name, at) => name === b[at])

function overlap<T>(a: Entry<T>, b: Entry<T>): boolean {
  return a.key === b.key && [...a.methods].some((method) => b.methods.has(method))
}
