/**
 * Which route a request matches. Decided by host first: the exact name, then the wildcard with the longest suffix, then
 * routes without hosts. Of those of a host the longest path wins, of those of a path the one that asks for more headers.
 * The loader finds conflicts with it, the gateway finds routes.
 */
import type { IncomingHttpHeaders } from 'node:http'
import { hostKey, MAX_NAME, writtenHostKey } from './host-name.ts'
import type { PathPattern } from './path-pattern.ts'
import type { Folding, PathReadings, ReadPath } from './path-reading.ts'
import { fold } from './path-reading.ts'
import type { Entry, Node } from './route-tree.ts'
import { addEntry, entryOf, nodeFor, RouteNode } from './route-tree.ts'
import type { RouteMatch } from './schema.ts'

export const defaultMethods = ['GET', 'HEAD', 'POST', 'PUT', 'PATCH', 'DELETE', 'OPTIONS']

/** The methods that a route takes. RFC 9110, 9.3.2: a resource that answers GET answers HEAD. */
export function methodsOf({ methods = defaultMethods }: Pick<RouteMatch, 'methods'>): string[] {
  return [...new Set(methods.includes('GET') ? [...methods, 'HEAD'] : methods)]
}

/** What a route is matched by, and what stands for it. */
export interface Candidate<T> {
  readonly match: RouteMatch
  /** One of the match's path. */
  readonly pattern: PathPattern
  /** Whether the gateway answers preflights for it. */
  readonly cors: boolean
  /** Equal for routes that let the same requests through. */
  readonly protection: unknown
  readonly value: T
}

export interface Question {
  readonly method: string
  readonly host: string
  readonly path: ReadPath
  readonly headers: IncomingHttpHeaders
}

export interface Found<T> {
  readonly value: T
  /** Whether it is asked for permission on behalf of a script, which the gateway answers. */
  readonly preflight: boolean
  /** Whether a common server could take the path for one of a route that protects it in another way. */
  readonly ambiguous: boolean
  readonly pattern: PathPattern
}

export class RouteTable<T> {
  /** All methods that some route takes. */
  readonly methods = new Set<string>()
  readonly #exact = new Map<string, Node<T>>()
  readonly #wildcards = new Map<string, Node<T>>()
  readonly #readings: PathReadings
  readonly #loose: Folding
  readonly #walk: Walk<T>
  #anyHost: Node<T> | null = null
  /** The trees of the host that was asked for last: most requests ask for the same one. */
  #last: { host: string | null; trees: readonly Node<T>[] } = { host: null, trees: [] }

  constructor(readings: PathReadings) {
    this.#readings = readings
    this.#loose = { case: readings.case !== 'distinct', dot: readings.trailingDot !== 'distinct' }
    this.#walk = new Walk(readings, this.#loose)
  }

  /** Adds a route. Returns what stands for one that matches some of the same requests, if there is such a route. */
  add({ match, pattern, cors, protection, value }: Candidate<T>): T | undefined {
    const methods = new Set(methodsOf(match))
    for (const method of methods) this.methods.add(method)
    const headers = Object.entries(match.headers ?? {}).map(([name, text]) => [name.toLowerCase(), text] as const)
    const entry = entryOf({ pattern, methods, cors, protection, value }, this.#readings)
    let other: T | undefined
    for (const tree of this.#treesOf(match.hosts)) {
      const node = nodeFor(tree, pattern, this.#loose)
      other ??= addEntry(node, entry, headers, this.#loose)?.value
    }
    this.#last = { host: null, trees: [] }
    return other
  }

  #treesOf(hosts: readonly string[] | undefined): Node<T>[] {
    if (hosts === undefined) {
      this.#anyHost ??= new RouteNode()
      return [this.#anyHost]
    }
    const trees = new Set<Node<T>>()
    for (const host of hosts) {
      const key = writtenHostKey(host)
      if (key === null) continue
      const map = host.startsWith('*.') ? this.#wildcards : this.#exact
      const tree = map.get(key) ?? new RouteNode<T>()
      map.set(key, tree)
      trees.add(tree)
    }
    return [...trees]
  }

  /** Whether any route may match requests for a host. */
  knows(host: string): boolean {
    return this.#treesFor(host).length > 0
  }

  find(question: Question): Found<T> | null {
    const { method, headers } = question
    const asked = method === 'OPTIONS' && headers.origin !== undefined ? headers['access-control-request-method'] : null
    return this.#find(question, asked ?? null)
  }

  /** The methods with which a request would find a route, preflights aside. */
  methodsFor(question: Question): string[] {
    const takes = (method: string) => this.#find({ ...question, method }, null) !== null
    return [...this.methods].filter(takes).sort()
  }

  #find(question: Question, asked: string | null): Found<T> | null {
    const { host, path } = question
    const trees = this.#treesFor(host)
    const walk = this.#walk
    let entry = walk.through(trees, null, question, asked, false)
    // A preflight never carries the headers of the request that it asks for.
    if (entry === null && asked !== null) entry = walk.through(trees, null, question, asked, true)
    if (entry === null) return null
    const { preflight } = walk
    const { protection } = entry
    let ambiguous = walk.meetsOther(protection)
    for (const other of path.others) {
      const found = walk.through(trees, other, question, asked, false)
      ambiguous ||= (found !== null && found.protection !== protection) || walk.meetsOther(protection)
    }
    const { value, pattern } = entry
    return { value, pattern, preflight, ambiguous }
  }

  #treesFor(host: string): readonly Node<T>[] {
    if (host === this.#last.host) return this.#last.trees
    const key = hostKey(host)
    const trees: Node<T>[] = []
    const exact = this.#exact.get(key)
    if (exact !== undefined) trees.push(exact)
    if (this.#wildcards.size > 0 && key.length <= MAX_NAME) {
      for (let dot = key.indexOf('.', 1); dot !== -1; dot = key.indexOf('.', dot + 1)) {
        const tree = this.#wildcards.get(key.slice(dot + 1))
        if (tree !== undefined) trees.push(tree)
      }
    }
    if (this.#anyHost !== null) trees.push(this.#anyHost)
    this.#last = { host, trees }
    return trees
  }
}

const asIs = [false]
const asPreflight = [true]
const either = [true, false]

/**
 * One search. The tree is laid out by folded segments, so it passes every route that a server with a looser reading
 * could mean, the most specific first, and ends at the first that fits as it is written.
 */
class Walk<T> {
  preflight = false
  readonly #loose: Folding
  readonly #ignoresSlash: boolean
  readonly #guardsSlash: boolean
  /** Protections of the routes that fit only in a looser reading. */
  readonly #passed: unknown[] = []
  #segments: readonly string[] = []
  /** Of a plain path only those that the search has come to: it grows with `#position`. */
  #folded: string[] = []
  #plain: string | null = null
  #position = 0
  #slash = false
  #method = ''
  #asked: string | null = null
  #headers: IncomingHttpHeaders = {}
  #anyHeaders = false
  #found: Entry<T> | null = null

  constructor(readings: PathReadings, loose: Folding) {
    this.#loose = loose
    this.#ignoresSlash = readings.trailingSlash === 'ignore'
    this.#guardsSlash = readings.trailingSlash === 'guard'
  }

  /** `other`: the segments in another reading of the path than its own. */
  through(
    trees: readonly Node<T>[],
    other: readonly string[] | null,
    { method, path, headers }: Question,
    asked: string | null,
    anyHeaders: boolean
  ): Entry<T> | null {
    this.#plain = other === null ? path.plain : null
    this.#position = 0
    this.#slash = path.trailingSlash
    if (this.#plain === null) {
      this.#segments = other ?? path.segments
      this.#folded = this.#segments.map((segment) => fold(segment, this.#loose))
    } else this.#folded.length = 0
    this.#method = method
    this.#asked = asked
    this.#headers = headers
    this.#anyHeaders = anyHeaders
    this.#passed.length = 0
    this.#found = null
    this.preflight = false
    for (const tree of trees) if (this.#visit(tree, 0)) break
    return this.#found as Entry<T> | null
  }

  /** Whether the search passed a route with other protection than this, which fits only in a looser reading. */
  meetsOther(protection: unknown): boolean {
    return this.#passed.some((passed) => passed !== protection)
  }

  /** A segment as the tree has it; undefined behind the last. */
  #segment(at: number): string | undefined {
    if (at < this.#folded.length || this.#plain === null || this.#position >= this.#plain.length)
      return this.#folded[at]
    const end = this.#plain.indexOf('/', this.#position + 1)
    const segment = this.#plain.slice(this.#position + 1, end === -1 ? undefined : end)
    this.#position = end === -1 ? this.#plain.length : end
    this.#folded.push(segment)
    return segment
  }

  /** All segments, as the client wrote them. */
  #all(): readonly string[] {
    if (this.#plain === null) return this.#segments
    for (let at = this.#folded.length; this.#segment(at) !== undefined; ) at++
    return this.#folded
  }

  #visit(node: Node<T>, at: number): boolean {
    const segment = this.#segment(at)
    if (segment === undefined) return this.#choose(node.atEnd, at, 0)
    const child = node.texts?.get(segment)
    if (child !== undefined && this.#visit(child, at + 1)) return true
    if (node.partials !== null) {
      this.#all()
      const rest = this.#folded.slice(at).join('/')
      for (const { text, groups } of node.partials) {
        if (rest.startsWith(text) && this.#choose(groups, at, text.length)) return true
      }
    }
    if (node.patterns !== null) {
      for (const { loose, node: next } of node.patterns) {
        if ((loose.test(segment) || loose.test(this.#all()[at]!)) && this.#visit(next, at + 1)) return true
      }
    }
    if (node.any !== null && this.#visit(node.any, at + 1)) return true
    return this.#choose(node.beyond, at, 0)
  }

  #choose(groups: Node<T>['atEnd'], at: number, partial: number): boolean {
    for (const { names, entries } of groups) {
      if (this.#anyHeaders) {
        for (const list of entries.values()) if (this.#take(list, at, partial)) return true
        continue
      }
      const list = entries.get(names.length === 0 ? '' : this.#valuesOf(names))
      if (list !== undefined && this.#take(list, at, partial)) return true
    }
    return false
  }

  #valuesOf(names: readonly string[]): string {
    // No header has a line feed, so that no two lists of values read the same.
    return names.map((name) => this.#headers[name] ?? '\n\n').join('\n')
  }

  /** Takes the first route that fits as it is written; notes one that fits only in a looser reading. */
  #take(list: readonly Entry<T>[], at: number, partial: number): boolean {
    let loose: Entry<T> | null = null
    for (const preflight of this.#asked === null ? asIs : this.#anyHeaders ? asPreflight : either) {
      for (const entry of list) {
        if (preflight ? !(entry.cors && entry.methods.has(this.#asked!)) : !entry.methods.has(this.#method)) continue
        const fit = this.#fit(entry, at, partial)
        if (fit === 'strict') {
          this.#found = entry
          this.preflight = preflight && !entry.methods.has('OPTIONS')
          return true
        }
        if (fit === 'loose') loose ??= entry
      }
    }
    if (loose !== null) this.#passed.push(loose.protection)
    return false
  }

  #fit(entry: Entry<T>, at: number, partial: number): 'strict' | 'loose' | 'none' {
    const { pattern } = entry
    if (entry.plain && this.#plain !== null && (!this.#slash || pattern.end === 'prefix')) return 'strict'
    const segments = this.#all()
    const isWhole = pattern.end === 'whole' && segments.length > 0
    const needsSlash = pattern.end === 'below' && at === segments.length
    let strict = entry.fits(segments, partial)
    if (this.#ignoresSlash || !(isWhole || needsSlash)) return strict ? 'strict' : 'loose'
    if (this.#slash !== (needsSlash || pattern.trailingSlash)) {
      if (!this.#guardsSlash) return 'none'
      strict = false
    }
    return strict ? 'strict' : 'loose'
  }
}
