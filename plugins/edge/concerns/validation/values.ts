/** The parameters of a request as texts, by their place. */
import type { FastifyRequest } from 'fastify'
import { canonicalName } from '../../../../config/header-names.ts'

export type In = 'path' | 'query' | 'header' | 'cookie'

/** Texts of one place, by name, in the order in which they were sent. Still percent-encoded in a path and a query. */
export type Texts = ReadonlyMap<string, readonly string[]>

/** Returns a text without percent-encoding; null if it is not that of UTF-8. */
export function decoded(text: string, where: In): string | null {
  if (where === 'header' || where === 'cookie') return text
  const plain = where === 'query' && text.includes('+') ? text.replaceAll('+', ' ') : text
  if (!plain.includes('%')) return plain
  try {
    return decodeURIComponent(plain)
  } catch {
    return null
  }
}

function add(to: Map<string, string[]>, name: string, text: string): void {
  const known = to.get(name)
  if (known === undefined) to.set(name, [text])
  else known.push(text)
}

/** Returns the fields of a query, or of a form. A name that cannot be decoded stays as it is. */
export function queryTexts(query: string): Texts {
  const found = new Map<string, string[]>()
  for (const pair of query.split('&')) {
    if (pair === '') continue
    const equals = pair.indexOf('=')
    const name = equals === -1 ? pair : pair.slice(0, equals)
    add(found, decoded(name, 'query') ?? name, equals === -1 ? '' : pair.slice(equals + 1))
  }
  return found
}

export function searchOf(target: string): string {
  const start = target.indexOf('?')
  return start === -1 ? '' : target.slice(start + 1)
}

export function headerTexts({ raw }: FastifyRequest): Texts {
  const found = new Map<string, string[]>()
  const { rawHeaders } = raw
  for (let i = 0; i < rawHeaders.length; i += 2) {
    const name = rawHeaders[i]!.toLowerCase()
    // HTTP/2's :method and the like.
    if (!name.startsWith(':')) add(found, name, rawHeaders[i + 1]!)
  }
  // Some services read X_N as X-N, too.
  for (const [name, values] of found) {
    const usual = canonicalName(name)
    if (usual !== name) found.get(usual)?.push(...values)
  }
  // A repeated field is one list (RFC 9110, 5.3).
  for (const [name, values] of found) if (values.length > 1) found.set(name, [values.join(', ')])
  return found
}

/** Cookies as sent, without quotes. */
export function cookieTexts({ raw }: FastifyRequest): Texts {
  const found = new Map<string, string[]>()
  for (const pair of (raw.headers.cookie ?? '').split(';')) {
    const equals = pair.indexOf('=')
    if (equals === -1) continue
    const text = pair.slice(equals + 1).trim()
    const isQuoted = text.length > 1 && text.startsWith('"') && text.endsWith('"')
    add(found, pair.slice(0, equals).trim(), isQuoted ? text.slice(1, -1) : text)
  }
  return found
}
