/**
 * Strict parser of HTTP/1.1 messages by RFC 9112, without the tolerance that it permits recipients. Text has one
 * character a byte.
 */
export type Header = [name: string, value: string]

export interface Message {
  /** The first line. */
  start: string
  headers: Header[]
  body: string
  /** Trailer section of a chunked body. */
  trailers: Header[]
  /** Offset after the message; after the received bytes if it is incomplete. */
  end: number
  complete: boolean
  /** A response whose body ends with the connection. */
  untilClose: boolean
}

export interface Request extends Message {
  method: string
  target: string
  version: string
}

export interface Response extends Message {
  status: number
}

/** Thrown for bytes that are no HTTP message. */
export class Fault extends Error {
  override readonly name = 'Fault'
  /** The request within whose body the fault is. */
  readonly request: Request | null

  constructor(message: string, request: Request | null = null) {
    super(message)
    this.request = request
  }
}

/** Syntax that a recipient must accept and a well-behaved sender does not send. */
export interface Tolerance {
  extensions?: boolean
}

const token = "[!#$%&'*+.^_`|~0-9A-Za-z-]+"
const line = new RegExp(
  `^(${token}):[\t ]*((?:[\x21-\x7e\x80-\xff](?:[\t\x20-\x7e\x80-\xff]*[\x21-\x7e\x80-\xff])?)?)[\t ]*$`
)
const requestLine = new RegExp(`^(${token}) +([\x21-\x7e\x80-\xff]+) +HTTP/(1\\.[01])$`)
const statusLine = /^HTTP\/1\.[01] ([1-9]\d\d) [\t\x20-\x7e\x80-\xff]*$/

export const headerValues = ({ headers }: { headers: Header[] }, name: string): string[] =>
  headers.filter(([given]) => given.toLowerCase() === name).map(([, value]) => value)
export const headerValue = (message: { headers: Header[] }, name: string): string | undefined =>
  headerValues(message, name)[0]

function headerOf(text: string): Header {
  const [, name, value] = line.exec(text) ?? []
  if (name === undefined || value === undefined) throw new Fault(`header line ${JSON.stringify(text)}`)
  return [name, value]
}

function headerSectionOf(text: string, at: number): { start: string; headers: Header[]; end: number } | null {
  const end = text.indexOf('\r\n\r\n', at)
  if (end < 0) return null
  const [start = '', ...lines] = text.slice(at, end).split('\r\n')
  return { start, headers: lines.map(headerOf), end: end + 4 }
}

/** `null`: no body is announced. Anything ambiguous is a fault. */
function framingOf(section: { headers: Header[] }, version: string): number | 'chunked' | null {
  const lengths = headerValues(section, 'content-length')
  const codings = headerValues(section, 'transfer-encoding')
  if (lengths.length + codings.length > 1) throw new Fault(`framed twice: ${JSON.stringify([...lengths, ...codings])}`)
  const [length] = lengths
  const [coding] = codings
  if (coding !== undefined) {
    if (coding.toLowerCase() !== 'chunked') throw new Fault(`Transfer-Encoding ${JSON.stringify(coding)}`)
    if (version === '1.0') throw new Fault('Transfer-Encoding in HTTP/1.0')
    return 'chunked'
  }
  if (length === undefined) return null
  if (!/^\d{1,15}$/.test(length)) throw new Fault(`Content-Length ${JSON.stringify(length)}`)
  return Number(length)
}

type Body = Pick<Message, 'body' | 'trailers' | 'end' | 'complete'>

function sized(text: string, at: number, length: number): Body {
  const body = text.slice(at, at + length)
  return { body, trailers: [], end: at + body.length, complete: body.length === length }
}

function chunked(text: string, begin: number, { extensions = false }: Tolerance): Body {
  let body = ''
  for (let at = begin; ; ) {
    const end = text.indexOf('\r\n', at)
    const size = /^([\da-f]{1,12})(;[\t\x20-\x7e\x80-\xff]*)?$/i.exec(end < 0 ? text.slice(at) : text.slice(at, end))
    if (end < 0) return { body, trailers: [], end: text.length, complete: false }
    if (size === null || (size[2] !== undefined && !extensions)) {
      throw new Fault(`chunk size ${JSON.stringify(text.slice(at, end).slice(0, 100))}`)
    }
    const length = Number.parseInt(size[1]!, 16)
    at = end + 2
    if (length === 0) return trailers(text, at, body)
    const chunk = text.slice(at, at + length)
    body += chunk
    at += length
    const after = text.slice(at, at + 2)
    if (chunk.length === length && !'\r\n'.startsWith(after)) throw new Fault(`after a chunk ${JSON.stringify(after)}`)
    if (after.length < 2) return { body, trailers: [], end: text.length, complete: false }
    at += 2
  }
}

function trailers(text: string, begin: number, body: string): Body {
  const fields: Header[] = []
  for (let at = begin; ; ) {
    const end = text.indexOf('\r\n', at)
    if (end < 0) return { body, trailers: [], end: text.length, complete: false }
    if (end === at) return { body, trailers: fields, end: end + 2, complete: true }
    const field = headerOf(text.slice(at, end))
    if (/^(content-length|transfer-encoding)$/i.test(field[0])) throw new Fault(`trailer ${field[0]}`)
    fields.push(field)
    at = end + 2
  }
}

/** The request that begins at `at`, or null while its header section is incomplete. */
export function readRequest(text: string, at: number, tolerance: Tolerance = {}): Request | null {
  const section = headerSectionOf(text, at)
  if (section === null) return null
  const [, method, target, version] = requestLine.exec(section.start) ?? []
  if (method === undefined || target === undefined || version === undefined) {
    throw new Fault(`request line ${JSON.stringify(section.start)}`)
  }
  const framing = framingOf(section, version)
  const request = { ...section, body: '', trailers: [], complete: false, method, target, version, untilClose: false }
  if (framing !== 'chunked') return { ...request, ...sized(text, section.end, framing ?? 0) }
  try {
    return { ...request, ...chunked(text, section.end, tolerance) }
  } catch (error) {
    throw error instanceof Fault ? new Fault(error.message, request) : error
  }
}

/** The response that begins at `at`, or null while its header section is incomplete. `closed`: no more bytes will arrive. */
export function readResponse(
  text: string,
  at: number,
  method: string,
  closed: boolean,
  tolerance: Tolerance = {}
): Response | null {
  const section = headerSectionOf(text, at)
  if (section === null) return null
  const [, code] = statusLine.exec(section.start) ?? []
  if (code === undefined) throw new Fault(`status line ${JSON.stringify(section.start.slice(0, 100))}`)
  const status = Number(code)
  const framing = framingOf(section, '1.1')
  if ((status < 200 || status === 204) && framing !== null) throw new Fault(`${status} with framing`)
  if (status === 101)
    return {
      ...section,
      status,
      body: text.slice(section.end),
      trailers: [],
      end: text.length,
      complete: true,
      untilClose: true
    }
  if (status < 200 || status === 204 || status === 304 || method === 'HEAD') {
    return { ...section, status, body: '', trailers: [], complete: true, untilClose: false }
  }
  if (framing === null) {
    return {
      ...section,
      status,
      body: text.slice(section.end),
      trailers: [],
      end: text.length,
      complete: closed,
      untilClose: true
    }
  }
  const body = framing === 'chunked' ? chunked(text, section.end, tolerance) : sized(text, section.end, framing)
  return { ...section, ...body, status, untilClose: false }
}
