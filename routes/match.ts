import type { IncomingMessage } from 'node:http'
import type { ConstraintStrategy, HTTPVersion } from 'find-my-way'
import type { RouteMatch } from '../config/schema.ts'

/** Hosts and headers that a route asks for, as a router constraint; `key` is the same for equal sets. */
export interface MatchConstraint {
  readonly key: string
  readonly test: (request: IncomingMessage) => boolean
}

export interface RankedConstraint extends MatchConstraint {
  readonly rank: number
}

/**
 * The constraint of a route, or null for one that takes any host and headers. `rank` orders routes of one path:
 * the more it asks for the higher, an exact host before a wildcard, a longer wildcard before a shorter one.
 */
export function matchConstraint({ hosts, headers }: RouteMatch): RankedConstraint | null {
  if (hosts === undefined && headers === undefined) return null
  const wanted = Object.entries(headers ?? {}).map(([name, value]) => [name.toLowerCase(), value] as const)
  const names = (hosts ?? []).map((host) => plain(host))
  const exact = new Set(names.filter((host) => !host.startsWith('*.')))
  const suffixes = names.filter((host) => host.startsWith('*.')).map((host) => host.slice(1))
  const longest = Math.max(0, ...suffixes.map((suffix) => suffix.length))
  const test = (request: IncomingMessage) => {
    for (const [name, value] of wanted) if (request.headers[name] !== value) return false
    if (names.length === 0) return true
    const host = hostname(request)
    return exact.has(host) || suffixes.some((suffix) => host.length > suffix.length && host.endsWith(suffix))
  }
  const hostRank = names.length === 0 ? 0 : suffixes.length === 0 ? 1000 : 500 + Math.min(longest, 255)
  return { key: JSON.stringify([names.toSorted(), wanted.toSorted()]), test, rank: hostRank + wanted.length }
}

/** Of the preflights that a path gets, those that ask for one of these methods (Fetch, 3.2.2). */
export function preflightConstraint(base: RankedConstraint | null, methods: readonly string[]): RankedConstraint {
  const test = (request: IncomingMessage) => {
    const { origin, 'access-control-request-method': asked } = request.headers
    return origin !== undefined && methods.includes(asked ?? '') && (base?.test(request) ?? true)
  }
  return { key: JSON.stringify([base?.key, 'preflight', methods]), test, rank: (base?.rank ?? 0) + 0.5 }
}

/** The host that the client named. */
function hostname(request: IncomingMessage): string {
  const authority = request.headers[':authority']
  const host = typeof authority === 'string' ? authority : (request.headers.host ?? '')
  return plain(host)
}

/** Lower case, without the port and the dot of an absolute name: to services it is the same host. */
function plain(host: string): string {
  return host.replace(/\.?(?::\d*)?$/, '').toLowerCase()
}

/**
 * find-my-way asks a store for the bit mask of the handlers that fit. While it builds, it asks by constraint;
 * while it routes, by request, for which every fitting constraint's bits count. Of several handlers that fit
 * the one registered last wins, so routes are registered by rising rank.
 */
export const matchStrategy = {
  name: 'match',
  storage() {
    const entries = new Map<string, { constraint: MatchConstraint; mask: number }>()
    return {
      get(value: MatchConstraint | IncomingMessage) {
        if ('key' in value) return entries.get(value.key)?.mask ?? null
        let mask = 0
        for (const { constraint, mask: bits } of entries.values()) if (constraint.test(value)) mask |= bits
        return mask === 0 ? null : mask
      },
      set(constraint: MatchConstraint, mask: number) {
        entries.set(constraint.key, { constraint, mask })
      },
      del(constraint: MatchConstraint) {
        entries.delete(constraint.key)
      },
      empty() {
        entries.clear()
      }
    }
  },
  deriveConstraint: (request: IncomingMessage) => request,
  validate() {},
  mustMatchWhenDerived: false
} as unknown as ConstraintStrategy<HTTPVersion.V1, string>
