import type { IncomingHttpHeaders } from 'node:http'
import { STATUS_CODES } from 'node:http'
import type { DispatchHandler, DispatchOptions } from '../types.ts'
import { Outlet } from './outlet.ts'

/** A ready-made answer. */
export interface StaticAnswer {
  readonly status: number
  readonly headers: Readonly<Record<string, string>>
  readonly body: Buffer
}

/** Statuses whose answers have no body; RFC 9110, 6.4.1. */
export function isBodiless(status: number): boolean {
  return status === 204 || status === 304
}

/** With its length, and a content type that fits the text where none is given. */
export function staticAnswer(status: number, headers: Readonly<Record<string, string>>, text: string): StaticAnswer {
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

/** Answers a dispatch on the spot, without a service. */
export function answerWith(
  { method }: DispatchOptions,
  handler: DispatchHandler,
  status: number,
  headers: IncomingHttpHeaders,
  body: Buffer
): boolean {
  const outlet = new Outlet(handler)
  outlet.start(null)
  outlet.head(status, headers, STATUS_CODES[status] ?? '')
  if (body.length > 0 && method !== 'HEAD') outlet.data(body)
  outlet.end({})
  return true
}
