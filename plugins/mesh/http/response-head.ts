/**
 * Strict parser of status lines and fields (RFC 9112, 4 and 5): it rejects input that other parsers could read
 * differently.
 */
import type { IncomingHttpHeaders } from 'node:http'
import { MalformedResponse } from './malformed.ts'

export interface ResponseHead {
  /** Minor version: 0 or 1. */
  readonly minor: number
  readonly status: number
  /** Reason phrase in Latin-1. */
  readonly text: string
  readonly headers: IncomingHttpHeaders
  /** Fields as received: name, value, name, value. */
  readonly rawHeaders: string[]
}

/** Headers by name, without a prototype: a service may send a header named `constructor`. */
class Fields {}
Object.setPrototypeOf(Fields.prototype, null)
Reflect.deleteProperty(Fields.prototype, 'constructor')

const bad = 0
const good = 1
const upper = 2

/** Kinds of characters in a field name (RFC 9110, 5.6.2: tchar). */
const nameCharacters = new Uint8Array(256)
for (const c of "!#$%&'*+-.^_`|~0123456789abcdefghijklmnopqrstuvwxyz") nameCharacters[c.charCodeAt(0)] = good
for (const c of 'ABCDEFGHIJKLMNOPQRSTUVWXYZ') nameCharacters[c.charCodeAt(0)] = upper

const [tab, lf, cr, space, colon, del] = [9, 10, 13, 32, 58, 127] as const

/** Parses a header section: the lines of `text` up to `end`, where the blank line begins. */
export function parseHead(text: string, end: number): ResponseHead {
  const minor = text.charCodeAt(7) - 48
  const status = digits(text, 9, 12)
  const lineEnd = text.indexOf('\r\n')
  checkBeginning(text)
  if (
    (minor !== 0 && minor !== 1) ||
    text.charCodeAt(8) !== space ||
    status < 100 ||
    status > 599 || // invalid (RFC 9110, 15), and HTTP/2 cannot carry it
    (lineEnd !== 12 && text.charCodeAt(12) !== space)
  ) {
    throw new MalformedResponse('HPE_INVALID_STATUS', 'the status line is not valid HTTP/1.x')
  }
  for (let i = 12; i < lineEnd; i++) checkContent(text.charCodeAt(i))
  const rawHeaders: string[] = []
  const headers = parseFields(text, lineEnd + 2, end, rawHeaders)
  return { minor, status, text: text.slice(13, lineEnd), headers, rawHeaders }
}

/** Checks the start of an incomplete header section, so that a response which is not HTTP fails at once. */
export function checkBeginning(text: string): void {
  if (text.startsWith('HTTP/1.') || 'HTTP/1.'.startsWith(text)) return
  throw new MalformedResponse('HPE_INVALID_CONSTANT', 'the response does not begin with HTTP/1')
}

/**
 * Checks the line ends of an incomplete header section from `start`; with bare LFs, its blank line would never be
 * found.
 */
export function checkLines(text: string, start: number): void {
  for (let at = text.indexOf('\n', start); at >= 0; at = text.indexOf('\n', at + 1)) {
    if (text.charCodeAt(at - 1) !== cr)
      throw new MalformedResponse('HPE_CR_EXPECTED', 'a line feed without a carriage return before it')
  }
}

/**
 * Parses fields of a header or trailer section. Repeated ones become a list; `raw` receives all of them as they came.
 */
export function parseFields(text: string, start: number, end: number, raw: string[]): IncomingHttpHeaders {
  const headers = new Fields() as Record<string, string | string[] | undefined>
  let at = start
  while (at < end) {
    const nameStart = at
    let kinds = good
    for (; at < end; at++) {
      const c = text.charCodeAt(at)
      if (c === colon) break
      const kind = nameCharacters[c]!
      if (kind === bad) throw new MalformedResponse('HPE_INVALID_HEADER_TOKEN', 'invalid character in a field name')
      kinds |= kind
    }
    if (at === nameStart || at === end) {
      throw new MalformedResponse('HPE_INVALID_HEADER_TOKEN', 'a line in the header section is not a field')
    }
    const rawName = text.slice(nameStart, at++)
    while (isBlank(text.charCodeAt(at))) at++
    const valueStart = at
    for (; at < end; at++) {
      const c = text.charCodeAt(at)
      if (c === cr) break
      checkContent(c)
    }
    if (at < end && text.charCodeAt(at + 1) !== lf) {
      throw new MalformedResponse('HPE_LF_EXPECTED', 'a carriage return without a line feed after it')
    }
    let valueEnd = at
    while (valueEnd > valueStart && isBlank(text.charCodeAt(valueEnd - 1))) valueEnd--
    const value = text.slice(valueStart, valueEnd)
    at += 2
    raw.push(rawName, value)
    const name = kinds & upper ? rawName.toLowerCase() : rawName
    const before = headers[name]
    if (before === undefined) headers[name] = value
    else if (typeof before === 'string') headers[name] = [before, value]
    else before.push(value)
  }
  return headers
}

/** Rejects control characters in a field value, except tab (RFC 9110, 5.5). */
function checkContent(c: number): void {
  if ((c < space && c !== tab) || c === del) {
    throw new MalformedResponse('HPE_INVALID_HEADER_TOKEN', 'a control character in the header section')
  }
}

const isBlank = (c: number) => c === space || c === tab

function digits(text: string, start: number, end: number): number {
  let number = 0
  for (let i = start; i < end; i++) {
    const digit = text.charCodeAt(i) - 48
    if (!(digit >= 0 && digit <= 9)) return -1
    number = number * 10 + digit
  }
  return number
}

/** Values in place of a body length: the body ends with its last chunk, or with the connection. */
export const chunked = -1
export const untilClose = -2

/**
 * Returns the length of the body (RFC 9112, 6.3), without the leniency for old services: ambiguous framing is rejected.
 */
export function bodyLength({ status, headers }: ResponseHead, method: string): number {
  const { 'transfer-encoding': coding, 'content-length': announced } = headers as Record<string, string | string[]>
  if (announced !== undefined) {
    const length = typeof announced === 'string' ? digits(announced, 0, announced.length) : -1
    if (announced === '' || length < 0 || length > Number.MAX_SAFE_INTEGER) {
      throw new MalformedResponse('HPE_INVALID_CONTENT_LENGTH', 'the Content-Length is not a single number')
    }
    if (coding !== undefined) {
      throw new MalformedResponse('HPE_INVALID_TRANSFER_ENCODING', 'both Content-Length and Transfer-Encoding')
    }
    return isBodiless(status, method) ? 0 : length
  }
  if (coding !== undefined && (typeof coding !== 'string' || coding.toLowerCase() !== 'chunked')) {
    throw new MalformedResponse('HPE_INVALID_TRANSFER_ENCODING', 'a Transfer-Encoding other than chunked')
  }
  if (isBodiless(status, method)) return 0
  return coding === undefined ? untilClose : chunked
}

function isBodiless(status: number, method: string): boolean {
  return method === 'HEAD' || status === 204 || status === 304
}

/** Returns whether the header section allows another request on the connection (RFC 9112, 9.3). */
export function isPersistent({ minor, status, headers }: ResponseHead): boolean {
  const { connection } = headers
  // If the service sends the forbidden body all the same, it would be parsed as the next response.
  if ((status === 204 || status === 304) && announcesBody(headers)) return false
  if (connection === undefined) return minor === 1
  const tokens = String(connection).toLowerCase()
  if (/(^|[\s,])close([\s,]|$)/.test(tokens)) return false
  if (minor === 1) return true
  // Chunked coding in HTTP/1.0 is faulty framing (RFC 9112, 6.1).
  return /(^|[\s,])keep-alive([\s,]|$)/.test(tokens) && headers['transfer-encoding'] === undefined
}

function announcesBody({ 'content-length': length, 'transfer-encoding': coding }: IncomingHttpHeaders): boolean {
  return coding !== undefined || (length !== undefined && Number(length) > 0)
}

/**
 * Returns the service's idle timeout of the connection (`Keep-Alive: timeout`) in milliseconds; null if it sent none.
 */
export function idleHint({ 'keep-alive': hint }: IncomingHttpHeaders): number | null {
  const seconds = hint === undefined ? null : /(?:^|[\s,])timeout=(\d+)/i.exec(String(hint))
  return seconds === null ? null : Number(seconds[1]) * 1000
}
