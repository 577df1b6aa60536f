/**
 * Finds the route of a request. The priority decides first, then the host: the exact name, then the wildcard with the
 * longest suffix, then routes without hosts. Among the routes of a host the longest path wins; among those of a path, the
 * one with more conditions. The loader uses it to find conflicts, the gateway to find routes.
 */
import { hostKey, MAX_NAME, writtenHostKey } from './host-name.ts'
import { conditionsOf } from './match-conditions.ts'
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
  readonly priority: number
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
  /** True if a route has a condition for the address of the client. */
  readsAddress = false
  /** Trees of routes with the same priority, the highest first. */
  readonly #tiers: Tier<T>[] = []
  readonly #readings: PathReadings
  readonly #loose: Folding
  readonly #search: RouteSearch<T>
  /** The trees of the last host, as a cache: most requests have the same host. */
  #last: { host: string | null; trees: readonly Node<T>[] } = { host: null, trees: [] }

  constructor(readings: PathReadings) {
    this.#readings = readings
    this.#loose = { case: readings.case !== 'distinct', dot: readings.trailingDot !== 'distinct' }
    this.#search = new RouteSearch(readings, this.#loose)
  }

  /** Adds a route. Returns the value of a route that matches some of the same requests, if there is one. */
  add({ match, pattern, priority, answersPreflights, protection, value }: Candidate<T>): T | undefined {
    const methods = new Set(methodsOf(match))
    for (const method of methods) this.methods.add(method)
    this.readsAddress ||= match.addresses !== undefined
    const conditions = conditionsOf(match)
    const entry = entryOf({ pattern, methods, answersPreflights, protection, value }, this.#readings)
    let other: T | undefined
    for (const tree of treesIn(this.#tierOf(priority), match.hosts)) {
      const node = nodeFor(tree, pattern, this.#loose)
      other ??= addEntry(node, entry, conditions, this.#loose)?.value
    }
    this.#last = { host: null, trees: [] }
    return other
  }

  #tierOf(priority: number): Tier<T> {
    let tier = this.#tiers.find((each) => each.priority === priority)
    if (tier === undefined) {
      tier = { priority, exact: new Map(), wildcards: new Map(), anyHost: null }
      this.#tiers.push(tier)
      this.#tiers.sort((a, b) => b.priority - a.priority)
    }
    return tier
  }

  /** Returns whether any route may match requests for a host. */
  knows(host: string): boolean {
    return this.#treesFor(host).length > 0
  }

  find(question: RouteQuery): Found<T> | null {
    this.#search.begin()
    const { method, headers } = question
    const requestedMethod =
      method === 'OPTIONS' && headers.origin !== undefined ? headers['access-control-request-method'] : null
    const found = this.#find(question, requestedMethod ?? null)
    return found === null && requestedMethod ? this.#findForPreflight(question) : found
  }

  /**
   * Returns the only route that responds to preflights for host and path, although it does not have the requested method: the
   * browser then tells the page that CORS does not allow the method. Null if there are several, whose rules may differ.
   */
  #findForPreflight(question: RouteQuery): Found<T> | null {
    let only: Found<T> | null = null
    for (const method of this.methods) {
      const found = this.#find(question, method)
      if (found === null) continue
      if (only !== null && only.value !== found.value) return null
      only = found
    }
    return only
  }

  /** Returns the values of all routes for host, path and method of a request, whatever their conditions, in order. */
  all(question: RouteQuery): T[] {
    return this.#search.all(this.#treesFor(question.host), question).map(({ value }) => value)
  }

  /** Returns the methods with which the request would match a route that `isShown` to the client, ignoring preflights. */
  methodsFor(question: RouteQuery, isShown: (value: T) => boolean = () => true): string[] {
    this.#search.begin()
    const takes = (method: string) => {
      const found = this.#find({ ...question, method }, null)
      return found !== null && isShown(found.value)
    }
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
    for (const { exact, wildcards, anyHost } of this.#tiers) {
      const named = exact.get(key)
      if (named !== undefined) trees.push(named)
      if (wildcards.size > 0 && key.length <= MAX_NAME) {
        for (let dot = key.indexOf('.', 1); dot !== -1; dot = key.indexOf('.', dot + 1)) {
          const tree = wildcards.get(key.slice(dot + 1))
          if (tree !== undefined) trees.push(tree)
        }
      }
      if (anyHost !== null) trees.push(anyHost)
    }
    this.#last = { host, trees }
    return trees
  }
}

/** The trees of the routes with one priority, by their hosts. */
interface Tier<T> {
  readonly priority: number
  readonly exact: Map<string, Node<T>>
  readonly wildcards: Map<string, Node<T>>
  anyHost: Node<T> | null
}

function treesIn<T>(tier: Tier<T>, hosts: readonly string[] | undefined): Node<T>[] {
  if (hosts === undefined) {
    tier.anyHost ??= new RouteNode()
    return [tier.anyHost]
  }
  const trees = new Set<Node<T>>()
  for (const host of hosts) {
    const key = writtenHostKey(host)
    if (key === null) continue
    const map = host.startsWith('*.') ? tier.wildcards : tier.exact
    const tree = map.get(key) ?? new RouteNode<T>()
    map.set(key, tree)
    trees.add(tree)
  }
  return [...trees]
}
