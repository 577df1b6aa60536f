/**
 * Templates of lines. Besides the references of other templates they have the fields of the JSON line, by their names, and
 * the time.
 */
import type { FastifyReply, FastifyRequest } from 'fastify'
import { isAlwaysSecret, isSecretField, isSecretParameter, maskCredentials } from '../../../config/credentials.ts'
import type { Template as AnyTemplate, Reference } from '../../../config/template.ts'
import { parseTemplate as parse, soleReference } from '../../../config/template.ts'
import { jsonValue } from '../../log-line.ts'
import type { Source } from '../templates/source.ts'
import { parseSource } from '../templates/source.ts'
import { reader } from '../templates/values.ts'
import { delimitersOf, escaperFor } from './escape.ts'
import type { AccessFields } from './fields.ts'
import { fieldNames } from './fields.ts'

/** A line and the request that it is about; null for a refusal before routing. */
export interface Entry {
  readonly fields: AccessFields
  readonly request: FastifyRequest | null
  readonly reply: FastifyReply | null
  /** Header section of the service's response, if it is needed. */
  readonly ofService: Readonly<Record<string, unknown>> | null
}

const months = ['Jan', 'Feb', 'Mar', 'Apr', 'May', 'Jun', 'Jul', 'Aug', 'Sep', 'Oct', 'Nov', 'Dec']

/** The time in UTC as in Apache's common log format. */
function commonTime(): string {
  const [, year, month, day, time] = /^(\d+)-(\d+)-(\d+)T([\d:]+)/.exec(new Date().toISOString())!
  return `${day}/${months[Number(month) - 1]}/${year}:${time} +0000`
}

/** Other values of a line, by their names. */
const others = {
  time: () => new Date().toISOString(),
  'time.common': commonTime,
  'time.unix': () => Date.now() / 1000,
  protocol: ({ request }: Entry) => request && `HTTP/${request.raw.httpVersion}`,
  // With the values of parameters whose names suggest a secret replaced.
  target: ({ request }: Entry) => request && maskCredentials(request.clientTarget ?? request.raw.url!),
  // Without the query, which may have secrets of another page.
  referer: ({ request }: Entry) =>
    request && maskCredentials(String(request.raw.headers.referer ?? '').split(/[?#]/, 1)[0]!)
} as const

/** The value that a reference of a line stands for. */
export type LineSource =
  | { readonly of: 'field'; readonly name: keyof AccessFields }
  | { readonly of: 'line'; readonly name: keyof typeof others }
  | Source

/** The names of a line's own values. */
export const lineWords: readonly string[] = [...fieldNames, ...Object.keys(others)]

export type LineTemplate = AnyTemplate<LineSource>

/** Parses a template. Throws an error whose message is the fault. */
export const parseLine = (text: string): LineTemplate =>
  parse(text, (path, whole): LineSource => {
    if (Object.hasOwn(others, path)) return { of: 'line', name: path as keyof typeof others }
    if ((fieldNames as readonly string[]).includes(path)) return { of: 'field', name: path as keyof AccessFields }
    return parseSource(path, whole, lineWords)
  })

/** Returns whether the value of a header, with its name in lower case, is not written to a log. */
export type IsMasked = (name: string) => boolean

/** Returns the test for headers that are masked, except those that the configuration names. */
export function maskingExcept(shown: readonly string[] = []): IsMasked {
  const names = new Set(shown.map((name) => name.toLowerCase()))
  return (name) => isSecretField(name) && (isAlwaysSecret(name) || !names.has(name))
}

/** Returns whether the value of a reference is not written to a log. Any cookie may be that of a session. */
export function isMaskedSource(source: LineSource, isMasked: IsMasked): boolean {
  switch (source.of) {
    case 'cookies':
      return true
    case 'params':
    case 'query':
      return isSecretParameter(source.name)
    case 'headers':
      return isMasked(source.name)
    case 'response':
      return source.header !== null && isMasked(source.header)
    default:
      return false
  }
}

/** Text in place of a secret: it shows that there is a value. */
export const mask = '***'

/** Returns whether a template refers to headers of the response. */
export const readsResponse = (template: LineTemplate): boolean =>
  template.some((part) => typeof part !== 'string' && part.source.of === 'response')

/** Returns the length of the body of a response that the gateway itself has sent in full. */
function ownLength(reply: FastifyReply | null): number | undefined {
  if (reply === null || !reply.raw.writableFinished || reply.request.method === 'HEAD') return undefined
  const length = Number(reply.getHeader('content-length') ?? Number.NaN)
  return Number.isSafeInteger(length) && reply.statusCode !== 304 ? length : undefined
}

function readerOf(source: LineSource, isMasked: IsMasked): (entry: Entry) => unknown {
  if (source.of === 'field' && source.name === 'bytesSent')
    return ({ fields, reply }) => fields.bytesSent ?? ownLength(reply)
  if (source.of === 'field') return ({ fields }) => fields[source.name]
  if (source.of === 'line') return others[source.name]
  // A target in absolute form may have credentials, which the field does not have.
  if (source.of === 'request' && source.property === 'path') return ({ fields }) => fields.path
  const read = reader(source)
  const isSecret = isMaskedSource(source, isMasked)
  return (entry) => {
    const { request } = entry
    if (request === null) return undefined
    const value = read({ request, isUncounted: null, response: responseOf(entry) })
    return isSecret && value !== undefined && value !== null ? mask : value
  }
}

/** The header section that a response was sent with: fields of the gateway, else those of the service. */
const responseOf = ({ reply, ofService, fields }: Entry) => ({
  status: fields.status!,
  header: (name: string) => reply!.getHeader(name) ?? ofService?.[name]
})

const isMissing = (value: unknown) => value === undefined || value === null || value === ''

/** A value as text. Lists are joined by commas. */
const asText = (value: unknown): string =>
  typeof value === 'object' && !(Array.isArray(value) && value.every((each) => typeof each !== 'object'))
    ? jsonValue(value)
    : String(value)

/** Compiles a template to a function that returns a line without its end. Missing values are `-`. */
export function compileText(text: string, isMasked: IsMasked = maskingExcept()): (entry: Entry) => string {
  const template = parseLine(text)
  let isQuoted = false
  const parts = template.map((part, index) => {
    if (typeof part === 'string') {
      if (part.split('"').length % 2 === 0) isQuoted = !isQuoted
      return part
    }
    const [before, after] = [template[index - 1], template[index + 1]]
    const escaped = escaperFor(delimitersOf(literal(before), literal(after), isQuoted))
    const read = readerOf(part.source, isMasked)
    const substitute = part.substitute ?? '-'
    return (entry: Entry) => {
      const value = read(entry)
      return isMissing(value) ? substitute : escaped(asText(value))
    }
  })
  return (entry) => {
    let line = ''
    for (const part of parts) line += typeof part === 'string' ? part : part(entry)
    return line
  }
}

const literal = (part: string | Reference<LineSource> | undefined) => (typeof part === 'string' ? part : '')

/**
 * Compiles a mapping of templates to a function that returns the members of a JSON object. A template that is one reference keeps
 * the type of its value, and is omitted without a value.
 */
export function compileMembers(
  templates: Readonly<Record<string, string>>,
  isMasked: IsMasked = maskingExcept()
): (entry: Entry) => Record<string, unknown> {
  const members = Object.entries(templates).map(([name, text]) => {
    const template = parseLine(text)
    const sole = soleReference(template)
    if (sole !== null) {
      const read = readerOf(sole.source, isMasked)
      return [name, (entry: Entry) => valueOr(read(entry), sole.substitute)] as const
    }
    const parts = template.map((part) =>
      typeof part === 'string' ? part : ([readerOf(part.source, isMasked), part] as const)
    )
    const joined = (entry: Entry) => {
      let value = ''
      for (const part of parts) {
        value += typeof part === 'string' ? part : asText(valueOr(part[0](entry), part[1].substitute) ?? '-')
      }
      return value
    }
    return [name, joined] as const
  })
  return (entry) => {
    const object: Record<string, unknown> = {}
    for (const [name, value] of members) object[name] = value(entry)
    return object
  }
}

const valueOr = (value: unknown, substitute: string | null) => (isMissing(value) ? (substitute ?? undefined) : value)
