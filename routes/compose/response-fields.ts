/** Reads fields of a response. undici has a list for a field that a service sends as several lines. */
import type { IncomingHttpHeaders } from 'node:http'

/** Returns the value of a field that is a list: several lines are one list (RFC 9110, 5.3). Empty without the field. */
export function listField(headers: IncomingHttpHeaders, name: string): string {
  const value = headers[name] ?? ''
  return typeof value === 'string' ? value : value.join(', ')
}

/** Returns the value of a field that has one value: of several, the first (RFC 9111, 4.2.1 and 5.1). */
export function soleField(headers: IncomingHttpHeaders, name: string): string {
  const value = headers[name] ?? ''
  return typeof value === 'string' ? value : (value[0] ?? '')
}
