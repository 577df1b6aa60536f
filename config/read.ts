/** Converts parsed YAML to plain data, substitutes environment variables, and finds the places of values. */
import type { ScalarEvent, ScalarTagDefinition } from 'js-yaml'
import { CORE_SCHEMA, EVENT_ID, getScalarValue, NOT_RESOLVED, SCALAR_STYLE } from 'js-yaml'
import type { Steps } from '../plugins/time-slices.ts'
import { dashOf } from './empty-item.ts'
import { substitute, unmask } from './env.ts'
import type { Place, Position, Report } from './faults.ts'
import { pointer, segmentsOf } from './faults.ts'
import type { YamlSource } from './yaml-source.ts'
import { starAdvice } from './yaml-source.ts'

/**
 * Maximum number of values from aliases: a constant, plus some for each alias in the file. Nested aliases could otherwise
 * expand a short file without bound; values that are written out are bounded by the length of the file.
 */
const MOST_ALIASED = { inAll: 100_000, perAlias: 100 }
/** Marks the value of a key that is left out: `token: ${TOKEN:-}`. */
const OMITTED = Symbol('omitted')

const scalarTags = CORE_SCHEMA.tags.filter((tag): tag is ScalarTagDefinition => tag.nodeKind === 'scalar')
const implicitTags = scalarTags.filter((tag) => tag.implicit)
/** Full names of the tags `!!name` and `!`. */
const tagNames: Readonly<Record<string, string>> = { '!!': 'tag:yaml.org,2002:', '!': 'tag:yaml.org,2002:str' }

/** Converts a document. `env` is null if it may have no variables; `empty` is the fault of an empty one. */
export function* read(
  source: YamlSource,
  env: NodeJS.ProcessEnv | null,
  report: Report,
  empty = 'the file is empty; write {} for a configuration without settings'
): Steps<unknown> {
  // Event 0 opens the document; its content begins at event 1.
  const data = source.isEmpty ? null : yield* new Reader(source, env, report).value(1, '')
  if (data === null) {
    report.fault('', empty)
    report.throwIfAny()
  }
  return data
}

/** Depth up to which the reader may pause between items: between routes and between services, but not within them. */
const PAUSING = 2

class Reader {
  readonly #source: YamlSource
  readonly #env: NodeJS.ProcessEnv | null
  readonly #report: Report
  /** Collections that are being read, to detect recursive aliases. */
  readonly #open = new Set<number>()
  /** Items of mappings and lists whose places were requested. */
  readonly #pairs = new Map<number, ReadonlyMap<string, number>>()
  readonly #items = new Map<number, readonly number[]>()
  /** Current depth of aliases. */
  #aliases = 0
  #aliased = 0
  readonly #mostAliased: number

  constructor(source: YamlSource, env: NodeJS.ProcessEnv | null, report: Report) {
    this.#source = source
    this.#env = env
    this.#report = report
    report.locateBy((at) => this.#locate(at))
    this.#mostAliased = MOST_ALIASED.inAll + source.aliases * MOST_ALIASED.perAlias
  }

  /**
   * Returns the value of an item: a node, or the target of an alias. A target is read again for each alias, since units of a
   * shared object would be converted twice.
   */
  *value(item: number, at: string): Steps<unknown> {
    const index = this.#source.resolved(item)
    if (index === undefined) return this.#unknownAlias(item, at)
    if (index !== item) return yield* this.#aliasedNode(index, at)
    if (this.#aliases > 0) this.#countAliased()
    return yield* this.#node(index, at)
  }

  /** Returns the value of a node from an alias or a merge. */
  *#aliasedNode(index: number, at: string): Steps<unknown> {
    this.#aliases++
    this.#countAliased()
    const value = yield* this.#node(index, at)
    this.#aliases--
    return value
  }

  *#node(index: number, at: string): Steps<unknown> {
    const type = this.#source.type(index)
    if (type === EVENT_ID.SCALAR) return this.#scalar(index, at)
    if (type !== EVENT_ID.SEQUENCE && type !== EVENT_ID.MAPPING) return null
    if (this.#open.has(index)) {
      this.#report.fault(at, 'recursive alias: this alias refers to a node that contains it')
      return null
    }
    this.#open.add(index)
    const isList = type === EVENT_ID.SEQUENCE
    const result = yield* isList ? this.#list(index, at) : this.#map(index, at)
    this.#open.delete(index)
    const tag = this.#source.tag(index)
    if (tag !== '' && tag !== (isList ? '!!seq' : '!!map')) this.#report.fault(at, `unknown tag ${tag}`)
    return result
  }

  /** Returns the value of an item of a collection; pauses before it at a low depth. */
  *#item(item: number, at: string): Steps<unknown> {
    if (this.#open.size <= PAUSING) yield
    return yield* this.value(item, at)
  }

  #isLeaf(item: number): boolean {
    return this.#source.type(item) === EVENT_ID.SCALAR
  }

  /** Returns the value of a scalar item without a generator: most items are scalars, and a generator would cost more than the work. */
  #leaf(item: number, at: string): unknown {
    if (this.#aliases > 0) this.#countAliased()
    return this.#scalar(item, at)
  }

  #unknownAlias(item: number, at: string): null {
    const name = this.#source.anchor(item)
    this.#report.fault(at, `unknown alias "*${name}"${/^[\w-]+$/.test(name) ? '' : `; ${starAdvice}`}`)
    return null
  }

  #locate(at: string): Place | undefined {
    let item: number | undefined = 1
    let hasKey = false
    let dash: Position | null = null
    for (const segment of segmentsOf(at)) {
      const index = this.#source.resolved(item)
      const type = index === undefined ? undefined : this.#source.type(index)
      hasKey = type === EVENT_ID.MAPPING
      if (index !== undefined && hasKey) item = this.#pairsOf(index).get(segment)
      else if (index !== undefined && type === EVENT_ID.SEQUENCE) item = this.#itemsOf(index)[Number(segment)]
      else return undefined
      if (item === undefined) return undefined
      dash = hasKey || this.#source.start(item) !== null ? null : dashOf(this.#source, index, Number(segment))
    }
    return this.#place(item, hasKey, dash)
  }

  #place(item: number, hasKey: boolean, dash: Position | null = null): Place {
    // In a mapping, the event before a value is its key.
    const key = hasKey ? (this.#source.start(item - 1) ?? undefined) : undefined
    // An empty value has no position; that of its key or dash is used.
    const start = this.#source.start(item) ?? key ?? dash ?? { line: 1, column: 1 }
    const index = this.#source.resolved(item) ?? item
    const type = this.#source.type(index)
    const isList = type === EVENT_ID.SEQUENCE
    if (type !== EVENT_ID.SCALAR) return { ...start, key, isList }
    const text = this.#text(this.#source.scalar(index))
    return { ...start, key, isList, text, from: substitute(text, this.#env).changed ? text : undefined }
  }

  #pairsOf(mapping: number): ReadonlyMap<string, number> {
    const pairs = this.#pairs.get(mapping) ?? this.#entries(mapping, null)
    this.#pairs.set(mapping, pairs)
    return pairs
  }

  #itemsOf(list: number): readonly number[] {
    const items = this.#items.get(list) ?? this.#source.items(list)
    this.#items.set(list, items)
    return items
  }

  *#list(index: number, at: string): Steps<unknown[]> {
    const items: unknown[] = []
    for (const item of this.#source.items(index)) {
      const below = pointer(at, items.length)
      const value = this.#isLeaf(item) ? this.#leaf(item, below) : yield* this.#item(item, below)
      items.push(value === OMITTED ? null : value)
    }
    return items
  }

  *#map(index: number, at: string): Steps<object> {
    const result: Record<string, unknown> = {}
    for (const [name, item] of this.#entries(index, at)) {
      const isMerged = !this.#source.holds(index, item)
      const node = isMerged ? this.#source.resolved(item) : undefined
      const below = pointer(at, name)
      const value =
        node !== undefined
          ? yield* this.#aliasedNode(node, below)
          : this.#isLeaf(item)
            ? this.#leaf(item, below)
            : yield* this.#item(item, below)
      if (value === OMITTED) continue
      // A plain assignment would set the prototype.
      if (name === '__proto__') {
        Object.defineProperty(result, name, { value, enumerable: true, writable: true, configurable: true })
      } else result[name] = value
    }
    return result
  }

  /**
   * Returns the items of a mapping by key; keys from `<<` come first, and its own keys replace them. Faults are reported for
   * the mapping at a pointer; for null, none is reported.
   */
  #entries(mapping: number, at: string | null): Map<string, number> {
    const own = new Map<string, number>()
    const items = this.#source.items(mapping)
    for (let index = 0; index < items.length; index += 2) {
      const [key, item] = [items[index]!, items[index + 1]!]
      if (this.#source.type(key) !== EVENT_ID.SCALAR) {
        if (at !== null) this.#faultAtKey(key, 'a key must be plain text')
        continue
      }
      const name = this.#text(this.#source.scalar(key))
      const before = own.get(name)
      if (before === undefined) own.set(name, item)
      else if (at !== null) {
        const { line } = this.#place(before, true).key!
        const message = `duplicate key; it is also on line ${line}`
        this.#report.fault(pointer(at, name), message, this.#place(item, true).key)
      }
    }
    const entries = new Map<string, number>()
    const merge = own.get('<<')
    own.delete('<<')
    if (merge !== undefined) this.#merge(merge, at, merge - 1, entries)
    for (const [name, item] of own) entries.set(name, item)
    return entries
  }

  /** Adds the keys of a `<<`; `key` is the item of the `<<` itself. */
  #merge(item: number, at: string | null, key: number, into: Map<string, number>): void {
    const index = this.#source.resolved(item)
    const type = index === undefined ? undefined : this.#source.type(index)
    const isAlias = index !== item
    if (isAlias) this.#aliases++
    // Every merge is counted, since even empty mappings cost time.
    if (this.#aliases > 0 && at !== null) this.#countAliased()
    if (index !== undefined && type === EVENT_ID.SEQUENCE) {
      for (const each of this.#source.items(index)) this.#merge(each, at, key, into)
    } else if (index === undefined || type !== EVENT_ID.MAPPING || this.#open.has(index)) {
      if (at !== null) this.#faultAtKey(key, 'only mappings can be merged by "<<"')
    } else {
      this.#open.add(index)
      // Of several merged mappings, the first one with a key wins.
      const pairs = at === null ? this.#pairsOf(index) : this.#entries(index, at)
      for (const [name, each] of pairs) if (!into.has(name)) into.set(name, each)
      this.#open.delete(index)
    }
    if (isAlias) this.#aliases--
  }

  #faultAtKey(key: number, message: string): void {
    const { line, column } = this.#place(key, false)
    this.#report.add(line, column, '', message)
  }

  #scalar(index: number, at: string): unknown {
    const event = this.#source.scalar(index)
    const { text, omitted, faults } = substitute(this.#text(event), this.#env)
    for (const fault of faults) this.#report.fault(at, fault)
    const tag = this.#source.tag(index)
    if (tag !== '') return this.#tagged(tag, text, at)
    if (event.style !== SCALAR_STYLE.PLAIN) return text
    return omitted ? OMITTED : plain(text)
  }

  #text(event: ScalarEvent): string {
    return unmask(getScalarValue(this.#source.text, event))
  }

  /** Returns the value of a scalar with a tag: `!!str 5`, or `! 5`, which is a string, too. */
  #tagged(name: string, text: string, at: string): unknown {
    const whole = name.replace(/^!!|^!$/, (found) => tagNames[found]!)
    const tag = scalarTags.find(({ tagName }) => tagName === whole)
    const value = tag?.resolve(text, true, whole)
    if (tag !== undefined && value !== NOT_RESOLVED) return value
    this.#report.fault(at, tag === undefined ? `unknown tag ${name}` : `not a valid ${name}`)
    return null
  }

  #countAliased(): void {
    if (++this.#aliased <= this.#mostAliased) return
    this.#report.add(1, 1, '', `aliases expand to more than ${this.#mostAliased} values`)
    this.#report.throwIfAny()
  }
}

/** Returns the value of a plain scalar with this text: a number, a boolean, null or the text. */
function plain(text: string): unknown {
  const first = text.charAt(0)
  for (const tag of implicitTags) {
    if (tag.implicitFirstChars?.includes(first) === false) continue
    const value = tag.resolve(text, false, tag.tagName)
    if (value !== NOT_RESOLVED) return value
  }
  return text
}
