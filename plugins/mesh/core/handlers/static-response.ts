import type { IncomingHttpHeaders } from 'node:http'
import { STATUS_CODES } from '../../../node-http.ts'
import type { DispatchHandler, DispatchOptions } from '../types.ts'
import { ResponseWriter } from './response-writer.ts'

/** A complete response in memory. */
export interface StaticResponse {
  readonly status: number
  readonly headers: Readonly<Record<string, string>>
  readonly body: Buffer
}

/** Returns whether responses with this status have no body (RFC 9110, 6.4.1). */
export function isBodiless(status: number): boolean {
  return status === 204 || status === 304
}

/** Builds a response with its Content-Length, and with a Content-Type by its text unless `headers` has one. */
export function staticResponse(
  status: number,
  headers: Readonly<Record<string, string>>,
  text: string
): StaticResponse {
  const body = isBodiless(status) ? Buffer.alloc(0) : Buffer.from(text)
  const own = Object.fromEntries(Object.entries(headers).map(([name, value]) => [name.toLowerCase(), value]))
  if (text !== '') own['content-type'] ??= isJson(text) ? 'application/json' : 'text/plain; charset=utf-8'
  if (isBodiless(status)) delete own['content-length']
  else own['content-length'] = String(body.length)
  return { status, headers: own, body }
}

function isJson(text: string): boolean {
  try {
    JSON.parse(text)
    return true
  } catch {
    return false
  }
}

/** Responds to a dispatch at once, without a service. */
export function respondWith(
  { method }: DispatchOptions,
  handler: DispatchHandler,
  status: number,
  headers: IncomingHttpHeaders,
  body: Buffer
): boolean {
  const writer = new ResponseWriter(handler)
  writer.start(null)
  writer.head(status, headers, STATUS_CODES[status] ?? '')
  if (body.length > 0 && method !== 'HEAD') writer.data(body)
  writer.end({})
  return true
}
