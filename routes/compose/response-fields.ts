/** Reads fields of a response. undici has a list for a field that a service sends as several lines. */
import type { IncomingHttpHeaders } from 'node:http'

/** Returns the value of a field that is a list: several lines are one list (RFC 9110, 5.3). Empty without the field. */
export const listField = (headers: IncomingHttpHeaders, name: string): string => [headers[name] ?? []].flat().join(', ')

/** Returns the value of a field that has one value: of several, the first (RFC 9111, 4.2.1 and 5.1). */
export const soleField = (headers: IncomingHttpHeaders, name: string): string => [headers[name] ?? []].flat()[0] ?? ''
