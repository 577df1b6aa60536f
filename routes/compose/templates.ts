/**
 * Compiles the templates of calls into functions. A value is escaped for its place, so that it cannot change the structure
 * of the request: it stays within its segment, its parameter, its field line or its JSON value.
 */
import { parseTemplate, soleReference } from '../../config/compose/template.ts'
import { setOwn } from './members.ts'
import type { Scope, TemplateDeps, Value } from './values.ts'
import { compileReference, textOf } from './values.ts'

type Part = string | Value

const compileParts = (text: string, deps: TemplateDeps): Part[] =>
  parseTemplate(text).map((part) => (typeof part === 'string' ? part : compileReference(part, deps)))

/** Returns the text of a value that must exist. */
function required(value: Value, scope: Scope): string {
  const found = value.read(scope)
  const text = textOf(found)
  if (text !== undefined) return text
  const isAbsent = found === undefined || found === null
  throw value.fault(isAbsent ? 'is missing' : Array.isArray(found) ? 'has several values' : 'is an object')
}

const concat = (parts: readonly Part[], textOfValue: (value: Value) => string) =>
  parts.reduce<string>((text, part) => text + (typeof part === 'string' ? part : textOfValue(part)), '')

/** Most bytes of a request target: the default limit of common servers. */
const mostBytes = 8192

/**
 * Compiles the path of a call. A value is one part of one segment: it is percent-encoded, and refused if it is empty, if it
 * makes the segment `.` or `..`, or if it has control characters. Slashes are refused too, unless `passesSlash`: many
 * services decode `%2F` before they resolve the path.
 */
export function compilePath(text: string, deps: TemplateDeps, passesSlash: boolean): (scope: Scope) => string {
  const segments: Part[][] = [[]]
  for (const part of compileParts(text, deps)) {
    if (typeof part !== 'string') {
      segments.at(-1)!.push(part)
      continue
    }
    const [first = '', ...others] = part.split('/')
    segments.at(-1)!.push(first)
    for (const other of others) segments.push([other])
  }
  const write = segments.map((parts) => {
    const value = parts.find((part) => typeof part !== 'string')
    if (value === undefined) {
      const literal = parts.join('')
      return () => literal
    }
    return (scope: Scope) => {
      const segment = concat(parts, (each) => encoded(each, required(each, scope), passesSlash))
      if (segment === '') throw value.fault('is empty')
      if (/^\.\.?$/.test(segment.replaceAll(/%2e/gi, '.'))) throw value.fault('is a dot segment')
      return segment
    }
  })
  return (scope) => write.map((segment) => segment(scope)).join('/')
}

function encoded(value: Value, text: string, passesSlash: boolean): string {
  if (/\p{Cc}/u.test(text)) throw value.fault('has control characters')
  if (!passesSlash && /[/\\]/.test(text)) throw value.fault('has a slash')
  if (!text.isWellFormed()) throw value.fault('is not valid Unicode')
  return encodeURIComponent(text)
}

/** Compiles the query of a call: an empty text, or `?` and the parameters. */
export function compileQuery(query: Readonly<Record<string, string>>, deps: TemplateDeps): (scope: Scope) => string {
  const parameters = Object.entries(query).map(([name, text]) => {
    const key = encodeURIComponent(name)
    const parts = compileParts(text, deps).map((part) => (typeof part === 'string' ? encodeURIComponent(part) : part))
    const [sole] = parts
    if (parts.length === 1 && typeof sole === 'object') return (scope: Scope) => repeated(key, sole, scope)
    return (scope: Scope) => {
      const value = concat(parts, (each) => encodedValue(each, required(each, scope)))
      return [`${key}=${value}`]
    }
  })
  return (scope) => {
    const all = parameters.flatMap((parameter) => parameter(scope))
    return all.length === 0 ? '' : `?${all.join('&')}`
  }
}

function encodedValue(value: Value, text: string): string {
  if (!text.isWellFormed()) throw value.fault('is not valid Unicode')
  return encodeURIComponent(text)
}

/** Returns a parameter for each item of a list, one for a single value, and none for a missing one. */
function repeated(key: string, value: Value, scope: Scope): string[] {
  const found = value.read(scope)
  if (found === undefined || found === null) return []
  return [found].flat().map((item) => {
    const text = textOf(item)
    if (text === undefined) throw value.fault('is an object')
    return `${key}=${encodedValue(value, text)}`
  })
}

/** Compiles the target of a call: path and query. */
export function compileTarget(
  path: (scope: Scope) => string,
  query: (scope: Scope) => string,
  tooLong: () => Error
): (scope: Scope) => string {
  return (scope) => {
    const target = path(scope) + query(scope)
    if (target.length > mostBytes) throw tooLong()
    return target
  }
}

/** Values of a field: one, several (such as of Set-Cookie), or none if the value is missing. */
type Field = (scope: Scope) => readonly string[]

/** Compiles the value of a header field. Values with line breaks or other control characters are refused. */
export function compileField(text: string, deps: TemplateDeps): Field {
  const parts = compileParts(text, deps)
  const [sole] = parts
  if (parts.length === 1 && typeof sole === 'object') {
    return (scope) => {
      const found = sole.read(scope)
      if (found === undefined || found === null) return []
      return [found].flat().map((item) => {
        const value = textOf(item)
        if (value === undefined) throw sole.fault('is an object')
        return fieldValue(sole, value)
      })
    }
  }
  return (scope) => {
    // Happens only in fields of the composed response: a call is not made if one that it waits for has failed.
    if (parts.some((part) => typeof part === 'object' && part.hasFailed(scope))) return []
    return [concat(parts, (value) => fieldValue(value, required(value, scope)))]
  }
}

function fieldValue(value: Value, text: string): string {
  if (!/^[\t -~]*$/.test(text)) throw value.fault('has characters that a header cannot have')
  return text.trim()
}

/** Builds a JSON value; undefined if it is missing. */
type Build = (scope: Scope) => unknown

/** Compiles the JSON body of a call. */
export function compileBody(body: unknown, deps: TemplateDeps): Build {
  if (typeof body === 'string') return compileText(body, deps)
  if (typeof body !== 'object' || body === null) return () => body
  if (Array.isArray(body)) {
    const items = body.map((item) => compileBody(item, deps))
    return (scope) => items.map((item) => item(scope)).filter((item) => item !== undefined)
  }
  const members = Object.entries(body).map(([name, value]) => [name, compileBody(value, deps)] as const)
  return (scope) => {
    const built = {}
    for (const [name, build] of members) {
      const value = build(scope)
      if (value !== undefined) setOwn(built, name, value)
    }
    return built
  }
}

function compileText(text: string, deps: TemplateDeps): Build {
  const sole = soleReference(parseTemplate(text))
  if (sole !== null) return compileReference(sole, deps).read
  const parts = compileParts(text, deps)
  return (scope) => concat(parts, (value) => required(value, scope))
}
