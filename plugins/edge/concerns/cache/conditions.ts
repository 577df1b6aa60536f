/** Conditions of requests: those of clients, and those by which the cache asks the service to confirm a stored response. */
import type { IncomingHttpHeaders } from 'node:http'
import type { StoredHead, StoredResponse } from './stored.ts'

export const hasValidator = ({ headers }: StoredHead) =>
  headers.etag !== undefined || headers['last-modified'] !== undefined

const conditions: ReadonlySet<string> = new Set(['if-none-match', 'if-modified-since', 'range', 'if-range'])

/** Returns the header section with the conditions of a stored response in place of the client's. */
export function conditionalHeaders(pairs: readonly string[], { headers }: StoredHead): string[] {
  const kept: string[] = []
  for (let at = 0; at < pairs.length; at += 2)
    if (!conditions.has(pairs[at]!.toLowerCase())) kept.push(pairs[at]!, pairs[at + 1]!)
  const { etag, 'last-modified': modified } = headers
  if (etag !== undefined) kept.push('if-none-match', etag)
  if (modified !== undefined) kept.push('if-modified-since', modified)
  return kept
}

/** Returns whether a response to HEAD shows that the stored response to GET is outdated (RFC 9111, 4.3.5). */
export function differs({ headers, body, status }: StoredResponse, given: IncomingHttpHeaders): boolean {
  const length = given['content-length']
  return (
    status === 200 &&
    ((length !== undefined && Number(length) !== body.length) ||
      (given.etag !== undefined && given.etag !== headers.etag) ||
      (given['last-modified'] !== undefined && given['last-modified'] !== headers['last-modified']))
  )
}

/**
 * Returns whether a response to HEAD describes the stored response to GET, which it then updates (RFC 9111, 4.3.5). Without a
 * validator it could describe a later version of the same length.
 */
export function isSame(stored: StoredResponse, given: IncomingHttpHeaders): boolean {
  const { etag, 'last-modified': modified } = stored.headers
  const isConfirmed =
    (etag !== undefined && etag === given.etag) || (modified !== undefined && modified === given['last-modified'])
  return isConfirmed && stored.status === 200 && !differs(stored, given)
}
