/** Values of templates while a request is served. */
import { isUtf8 } from 'node:buffer'
import type { FastifyRequest } from 'fastify'
import { allAt, valueAt } from '../../../config/json-pointer.ts'
import { soleReference } from '../../../config/template.ts'
import { cookieValues } from '../authentication/credentials.ts'
import { claimsOf } from '../claims.ts'
import { clientAddressOf } from '../protocol/client-address.ts'
import type { FieldTest } from './client-fields.ts'
import type { Source } from './source.ts'
import { parseTemplate } from './source.ts'

/** Longest value, in characters; a longer one counts as missing. */
export const longestValue = 8192

/** The request and response to which references refer. */
export interface Scope {
  readonly request: FastifyRequest
  /** Test for headers whose copies of clients are no values; null where only the client gets the text. */
  readonly isUncounted: FieldTest | null
  /** The response, in its own templates. */
  readonly response: { readonly status: number; readonly header: (name: string) => unknown } | null
}

/** Returns the text of a template; undefined if a value without a substitute is missing, or if the text is too long. */
export type Text = (scope: Scope) => string | undefined

/** Encodings of a place: a header, a query, a cookie. */
export interface TextPlace {
  /** Returns a value as the place allows it; undefined for null and undefined. `isField`: it is a part of a header section, or of the request line. */
  readonly value: (value: unknown, isField: boolean) => string | undefined
  /** Returns a text of the configuration as the place allows it. */
  readonly literal: (text: string) => string
}

/** Returns a part of a header section as text: Node reads its octets as Latin-1, and clients mostly send UTF-8. */
export function textOfField(value: string): string {
  const octets = Buffer.from(value, 'latin1')
  return isUtf8(octets) ? octets.toString() : value
}

/** Sources whose values are octets of a message. */
const asSent: ReadonlySet<Source['of']> = new Set(['request', 'headers', 'cookies', 'response'])

/** Compiles a template without faults. */
export function compileText(template: string, { value: encode, literal }: TextPlace): Text {
  const parts = parseTemplate(template).map((part) => {
    if (typeof part === 'string') return literal(part)
    const { source } = part
    const substitute = part.substitute === null ? undefined : literal(part.substitute)
    const read = reader(source)
    const isField = asSent.has(source.of)
    return (scope: Scope) => {
      const value = encode(read(scope), isField)
      return value === undefined || value === '' ? substitute : value
    }
  })
  const [first = ''] = parts
  if (parts.length < 2) return typeof first === 'string' ? () => first : (scope) => bounded(first(scope))
  return (scope) => {
    let text = ''
    for (const part of parts) {
      const next = typeof part === 'string' ? part : part(scope)
      if (next === undefined || text.length + next.length > longestValue) return undefined
      text += next
    }
    return text
  }
}

/** Compiles a template that is one reference without a text for a missing value; null for any other. The value keeps its type. */
export function compileValue(template: string): ((scope: Scope) => unknown) | null {
  const sole = soleReference(parseTemplate(template))
  return sole === null || sole.substitute !== null ? null : reader(sole.source)
}

const bounded = (text: string | undefined) => (text === undefined || text.length > longestValue ? undefined : text)

/** Returns a function that reads a value. */
export function reader(source: Source): (scope: Scope) => unknown {
  switch (source.of) {
    case 'params':
    case 'query': {
      const { of, name } = source
      return ({ request }) => valueAt(request[of], [name])
    }
    case 'headers': {
      const { name } = source
      return ({ request, isUncounted }) => (isUncounted?.(name, request) ? undefined : request.raw.headers[name])
    }
    case 'cookies': {
      const { name } = source
      return ({ request }) => cookieValues(request, name)[0]
    }
    case 'request':
      return propertyOf(source.property)
    case 'consumer': {
      const { property } = source
      return ({ request }) => nonEmpty(request.consumer?.[property])
    }
    case 'claims': {
      const { members } = source
      return ({ request }) => allAt(claimsOf(request), members)
    }
    case 'response': {
      const { header } = source
      return ({ response }) => (header === null ? response?.status : response?.header(header))
    }
  }
}

const nonEmpty = (value: string | readonly string[] | undefined) => (value?.length === 0 ? undefined : value)

function propertyOf(property: Extract<Source, { of: 'request' }>['property']): (scope: Scope) => unknown {
  switch (property) {
    case 'method':
      return ({ request }) => request.method
    case 'path':
      return ({ request }) => request.originalUrl.split('?', 1)[0]
    case 'host':
      return ({ request }) => request.host
    case 'scheme':
      return ({ request }) => request.protocol
    case 'ip':
      return ({ request }) => clientAddressOf(request)
    case 'id':
      return ({ request }) => request.id
  }
}
