/** The request to the server that decides, made from the request of a client. */
import type { FastifyRequest } from 'fastify'
import { canonicalName } from '../../../../config/header-names.ts'
import { ENCODED_SLASH, readPath } from '../../../../config/path-reading.ts'
import { headerValues } from '../../authentication/credentials.ts'
import type { HeaderFilter } from '../../bridge/upstream-headers.ts'
import type { UpstreamRequests } from '../../bridge/upstream-request.ts'
import { claimsOf } from '../../claims.ts'
import { clientAddressOf } from '../../protocol/client-address.ts'
import { fieldsOf } from '../../protocol/headers.ts'
import type { ForwardAuthOptions } from './options.ts'

export interface Outgoing {
  readonly method: 'GET' | 'POST'
  readonly headers: string[]
  readonly body: Buffer | null
  /** Everything on which the decision can depend; null without a cache. */
  readonly decisive: string | null
}

/** Fields that are not sent unless `requestHeaders` names them: of the body, and those that ask for another response than a decision. */
const notSent: ReadonlySet<string> = new Set([
  'content-length', 'content-type', 'content-encoding', 'content-digest', 'accept-encoding', 'range', 'if-range',
  'if-match', 'if-none-match', 'if-modified-since', 'if-unmodified-since'
]) // biome-ignore format: a list

/** Fields of the message to the server, which no client may set. */
const ownFields: ReadonlySet<string> = new Set(['x-forwarded-method', 'x-forwarded-uri', 'content-length', 'te'])

/** Forwarding headers of the gateway, by the property that they carry. */
const byProperty: Readonly<Record<string, string>> = {
  'x-forwarded-for': 'ip',
  'x-forwarded-proto': 'proto',
  'x-forwarded-host': 'host'
}

const ofGateway: ReadonlySet<string> = new Set([
  ...Object.keys(byProperty),
  'x-forwarded-port',
  'x-forwarded-prefix',
  'forwarded'
])
const ofTrace: ReadonlySet<string> = new Set(['traceparent', 'tracestate'])

/** Returns the decoded segments of a path, as routes match them: one list for all spellings of a path. */
function segmentsOf(path: string): string[] {
  return readPath(path)?.segments.map((segment) => segment.replaceAll(ENCODED_SLASH, '/')) ?? []
}

/** Returns the function that makes the requests for one route. `isDropped` is complete once all routes are added. */
export function outgoingFor(
  options: ForwardAuthOptions,
  requestIdHeader: string,
  requests: () => UpstreamRequests,
  isDropped: () => HeaderFilter | null
): (request: FastifyRequest, body: Buffer | null) => Outgoing {
  const { cache, format, requestHeaders } = options
  const isOpa = format === 'opa'
  const properties = cache === undefined ? null : new Set(cache.key)
  const cachedHeaders = cache?.key.flatMap((field) =>
    field.startsWith('header:') ? [field.slice('header:'.length)] : []
  )
  const listed = cachedHeaders ?? requestHeaders
  const allowed = listed === undefined ? null : new Set(listed.map(canonicalName))
  const transport = new Set(['via', requestIdHeader.toLowerCase()])
  const has = (property: string) => properties === null || properties.has(property)

  const isSent = (name: string): boolean => {
    const canonical = canonicalName(name)
    if (ownFields.has(canonical)) return false
    if (ofGateway.has(name)) return has(byProperty[name] ?? '')
    return allowed === null ? !notSent.has(canonical) : allowed.has(canonical)
  }

  return (request, body) => {
    const rules = { strippedPrefix: null, host: null, isTransparent: false, isDropped: isDropped() }
    const all = requests().headers(request, rules, false)
    const sent: string[] = []
    const own: string[] = []
    for (let i = 0; i < all.length; i += 2) {
      const name = all[i]!
      if (transport.has(name) || (properties === null && ofTrace.has(name))) own.push(name, all[i + 1]!)
      else if (isSent(name)) sent.push(name, all[i + 1]!)
    }
    const target = request.raw.url!
    const query = target.indexOf('?')
    const path = query === -1 ? target : target.slice(0, query)
    if (isOpa) {
      const fields = fieldsOf(sent)
      const forwarded = (name: string) => fields[name]
      const input = {
        ...(has('method') && { method: request.method }),
        ...(has('proto') && { proto: forwarded('x-forwarded-proto') }),
        ...(has('host') && { host: forwarded('x-forwarded-host') }),
        ...((has('uri') || has('path')) && { path, segments: segmentsOf(path) }),
        ...(has('uri') && { query: request.query }),
        ...(has('ip') && { ip: clientAddressOf(request) }),
        headers: Object.fromEntries(Object.entries(fields).filter(([name]) => !ofGateway.has(name))),
        ...(has('consumer') && { consumer: request.consumer }),
        ...(has('claims') && { claims: claimsOf(request) ?? null })
      }
      const text = JSON.stringify({ input })
      const headers = ['content-type', 'application/json', 'accept', 'application/json', ...own]
      return { method: 'POST', headers, body: Buffer.from(text), decisive: properties && text }
    }
    if (has('method')) sent.push('x-forwarded-method', request.method)
    if (has('uri') || has('path')) sent.push('x-forwarded-uri', has('uri') ? target : path)
    if (body !== null && allowed?.has('content-type') !== true) {
      for (const name of ['content-type', 'content-encoding'])
        for (const value of headerValues(request, name)) sent.push(name, value)
    }
    const decisive = properties && JSON.stringify(sent)
    return { method: body === null ? 'GET' : 'POST', headers: [...sent, ...own], body, decisive }
  }
}
