/**
 * Headers that edge concerns set for the service. Concerns write them, the bridge reads them.
 *
 * - per route, at load: `config.dropHeaders`. Clients' copies of these are removed, on any route to the same service
 * - per request: `request.upstreamHeaders`, a flat [name, value, …] that is appended to the client's headers
 */
import type { FastifyInstance, FastifyRequest } from 'fastify'
import { canonicalName } from '../../../config/header-names.ts'

declare module 'fastify' {
  interface FastifyContextConfig {
    /** Headers that are removed from clients' requests on every route that leads to the route's services. */
    dropHeaders?: readonly string[]
  }
  interface FastifyRequest {
    /** [name, value, name, value, …] for the service; null when there are none. */
    upstreamHeaders: string[] | null
    /** Names of the client's fields that do not reach the service, in lower case; null if there are none. */
    removedHeaders: Set<string> | null
    /** Test for fields of the client's trailer section that do not reach the service; null if there are none. */
    isRemovedTrailer: HeaderFilter | null
  }
}

export function decorateUpstreamHeaders(fastify: FastifyInstance): void {
  if (fastify.hasRequestDecorator('upstreamHeaders')) return
  fastify.decorateRequest('upstreamHeaders', null)
  fastify.decorateRequest('removedHeaders', null)
  fastify.decorateRequest('isRemovedTrailer', null)
}

export function addUpstreamHeader(request: FastifyRequest, name: string, value: string): void {
  if (request.upstreamHeaders === null) request.upstreamHeaders = [name, value]
  else request.upstreamHeaders.push(name, value)
}

/**
 * Sets a header for the service, in place of the one that an earlier concern has set: with two values, in whatever spelling, the
 * service could take either.
 */
export function setUpstreamHeader(request: FastifyRequest, name: string, values: string | readonly string[]): void {
  const { upstreamHeaders } = request
  if (upstreamHeaders !== null) {
    const canonical = canonicalName(name)
    for (let i = upstreamHeaders.length - 2; i >= 0; i -= 2) {
      const other = upstreamHeaders[i]!
      if (other.length === name.length && canonicalName(other) === canonical) upstreamHeaders.splice(i, 2)
    }
  }
  for (const value of [values].flat()) addUpstreamHeader(request, name, value)
}

export type HeaderFilter = (name: string) => boolean

/** Returns the test for headers that are removed from clients' requests; null if there are none. Call it at load. */
export function headerFilter(names: readonly string[] | undefined): HeaderFilter | null {
  if (!names?.length) return null
  const dropped = new Set(names.map(canonicalName))
  const lengths = new Set(names.map((name) => name.length))
  return (name) => lengths.has(name.length) && dropped.has(canonicalName(name))
}

/** Printable ASCII without outer spaces, which every server reads unchanged. */
const plain = /^(?:[\x21-\x7e](?:[\x20-\x7e]*[\x21-\x7e])?)?$/

const escaped = /%[\da-f]{2}/i

/** Returns whether a text has the form of an encoded one: sent unchanged, it would be equal to the encoded text of another caller. */
export const looksEncoded = (text: string): boolean => escaped.test(text)

/**
 * Returns a JSON value as a header value; undefined for null and undefined. Values that could not be sent unchanged, or would
 * be misread, are percent-encoded; in a list, so are items with commas. Different texts have different header values.
 */
export function headerValue(value: unknown): string | undefined {
  if (value === undefined || value === null) return undefined
  if (!Array.isArray(value)) return encode(text(value), false)
  return value.map((item) => encode(text(item), true)).join(',')
}

function text(value: unknown): string {
  return typeof value === 'object' ? JSON.stringify(value) : String(value)
}

function encode(value: string, inList: boolean): string {
  if (plain.test(value) && !looksEncoded(value) && !(inList && value.includes(','))) return value
  // A lone surrogate would make encodeURIComponent throw.
  return encodeURIComponent(value.toWellFormed())
}
