/**
 * Finds the route of a request. The host decides first: the exact name, then the wildcard with the longest suffix, then
 * routes without hosts. Among the routes of a host the longest path wins; among those of a path, the one with more header
 * conditions. The loader uses it to find conflicts, the gateway to find routes.
 */
import { hostKey, MAX_NAME, writtenHostKey } from './host-name.ts'
import type { PathPattern } from './path-pattern.ts'
import type { Folding, PathReadings } from './path-reading.ts'
import type { RouteQuery } from './route-search.ts'
import { RouteSearch } from './route-search.ts'
import type { Node } from './route-tree.ts'
import { addEntry, entryOf, nodeFor, RouteNode } from './route-tree.ts'
import type { RouteMatch } from './schema.ts'

const defaultMethods = ['GET', 'HEAD', 'POST', 'PUT', 'PATCH', 'DELETE', 'OPTIONS']

/** Returns the methods of a route. GET includes HEAD (RFC 9110, 9.3.2). */
export function methodsOf({ methods = defaultMethods }: Pick<RouteMatch, 'methods'>): string[] {
  return [...new Set(methods.includes('GET') ? [...methods, 'HEAD'] : methods)]
}

/** A route for the table: its match, and the value that represents it. */
export interface Candidate<T> {
  readonly match: RouteMatch
  /** One of the patterns of the match's path. */
  readonly pattern: PathPattern
  /** True if the gateway responds to CORS preflights for it. */
  readonly answersPreflights: boolean
  /** Equal for routes with the same protection. */
  readonly protection: unknown
  readonly value: T
}

export interface Found<T> {
  readonly value: T
  /** True if the request is a CORS preflight to which the gateway responds. */
  readonly preflight: boolean
  /** True if a common server could read the path as that of a route with other protection. */
  readonly ambiguous: boolean
  readonly pattern: PathPattern
}

export class RouteTable<T> {
  /** All methods of all routes. */
  readonly methods = new Set<string>()
  readonly #exact = new Map<string, Node<T>>()
  readonly #wildcards = new Map<string, Node<T>>()
  readonly #readings: PathReadings
  readonly #loose: Folding
  readonly #search: RouteSearch<T>
  #anyHost: Node<T> | null = null
  /** The trees of the last host, as a cache: most requests have the same host. */
  #last: { host: string | null; trees: readonly Node<T>[] } = { host: null, trees: [] }

  constructor(readings: PathReadings) {
    this.#readings = readings
    this.#loose = { case: readings.case !== 'distinct', dot: readings.trailingDot !== 'distinct' }
    this.#search = new RouteSearch(readings, this.#loose)
  }

  /** Adds a route. Returns the value of a route that matches some of the same requests, if there is one. */
  add({ match, pattern, answersPreflights, protection, value }: Candidate<T>): T | undefined {
    const methods = new Set(methodsOf(match))
    for (const method of methods) this.methods.add(method)
    const headers = Object.entries(match.headers ?? {}).map(([name, text]) => [name.toLowerCase(), text] as const)
    const entry = entryOf({ pattern, methods, answersPreflights, protection, value }, this.#readings)
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

  /** Returns whether any route may match requests for a host. */
  knows(host: string): boolean {
    return this.#treesFor(host).length > 0
  }

  find(question: RouteQuery): Found<T> | null {
    const { method, headers } = question
    const requestedMethod =
      method === 'OPTIONS' && headers.origin !== undefined ? headers['access-control-request-method'] : null
    return this.#find(question, requestedMethod ?? null)
  }

  /** Returns the methods with which the request would match a route, ignoring preflights. */
  methodsFor(question: RouteQuery): string[] {
    const takes = (method: string) => this.#find({ ...question, method }, null) !== null
    return [...this.methods].filter(takes).sort()
  }

  #find(question: RouteQuery, requestedMethod: string | null): Found<T> | null {
    const { host, path } = question
    const trees = this.#treesFor(host)
    const search = this.#search
    let entry = search.run(trees, null, question, requestedMethod, false)
    // A preflight lacks the headers of the actual request, so header conditions are ignored in a second search.
    if (entry === null && requestedMethod !== null) entry = search.run(trees, null, question, requestedMethod, true)
    if (entry === null) return null
    const { preflight } = search
    const { protection } = entry
    let ambiguous = search.hasOtherProtection(protection)
    for (const other of path.others) {
      const found = search.run(trees, other, question, requestedMethod, false)
      ambiguous ||= (found !== null && found.protection !== protection) || search.hasOtherProtection(protection)
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
