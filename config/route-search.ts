/** Searches the trees of a host for the route of one request. */
import type { IncomingHttpHeaders } from 'node:http'
import type { Condition } from './match-conditions.ts'
import { Facts } from './match-conditions.ts'
import type { Folding, PathReadings, ReadPath } from './path-reading.ts'
import { fold } from './path-reading.ts'
import type { Entry, Node } from './route-tree.ts'

export interface RouteQuery {
  readonly method: string
  readonly host: string
  readonly path: ReadPath
  readonly headers: IncomingHttpHeaders
  /** Request target. */
  readonly url: string
  /** Address of the client; '' if no route has a condition for it. */
  readonly address: string
}

const asIs = [false]
const asPreflight = [true]
const either = [true, false]

/**
 * One search. The tree is keyed by folded segments, so the search visits every route that a server with a looser reading
 * could match, the most specific first, and ends at the first route that matches exactly.
 */
export class RouteSearch<T> {
  preflight = false
  readonly #loose: Folding
  readonly #ignoresSlash: boolean
  readonly #guardsSlash: boolean
  /** Protections of visited routes that match only in a looser reading. */
  readonly #looseProtections: unknown[] = []
  #segments: readonly string[] = []
  /** Folded segments; of a plain path only those that the search has reached, up to `#position`. */
  #folded: string[] = []
  #plain: string | null = null
  #position = 0
  #slash = false
  #method = ''
  #requestedMethod: string | null = null
  #query: RouteQuery | null = null
  /** Facts for conditions, once one is tested. They are those of one request. */
  #facts: Facts | null = null
  #anyHeaders = false
  /** Routes that were visited, in the order of precedence; null unless all are searched for. */
  #all: Entry<T>[] | null = null
  #found: Entry<T> | null = null

  constructor(readings: PathReadings, loose: Folding) {
    this.#loose = loose
    this.#ignoresSlash = readings.trailingSlash === 'ignore'
    this.#guardsSlash = readings.trailingSlash === 'guard'
  }

  /** Begins with another request, whose searches share their facts. */
  begin(): void {
    this.#facts = null
  }

  /** Runs a search. `other`: segments of another reading of the path; null for the path's own segments. */
  run(
    trees: readonly Node<T>[],
    other: readonly string[] | null,
    query: RouteQuery,
    requestedMethod: string | null,
    anyHeaders: boolean
  ): Entry<T> | null {
    const { method, path } = query
    this.#plain = other === null ? path.plain : null
    this.#position = 0
    this.#slash = path.trailingSlash
    if (this.#plain === null) {
      this.#segments = other ?? path.segments
      this.#folded = this.#segments.map((segment) => fold(segment, this.#loose))
    } else this.#folded.length = 0
    this.#method = method
    this.#requestedMethod = requestedMethod
    this.#query = query
    this.#anyHeaders = anyHeaders
    this.#looseProtections.length = 0
    this.#found = null
    this.preflight = false
    for (const tree of trees) if (this.#visit(tree, 0)) break
    return this.#found as Entry<T> | null
  }

  /** Returns all routes for host, path and method of a request, whatever their conditions, in the order of precedence. */
  all(trees: readonly Node<T>[], query: RouteQuery): readonly Entry<T>[] {
    const all: Entry<T>[] = []
    this.begin()
    this.#all = all
    this.run(trees, null, query, null, false)
    this.#all = null
    return all
  }

  /** Returns whether the search visited a route with another protection that matches only in a looser reading. */
  hasOtherProtection(protection: unknown): boolean {
    return this.#looseProtections.some((passed) => passed !== protection)
  }

  /** Returns the folded segment at an index; undefined after the last one. */
  #segment(at: number): string | undefined {
    if (at < this.#folded.length || this.#plain === null || this.#position >= this.#plain.length)
      return this.#folded[at]
    const end = this.#plain.indexOf('/', this.#position + 1)
    const segment = this.#plain.slice(this.#position + 1, end === -1 ? undefined : end)
    this.#position = end === -1 ? this.#plain.length : end
    this.#folded.push(segment)
    return segment
  }

  /** Returns all segments, unfolded. */
  #whole(): readonly string[] {
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
      this.#whole()
      const rest = this.#folded.slice(at).join('/')
      for (const { text, groups } of node.partials) {
        if (rest.startsWith(text) && this.#choose(groups, at, text.length)) return true
      }
    }
    if (node.patterns !== null) {
      for (const { loose, node: next } of node.patterns) {
        if ((loose.test(segment) || loose.test(this.#whole()[at]!)) && this.#visit(next, at + 1)) return true
      }
    }
    if (node.any !== null && this.#visit(node.any, at + 1)) return true
    return this.#choose(node.beyond, at, 0)
  }

  #choose(groups: Node<T>['atEnd'], at: number, partial: number): boolean {
    for (const { names, others, entries } of groups) {
      if (this.#all === null && others !== null && !this.#meets(others)) continue
      if (this.#anyHeaders || this.#all !== null) {
        for (const list of entries.values()) if (this.#tryEntries(list, at, partial)) return true
        continue
      }
      const list = entries.get(names.length === 0 ? '' : this.#valuesOf(names))
      if (list !== undefined && this.#tryEntries(list, at, partial)) return true
    }
    return false
  }

  #meets(conditions: readonly Condition[]): boolean {
    this.#facts ??= new Facts(this.#query!)
    const facts = this.#facts
    // A preflight has the query of the actual request, but not its headers and cookies.
    const isIgnored = ({ kind }: Condition) => this.#anyHeaders && (kind === 'headers' || kind === 'cookies')
    return conditions.every((condition) => isIgnored(condition) || facts.meets(condition))
  }

  #valuesOf(names: readonly string[]): string {
    // Header values cannot contain line feeds, so the joined text is unambiguous.
    this.#facts ??= new Facts(this.#query!)
    const facts = this.#facts
    return names
      .map((name) => {
        const [value = '\n\n', ...others] = facts.values('headers', name)
        return others.every((each) => each === value) ? value : '\n\n'
      })
      .join('\n')
  }

  /** Chooses the first route that matches exactly; records one that matches only in a looser reading. */
  #tryEntries(list: readonly Entry<T>[], at: number, partial: number): boolean {
    let loose: Entry<T> | null = null
    for (const preflight of this.#requestedMethod === null ? asIs : this.#anyHeaders ? asPreflight : either) {
      for (const entry of list) {
        if (
          preflight
            ? !(entry.answersPreflights && entry.methods.has(this.#requestedMethod!))
            : !entry.methods.has(this.#method)
        )
          continue
        const fit = this.#fit(entry, at, partial)
        if (fit === 'strict' && this.#all !== null) this.#all.push(entry)
        else if (fit === 'strict') {
          this.#found = entry
          this.preflight = preflight && !entry.methods.has('OPTIONS')
          return true
        }
        if (fit === 'loose') loose ??= entry
      }
    }
    if (loose !== null) this.#looseProtections.push(loose.protection)
    return false
  }

  #fit(entry: Entry<T>, at: number, partial: number): 'strict' | 'loose' | 'none' {
    const { pattern } = entry
    if (entry.plain && this.#plain !== null && (!this.#slash || pattern.end === 'prefix')) return 'strict'
    const segments = this.#whole()
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
