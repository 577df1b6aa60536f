import type { IncomingMessage } from 'node:http'
import type { FastifyRequest } from 'fastify'

/** Returns whether a list of entity tags has one, compared weakly (RFC 9110, 13.1.2). */
export function matchesTag(field: string | undefined, tag: string): boolean {
  if (field === undefined) return false
  if (field.trim() === '*') return true
  return field.split(',').some((each) => withoutWeakness(each.trim()) === withoutWeakness(tag))
}

const withoutWeakness = (tag: string) => (tag.startsWith('W/') ? tag.slice(2) : tag)

/** Returns an ETag as a weak one: the bytes are others than those of the service (RFC 9110, 8.8.3.3). */
export const weak = (tag: string): string => (tag.startsWith('"') ? `W/${tag}` : tag)

/**
 * Returns an `If-Match` with strong tags. Clients have weak ones of responses whose bytes were changed, and a weak tag never
 * matches. The service compares them with its own tags: one that is weak there does not match.
 */
const strongTags = (field: string): string => field.replace(/(?:W\/)?("[^"]*")/g, '$1')

/** Gives the service its own tags in `If-Match`. */
export function restoreTags({ headers, rawHeaders }: IncomingMessage): void {
  if (headers['if-match']?.includes('W/') !== true) return
  headers['if-match'] = strongTags(headers['if-match'])
  for (let at = 0; at < rawHeaders.length; at += 2) {
    if (rawHeaders[at]!.toLowerCase() === 'if-match') rawHeaders[at + 1] = strongTags(rawHeaders[at + 1]!)
  }
}

/**
 * Returns the ETag of a 304: weak if the client has the weak one of a response whose bytes were changed. A cache updates a stored
 * response only by its own tag.
 */
export function tagOfUnchanged(request: FastifyRequest, tag: unknown): string | null {
  const known = request.raw.headers['if-none-match']
  return typeof tag === 'string' && tag.startsWith('"') && known?.includes(`W/${tag}`) === true ? weak(tag) : null
}
