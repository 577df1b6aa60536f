/** Keys of stored responses in Redis, and the time for which they are kept. */
import { randomBytes } from 'node:crypto'
import type { Asked } from './asked.ts'
import { digest, encode, normalized } from './asked.ts'
import type { StoredHead } from './stored.ts'

/** Prefix of all keys. The number changes with the form of the values, so that releases never read those of each other. */
const prefix = 'jingwei:cache:1:'
export const purgesKey = `${prefix}purges`
/** Longest time for which a response is stored. */
const longestMs = 30 * 24 * 3_600_000
/** Longest time after its expiry for which a response is kept only to be confirmed by the service. */
const longestGraceMs = 24 * 3_600_000

export const markerKey = (resource: string) => `${prefix}m:${resource}`
export const responsesKey = (key: string) => `${prefix}r:${key}`

/** Random text of hexadecimal digits. */
export const randomText = (length: number) => randomBytes(length / 2).toString('hex')

export const isName = (name: string) => !/[,\s]/.test(name)

/** Returns the value of a header for the key of a variant: a digest, since Redis needs to know no cookies and addresses. */
export const variantText = (name: string, value: string) => digest(encode(normalized(name, value)))

/** Returns the texts of a request for the names in a `Vary`; empty for headers that are absent, or a part of the key. */
export const variantTexts = (names: readonly string[], { headers, keyed }: Asked): readonly string[] =>
  names.map((name) => (keyed.has(name) || !headers.has(name) ? '' : variantText(name, headers.get(name)!)))

/** Returns the time for which a response is of use: while it is fresh, may be sent stale, or can be confirmed. */
export function timeToLive({ lifetime, initialAge, whileRevalidate, ifError, headers }: StoredHead): number {
  const isConfirmable = headers.etag !== undefined || headers['last-modified'] !== undefined
  const grace = isConfirmable ? Math.min(longestGraceMs, Math.max(60_000, lifetime)) : 0
  const ms = Math.max(0, lifetime - initialAge) + Math.max(grace, whileRevalidate, ifError)
  return Math.ceil(Math.min(longestMs, Math.max(1000, ms)))
}
