/** Responses from the store: conditions (RFC 9110, 13), ranges (14) and HEAD, with `Age`. */
import type { IncomingHttpHeaders } from 'node:http'
import createError from '@fastify/error'
import type { Asked } from './asked.ts'
import { dateOf } from './directives.ts'
import type { StoredResponse } from './stored.ts'
import { ageNow } from './stored.ts'

export const NotCached = createError(
  'JW_NOT_CACHED',
  'The response is not in the cache, and only-if-cached asks for no other',
  504
)

/** The response to one request, made from a stored one. */
export interface CachedResponse {
  readonly status: number
  readonly text: string
  readonly headers: IncomingHttpHeaders
  readonly body: Buffer
}

const empty = Buffer.alloc(0)

/** Fields that 304 and 416 leave out: they describe a body that these do not have. */
const ofBody: ReadonlySet<string> = new Set(['content-length', 'content-type', 'content-encoding', 'content-range', 'content-md5', 'content-digest', 'repr-digest', 'digest']) // biome-ignore format: a list

/** Fields by which caches decide for how long they keep a response, also those for a kind of cache (RFC 9213). */
const ofFreshness = /cache-control$|^surrogate-control$|^expires$|^pragma$|^age$/

export function responseFrom(stored: StoredResponse, asked: Asked, now: number): CachedResponse {
  const { status, text, body } = stored
  const headers: IncomingHttpHeaders = { ...stored.headers, age: String(Math.floor(ageNow(stored, now) / 1000)) }
  if (isUnchanged(asked, status, stored.headers)) {
    const kept = Object.entries(headers).filter(([name]) => !ofBody.has(name))
    return { status: 304, text: '', headers: Object.fromEntries(kept), body: empty }
  }
  if (status === 200 && !asked.isHead) {
    const range = rangeOf(asked, stored)
    if (range === 'unsatisfiable') {
      const kept = Object.entries(headers).filter(([name]) => !ofBody.has(name) && !ofFreshness.test(name))
      // The times are those of the 200: a cache of the client's side could give the error to others.
      const more = { 'cache-control': 'no-store', 'content-range': `bytes */${body.length}`, 'content-length': '0' }
      return { status: 416, text: '', headers: { ...Object.fromEntries(kept), ...more }, body: empty }
    }
    if (range !== null) {
      const [first, last] = range
      const more = {
        'content-range': `bytes ${first}-${last}/${body.length}`,
        'content-length': String(last - first + 1)
      }
      return { status: 206, text: '', headers: { ...headers, ...more }, body: body.subarray(first, last + 1) }
    }
  }
  if (status !== 204 && (!asked.isHead || headers['content-length'] === undefined))
    headers['content-length'] = String(body.length)
  return { status, text, headers, body: asked.isHead ? empty : body }
}

/** Returns whether the request's conditions say that the client has the response already (RFC 9110, 13.2.2). */
export function isUnchanged({ headers: asked }: Asked, status: number, headers: IncomingHttpHeaders): boolean {
  if (status !== 200) return false
  const tags = asked.get('if-none-match')
  if (tags !== undefined) {
    const etag = tagOf(headers)
    return tags.trim() === '*' || (etag !== undefined && entityTags(tags).includes(weak(etag)))
  }
  const since = dateOf(asked.get('if-modified-since'))
  if (since === null) return false
  const modified = dateOf(headers['last-modified'] ?? headers.date)
  return modified !== null && modified <= since
}

/** Returns the opaque tags of a list, for the weak comparison. */
const entityTags = (list: string): readonly string[] =>
  (list.match(/"[^"]*"|[^\s,"]+/g) ?? []).filter((each) => each !== 'W/')

const weak = (etag: string) => (etag.startsWith('W/') ? etag.slice(2) : etag)

/** Returns the first and last byte of the only range; null if the whole body is to be sent. */
function rangeOf(
  { headers: asked }: Asked,
  { headers, body }: StoredResponse
): readonly [number, number] | 'unsatisfiable' | null {
  const range = asked.get('range')
  if (range === undefined) return null
  const condition = asked.get('if-range')
  if (condition !== undefined && condition !== strongTag(headers) && condition !== strongDate(headers)) return null
  const match = /^bytes=\s*(\d{0,15})-(\d{0,15})\s*$/i.exec(range)
  if (match === null) return null
  const [, from = '', to = ''] = match
  if (from === '') {
    if (to === '') return null
    const count = Math.min(Number(to), body.length)
    return count === 0 ? 'unsatisfiable' : [body.length - count, body.length - 1]
  }
  const [first, last] = [Number(from), to === '' ? body.length - 1 : Math.min(Number(to), body.length - 1)]
  if (to !== '' && Number(to) < first) return null
  return first >= body.length ? 'unsatisfiable' : [first, last]
}

/** Returns `ETag`; undefined if the service has sent several, none of which counts. */
function tagOf({ etag }: IncomingHttpHeaders): string | undefined {
  return typeof etag === 'string' ? etag : undefined
}

function strongTag(headers: IncomingHttpHeaders): string | undefined {
  const etag = tagOf(headers)
  return etag?.startsWith('W/') ? undefined : etag
}

/** Returns `Last-Modified` if no later version can have the same: it is at least a second older than the response (RFC 9110, 8.8.2.2). */
function strongDate(headers: IncomingHttpHeaders): string | undefined {
  const [modified, date] = [dateOf(headers['last-modified']), dateOf(headers.date)]
  return modified !== null && date !== null && modified < date ? headers['last-modified'] : undefined
}
