/** The decision that a response of the server stands for. */
import { isUtf8 } from 'node:buffer'
import type { IncomingHttpHeaders } from 'node:http'
import type { AuthResponse } from '../../bridge/auth-server.ts'
import { AuthFailure } from '../../bridge/auth-server.ts'
import { fieldValue } from '../../bridge/response-fields.ts'
import { undecidedReasons } from '../../bridge/undecided.ts'
import type { ForwardAuthOptions } from './options.ts'

/** A closed list, documented in plugins/edge/access-log/README.md. */
export const forwardAuthReasons = undecidedReasons('forward_auth')
export const refusedReason = 'forward_auth_refused'

type Fields = readonly (readonly [name: string, values: readonly string[]])[]

export interface Allowed {
  readonly isAllowed: true
  /** Headers for the service. */
  readonly forService: Fields
  readonly forClient: Fields
  readonly consumer: string | null
  /** Milliseconds for which the decision may be kept. */
  readonly ttl: number
}

export interface Refused {
  readonly isAllowed: false
  readonly status: number
  readonly forClient: Fields
  readonly body: Buffer | null
}

/** Returns whether a response has a body that is needed. */
export const needsBody = ({ format }: ForwardAuthOptions, status: number): boolean =>
  format === 'opa' ? status === 200 : status >= 300 && status < 500

/** Returns the decision. Throws an `AuthFailure` if the response is none. */
export function decisionOf(options: ForwardAuthOptions, response: AuthResponse): Allowed | Refused {
  const { status, headers, body } = response
  if (options.format === 'opa') return ofOpa(options, status, body)
  if (status >= 200 && status < 300) return allowed(options, headers)
  // A 304 is a response to a conditional request, which the call is not.
  if (status < 300 || status >= 500 || status === 304) throw new AuthFailure('status', `status ${status}`)
  const isBodySent = body !== null && body.length > 0
  const names = isBodySent ? [...options.refusalHeaders, 'content-encoding'] : withoutBodyFields(options.refusalHeaders)
  return { isAllowed: false, status, forClient: pick(headers, names), body: isBodySent ? body : null }
}

const withoutBodyFields = (names: readonly string[]) => names.filter((name) => !/^content-/i.test(name))

function allowed(options: ForwardAuthOptions, headers: IncomingHttpHeaders): Allowed {
  const { responseHeaders, clientHeaders, consumer, cache } = options
  const forService = pick(headers, responseHeaders)
  const given = consumer === undefined ? [] : pick(headers, [consumer])
  for (const [name, values] of [...forService, ...given]) {
    // Otherwise two callers could become one, or the service could read another value.
    if (values.some((value) => !fieldValue.test(value))) throw new AuthFailure('malformed', `header ${name}`)
  }
  const [, names = []] = given[0] ?? []
  if (names.length > 1) throw new AuthFailure('malformed', `several headers ${consumer}`)
  const id = Buffer.from(names[0] ?? '', 'latin1')
  // With replacement characters, two names could become one.
  if (!isUtf8(id)) throw new AuthFailure('malformed', `header ${consumer} is not UTF-8`)
  const ttl = cache === undefined || headers['set-cookie'] !== undefined ? 0 : lifetime(headers, cache.ttl)
  return { isAllowed: true, forService, forClient: pick(headers, clientHeaders), consumer: id.toString() || null, ttl }
}

/** Returns the time to keep a decision: at most what its `Cache-Control` allows. */
function lifetime({ 'cache-control': control }: IncomingHttpHeaders, most: number): number {
  if (control === undefined) return most
  if (/\b(?:no-store|no-cache)\b/i.test(control)) return 0
  const seconds = /\bmax-age=(\d{1,9})/i.exec(control)?.[1]
  return seconds === undefined ? most : Math.min(most, Number(seconds) * 1000)
}

function pick(headers: IncomingHttpHeaders, names: readonly string[]): Fields {
  return names.flatMap((name) => {
    const value = headers[name.toLowerCase()]
    return value === undefined ? [] : [[name.toLowerCase(), [value].flat()] as const]
  })
}

function ofOpa(options: ForwardAuthOptions, status: number, body: Buffer | null): Allowed | Refused {
  if (status !== 200) throw new AuthFailure('status', `status ${status}`)
  if (body === null) throw new AuthFailure('malformed', 'the response is too large or incomplete')
  const result = resultOf(body)
  // An undefined decision has no result.
  const isObject = typeof result === 'object' && result !== null && !Array.isArray(result)
  const {
    allow = false,
    headers,
    status: code = 403,
    body: text
  } = (isObject ? result : { allow: result }) as OpaResult
  if (typeof allow !== 'boolean') throw new AuthFailure('malformed', '"allow" is not a boolean')
  const fields = fieldsOf(headers)
  if (allow) return allowed(options, fields)
  const isStatus = typeof code === 'number' && Number.isInteger(code) && code >= 300 && code < 500 && code !== 304
  const names = [...options.refusalHeaders]
  return {
    isAllowed: false,
    status: isStatus ? code : 403,
    forClient: pick(fields, names),
    body: typeof text === 'string' && text !== '' ? Buffer.from(text) : null
  }
}

interface OpaResult {
  readonly allow?: unknown
  readonly headers?: unknown
  readonly status?: unknown
  readonly body?: unknown
}

function resultOf(body: Buffer): unknown {
  try {
    const document: unknown = JSON.parse(body.toString())
    if (typeof document === 'object' && document !== null && !Array.isArray(document))
      return Reflect.get(document, 'result') ?? false
  } catch {
    // Reported below, without the text, which may hold secrets.
  }
  throw new AuthFailure('malformed', 'the response is not a JSON object')
}

/** Returns the headers of a result, as Node has them. */
function fieldsOf(given: unknown): IncomingHttpHeaders {
  const fields = Object.create(null) as Record<string, string[]>
  if (typeof given !== 'object' || given === null) return fields
  for (const [name, value] of Object.entries(given)) {
    const values = [value].flat().filter((each) => ['string', 'number', 'boolean'].includes(typeof each))
    if (values.length > 0)
      fields[name.toLowerCase()] = values.map((each) => Buffer.from(String(each)).toString('latin1'))
  }
  return fields as IncomingHttpHeaders
}
