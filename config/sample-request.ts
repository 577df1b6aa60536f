/** Sample requests of a route, by which checks find the other routes that take such requests. */
import { valueKinds } from './match-conditions.ts'
import type { PathPattern } from './path-pattern.ts'
import type { ReadPath } from './path-reading.ts'
import type { RouteQuery } from './route-search.ts'
import { methodsOf } from './route-table.ts'
import type { RouteMatch } from './schema.ts'

/** Returns the segments of a path that a pattern matches; null if it has regular expressions. */
export function sampleOf({ parts, end }: PathPattern): string[] | null {
  const segments: string[] = []
  for (const part of parts) {
    if (part.kind === 'regex') return null
    segments.push(part.kind === 'text' ? part.text : 'x')
  }
  return end === 'below' ? [...segments, 'x'] : segments
}

export const readPathOf = (segments: readonly string[], trailingSlash: boolean): ReadPath => {
  return { segments, trailingSlash, others: [], latin1: false, plain: null }
}

/** Returns a request with a path that meets the conditions of a match, except for regular expressions. */
export function sampleRequest(match: RouteMatch, path: ReadPath): RouteQuery {
  const [headers, query, cookies] = valueKinds.map((kind) => {
    const entries = Object.entries(match[kind] ?? {})
    return entries.flatMap(([name, wanted]): [string, string][] => {
      if (typeof wanted === 'string') return [[name, wanted]]
      return wanted.present === false ? [] : [[name, '']]
    })
  })
  const cookie = cookies!.map((pair) => pair.join('=')).join('; ')
  const [method = 'GET'] = methodsOf(match)
  return {
    method,
    host: (match.hosts?.[0] ?? '').replace(/^\*\./, 'x.'),
    path,
    headers: {
      ...Object.fromEntries(headers!.map(([name, value]) => [name.toLowerCase(), value])),
      ...(cookie !== '' && { cookie })
    },
    url: `/?${new URLSearchParams(query)}`,
    address: match.addresses?.[0]?.split('/')[0] ?? ''
  }
}
