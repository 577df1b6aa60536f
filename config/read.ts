/** YAML text to plain data, with the place of every value and the environment's variables put in. */
import type { Alias, Document, ParsedNode, YAMLMap, YAMLSeq } from 'yaml'
import { isAlias, isMap, isScalar, isSeq, LineCounter, parseDocument, Scalar, visit } from 'yaml'
import { mask, substitute, unmask } from './env.ts'
import type { Report } from './faults.ts'
import { pointer } from './faults.ts'

/**
 * Values that aliases may bring in, in all and besides for each alias in the file. By aliases of aliases a short file
 * could bring in any number; values that are written out are bounded by the file's length.
 */
const MOST_ALIASED = { inAll: 100_000, perAlias: 100 }
/** What a key is as though it weren't there for: `token: ${TOKEN:-}`. */
const OMITTED = Symbol('omitted')

const messages: Readonly<Record<string, string>> = {
  MULTIPLE_DOCS: 'only one document is allowed in the file'
}

const starAdvice = 'text that begins with "*" must be in quotes'

/** Advice about characters that YAML takes for its own, in place of the parser's message. */
function advised(message: string): string {
  if (message === 'Alias cannot be an empty string') return starAdvice
  const bracket = /^Unexpected flow-(map|seq)-start /.exec(message)?.[1]
  if (bracket === undefined) return message
  return `unexpected "${bracket === 'map' ? '{' : '['}"; text with "{", "[" or "," in it must be in quotes`
}

type Key = { readonly line: number; readonly column: number }
type Entry = { readonly key: Key; readonly value: unknown }

export function read(text: string, env: NodeJS.ProcessEnv, report: Report): unknown {
  const lines = new LineCounter()
  const source = mask(text)
  const document = parseDocument(source, { lineCounter: lines, prettyErrors: false, uniqueKeys: false, merge: false })
  // Only the first syntax error is reported: one brace makes a dozen more.
  const [first] = [...document.errors, ...document.warnings].sort((a, b) => a.pos[0] - b.pos[0])
  if (first !== undefined) {
    const { line, col } = lines.linePos(first.pos[0])
    // Quoted source may hold a secret.
    report.add(line, col, '', messages[first.code] ?? advised(unmask(first.message.replace(/: "[\s\S]*$/, ''))))
  }
  report.throwIfAny()
  const data = new Reader(document, lines, env, report).value(document.contents, '', undefined)
  if (data === null) {
    report.fault('', 'the file is empty; write {} if this is meant')
    report.throwIfAny()
  }
  return data
}

class Reader {
  readonly #document: Document.Parsed
  readonly #lines: LineCounter
  readonly #env: NodeJS.ProcessEnv
  readonly #report: Report
  /** The collections that are being read, so that one that holds itself is found. */
  readonly #open = new Set<unknown>()
  /** Aliases within which the reader is. */
  #aliases = 0
  #aliased = 0
  readonly #mostAliased: number
  readonly #targets: ReadonlyMap<Alias, ParsedNode>

  constructor(document: Document.Parsed, lines: LineCounter, env: NodeJS.ProcessEnv, report: Report) {
    this.#document = document
    this.#lines = lines
    this.#env = env
    this.#report = report
    this.#targets = aliasTargets(document)
    this.#mostAliased = MOST_ALIASED.inAll + this.#targets.size * MOST_ALIASED.perAlias
  }

  /** Reads anew for each alias: shared objects would have their units converted twice. */
  value(node: unknown, at: string, key: Key | undefined, alias?: Alias): unknown {
    if (node === null || node === undefined) {
      this.#report.place(at, { ...(key ?? { line: 1, column: 1 }), ...(key && { key }) })
      return null
    }
    if (this.#aliases > 0 && ++this.#aliased > this.#mostAliased) return this.#tooMany()
    if (isAlias(node)) {
      const target = this.#targets.get(node)
      if (target !== undefined) {
        this.#aliases++
        const value = this.value(target, at, key, node)
        this.#aliases--
        return value
      }
      this.#report.place(at, { ...this.#start(node), ...(key && { key }) })
      const advice = /^[\w-]+$/.test(node.source) ? '' : `; ${starAdvice}`
      this.#report.fault(at, `unknown alias "*${node.source}"${advice}`)
      return null
    }
    if (isScalar(node)) return this.#scalar(node, at, key, alias)
    this.#report.place(at, { ...this.#start(alias ?? node), ...(key && { key }) }, isSeq(node))
    if (this.#open.has(node)) {
      this.#report.fault(at, 'recursive alias: this alias refers to a node that contains it')
      return null
    }
    this.#open.add(node)
    const result = isMap(node) ? this.#map(node, at) : isSeq(node) ? this.#list(node, at) : null
    this.#open.delete(node)
    return result
  }

  #list(node: YAMLSeq, at: string): unknown[] {
    const items = node.items.map((item, index) => this.value(item, pointer(at, index), undefined))
    return items.map((item) => (item === OMITTED ? null : item))
  }

  #map(node: YAMLMap, at: string): object {
    const result = {}
    for (const [name, { value }] of this.#entries(node, at)) {
      // Defined, not assigned: a key may be named __proto__.
      if (value !== OMITTED) {
        Object.defineProperty(result, name, { value, enumerable: true, writable: true, configurable: true })
      }
    }
    return result
  }

  /** The pairs of a mapping; those that `<<` brings in come first and yield to its own. */
  #entries(node: YAMLMap, at: string): Map<string, Entry> {
    const own = new Map<string, { key: Key; node: unknown }>()
    const merged = new Map<string, Entry>()
    for (const pair of node.items) {
      const key = this.#start(pair.key as ParsedNode)
      if (!isScalar(pair.key)) {
        this.#report.add(key.line, key.column, '', 'a key must be plain text')
        continue
      }
      const name = unmask(pair.key.source ?? String(pair.key.value))
      const before = own.get(name)
      if (before !== undefined) {
        this.#report.place(pointer(at, name), { ...key, key })
        this.#report.fault(pointer(at, name), `duplicate key; it is on line ${before.key.line} too`)
      } else own.set(name, { key, node: pair.value })
    }
    const merge = own.get('<<')
    own.delete('<<')
    if (merge !== undefined) this.#merge(merge.node, at, merge.key, merged)
    const entries = new Map(merged)
    for (const [name, { key, node: value }] of own) {
      entries.set(name, { key, value: this.value(value, pointer(at, name), key) })
    }
    return entries
  }

  #merge(from: unknown, at: string, key: Key, into: Map<string, Entry>): void {
    const node = isAlias(from) ? this.#targets.get(from) : from
    if (isAlias(from)) this.#aliases++
    // Each is counted, since a mapping may be empty.
    if (this.#aliases > 0 && ++this.#aliased > this.#mostAliased) this.#tooMany()
    if (isSeq(node)) for (const item of node.items) this.#merge(item, at, key, into)
    else if (!isMap(node) || this.#open.has(node)) {
      this.#report.add(key.line, key.column, '', 'only mappings can be merged by "<<"')
    } else {
      this.#open.add(node)
      // The first of several wins.
      for (const [name, entry] of this.#entries(node, at)) if (!into.has(name)) into.set(name, entry)
      this.#open.delete(node)
    }
    if (isAlias(from)) this.#aliases--
  }

  #scalar(node: Scalar, at: string, key: Key | undefined, alias: Alias | undefined): unknown {
    // An empty value stands nowhere; its key does.
    const start =
      node.source === '' && node.type === Scalar.PLAIN && key !== undefined ? key : this.#start(alias ?? node)
    const source = unmask(node.source ?? '')
    const { text, changed, omitted, faults } = substitute(source, this.#env)
    this.#report.place(at, { ...start, ...(key && { key }), text: source, ...(changed && { from: source }) })
    for (const fault of faults) this.#report.fault(at, fault)
    if (text === source) return typeof node.value === 'string' ? text : node.value
    if (node.type !== Scalar.PLAIN || node.tag !== undefined) return text
    return omitted ? OMITTED : this.#resolve(text)
  }

  /** What YAML makes of a plain scalar with this text: a number, a boolean, null or the text. */
  #resolve(text: string): unknown {
    const { tags } = this.#document.schema
    for (const tag of tags) {
      if (tag.collection || tag.default !== true || !tag.test?.test(text)) continue
      const value = tag.resolve(text, () => {}, {})
      return isScalar(value) ? value.value : value
    }
    return text
  }

  #start(node: Alias | ParsedNode | { range?: readonly number[] | null } | null): Key {
    const { line, col } = this.#lines.linePos(node?.range?.[0] ?? 0)
    return { line, column: col }
  }

  #tooMany(): null {
    this.#report.add(1, 1, '', `aliases bring in more than ${this.#mostAliased} values`)
    this.#report.throwIfAny()
    return null
  }
}

/** The node that each alias stands for: the last one before it with its anchor. In one pass, whatever their number. */
function aliasTargets(document: Document.Parsed): Map<Alias, ParsedNode> {
  const anchors = new Map<string, ParsedNode>()
  const targets = new Map<Alias, ParsedNode>()
  visit(document, {
    Node(_key, node) {
      if (isAlias(node)) {
        const target = anchors.get(node.source)
        if (target !== undefined) targets.set(node, target)
      } else if ('anchor' in node && node.anchor !== undefined) anchors.set(String(node.anchor), node as ParsedNode)
    }
  })
  return targets
}
