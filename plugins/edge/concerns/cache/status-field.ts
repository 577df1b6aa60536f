/** `Cache-Status` (RFC 9211). */
import type { IncomingHttpHeaders } from 'node:http'
import type { Asked } from './asked.ts'
import type { CacheOptions } from './options.ts'
import type { Found } from './store.ts'
import type { StoredHead } from './stored.ts'
import { ageNow } from './stored.ts'

interface Forwarded {
  readonly reason: string
  /** Status of the service, if it differs from that of the response or follows a revalidation. */
  readonly status: number | null
  readonly stored: StoredHead | null
  readonly key: string
  readonly now: number
}

const keyOf = ({ cacheStatus }: CacheOptions, key: string) => (cacheStatus === 'key' ? `; key="${key}"` : '')

const ttlOf = (stored: StoredHead, now: number) => `; ttl=${Math.floor((stored.lifetime - ageNow(stored, now)) / 1000)}`

/** Returns the field of a response from the store; null if it is off. */
export function hitStatus(
  options: CacheOptions,
  stored: StoredHead,
  asked: Asked,
  now: number,
  isCollapsed: boolean
): string | null {
  if (options.cacheStatus === 'off') return null
  const how = isCollapsed ? 'fwd=uri-miss; collapsed' : 'hit'
  return `jingwei; ${how}${ttlOf(stored, now)}${keyOf(options, asked.publicKey)}`
}

/** Returns the field of a response of the service; null if it is off. */
export function annotated(options: CacheOptions, { reason, status, stored, key, now }: Forwarded): string | null {
  if (options.cacheStatus === 'off') return null
  const answered = status === null ? '' : `; fwd-status=${status}`
  const kept = stored === null ? '' : `; stored${ttlOf(stored, now)}`
  return `jingwei; fwd=${reason}${answered}${kept}${keyOf(options, key)}`
}

/** Adds the cache's own fields, and removes the tags if clients do not get them. */
export function withFields(
  { keepTags }: CacheOptions,
  headers: IncomingHttpHeaders,
  field: string | null
): IncomingHttpHeaders {
  const fields = { ...headers }
  if (field !== null) {
    const before = fields['cache-status']
    fields['cache-status'] = before === undefined ? field : `${String(before)}, ${field}`
  }
  if (keepTags === false) {
    delete fields['surrogate-key']
    delete fields['cache-tag']
  }
  return fields
}

/** Returns the reason of a fetch, as in `Cache-Status` (RFC 9211, 2.2). */
export function reasonOf(asked: Asked, { stored, hasVariants }: Found, state: string | null): string {
  if (asked.directives.has('no-store') || state === 'asked') return 'request'
  if (stored !== null) return 'stale'
  return hasVariants ? 'vary-miss' : 'uri-miss'
}
