import { token } from '../../http-syntax.ts'
import { errors } from '../../undici.ts'
import type { DispatchOptions } from '../core/types.ts'

export interface RequestHead {
  /** The request target: path and query. */
  readonly target: string
  /** Request line and fields in Latin-1, without the fields that frame the body and without the blank line. */
  readonly text: string
  /** Length of the body by the caller's Content-Length; null without one. */
  readonly length: number | null
  /** No further request may be sent on the connection. */
  readonly last: boolean
}

const { InvalidArgumentError, NotSupportedError } = errors

const notInTarget = /[^\x21-\x7e\x80-\xff]/
const notInValue = /[^\t\x20-\x7e\x80-\xff]/

type Value = string | number | readonly string[] | null | undefined

/**
 * Builds the request's header section. Throws undici's `InvalidArgumentError` for invalid input, such as CR or LF in a
 * value.
 */
export function requestHead(opts: DispatchOptions, host: string): RequestHead {
  const { method, path, headers } = opts
  const target = opts.query ? withQuery(path, opts.query) : path
  if (typeof target !== 'string' || target === '' || notInTarget.test(target)) {
    throw new InvalidArgumentError('invalid request path')
  }
  if (!token.test(method)) throw new InvalidArgumentError('invalid request method')
  const fields = new HeadFields()
  if (Array.isArray(headers)) {
    if (headers.length % 2 !== 0) throw new InvalidArgumentError('headers array must be even')
    for (let i = 0; i < headers.length; i += 2) fields.add(headers[i] as string, headers[i + 1] as Value)
  } else if (headers !== null && headers !== undefined) {
    const entries = Symbol.iterator in headers ? headers : Object.entries(headers)
    for (const [name, value] of entries as Iterable<[string, Value]>) fields.add(name, value)
  }
  const { upgrade } = opts
  if (typeof upgrade === 'string' && (upgrade === '' || notInValue.test(upgrade))) {
    throw new InvalidArgumentError('invalid upgrade')
  }
  // Close after an unexpected body: a service that ignores it would parse it as the next request.
  const last = fields.closes || opts.reset === true || (carriesBody(opts.body) && bodiless.has(method))
  const connection = typeof upgrade === 'string' ? `upgrade\r\nupgrade: ${upgrade}` : last ? 'close' : 'keep-alive'
  const line = `${method} ${target} HTTP/1.1\r\nhost: ${fields.host ?? host}\r\nconnection: ${connection}\r\n`
  return { target, text: line + fields.text, length: fields.length, last }
}

/** Returns the lines of a header to add. Throws for a header that frames the message. */
export function headerLines(name: string, value: string | readonly string[]): string {
  const fields = new HeadFields()
  fields.add(name, value)
  if (fields.host !== null || fields.length !== null || fields.closes) {
    throw new InvalidArgumentError(`header ${name} cannot be added`)
  }
  return fields.text
}

/** Returns whether there is a body. An empty one is none, as in undici: many clients pass `''` for every GET. */
function carriesBody(body: DispatchOptions['body']): boolean {
  if (body === null || body === undefined || body === '') return false
  return !(body instanceof Uint8Array) || body.byteLength > 0
}

const bodiless = new Set(['GET', 'HEAD', 'OPTIONS', 'TRACE', 'DELETE'])

class HeadFields {
  text = ''
  host: string | null = null
  length: number | null = null
  closes = false

  add(name: string, value: Value): void {
    if (value === undefined || value === null) return
    if (!sound.has(name)) learn(name)
    if (Array.isArray(value)) for (const item of value) this.#line(name, item)
    else this.#line(name, value as string | number)
  }

  #line(name: string, given: string | number): void {
    if (typeof given === 'object' || typeof given === 'symbol') {
      throw new InvalidArgumentError(`invalid ${name} header`)
    }
    const value = typeof given === 'string' ? given : String(given)
    if (notInValue.test(value)) throw new InvalidArgumentError(`invalid ${name} header`)
    if (special.has(name.length) && this.#handles(name.toLowerCase(), value)) return
    this.text += `${name}: ${value}\r\n`
  }

  /**
   * Checks a header of the connection or of the framing, which is written elsewhere; returns false for any other
   * header.
   */
  #handles(name: string, value: string): boolean {
    switch (name) {
      case 'host':
        if (this.host !== null) throw new InvalidArgumentError('duplicate host header')
        this.host = value
        return true
      case 'content-length':
        if (this.length !== null || !/^\d{1,15}$/.test(value)) {
          throw new InvalidArgumentError('invalid content-length header')
        }
        this.length = Number(value)
        return true
      case 'connection': {
        const option = value.toLowerCase()
        if (option !== 'close' && option !== 'keep-alive') throw new InvalidArgumentError('invalid connection header')
        this.closes ||= option === 'close'
        return true
      }
      case 'expect':
        throw new NotSupportedError('expect header not supported')
      case 'transfer-encoding':
      case 'keep-alive':
      case 'upgrade':
        throw new InvalidArgumentError(`invalid ${name} header`)
      default:
        return false
    }
  }
}

/** Cache of valid header names: a lookup takes a third of the time of the check. */
const sound = new Set<string>()
const mostSound = 1000

function learn(name: unknown): void {
  if (typeof name !== 'string' || !token.test(name)) throw new InvalidArgumentError('invalid header name')
  if (sound.size < mostSound && name.length <= 64) sound.add(name)
}

/** Lengths of the names that `#handles` handles; names of other lengths need no lookup. */
const special = new Set(
  ['host', 'content-length', 'connection', 'expect', 'transfer-encoding', 'keep-alive', 'upgrade'].map((n) => n.length)
)

function withQuery(path: string, query: Record<string, unknown>): string {
  if (/[?#]/.test(path))
    throw new InvalidArgumentError('Query params cannot be passed when url already contains "?" or "#".')
  const params = new URLSearchParams()
  for (const [name, value] of Object.entries(query)) {
    for (const item of Array.isArray(value) ? value : [value]) params.append(name, String(item ?? ''))
  }
  const text = params.toString()
  return text === '' ? path : `${path}?${text}`
}

/** Returns the trailer section (RFC 9110, 6.5) of fields given as name, value, name, value. */
export function trailerLines(fields: readonly string[]): string {
  let text = ''
  for (let i = 0; i + 1 < fields.length; i += 2) {
    if (!token.test(fields[i]!) || notInValue.test(fields[i + 1]!)) throw new InvalidArgumentError('invalid trailer')
    text += `${fields[i]}: ${fields[i + 1]}\r\n`
  }
  return text
}
