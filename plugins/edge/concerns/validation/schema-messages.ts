/** Messages about schemas that are no JSON Schemas. */
import { didYouMean } from '../../../../config/nearest.ts'
import { formats } from './formats.ts'

/** An error of ajv about a schema. */
interface SchemaError {
  readonly instancePath: string
  readonly keyword: string
  readonly params: object
  readonly message?: string | undefined
}

/** Types of other languages, and those of JSON Schema for the same values. */
const otherNames: Readonly<Record<string, string>> = {
  int: 'integer', int32: 'integer", with "format: int32', int64: 'integer", with "format: int64', long: 'integer', float: 'number',
  double: 'number', decimal: 'number', str: 'string', text: 'string', char: 'string', bool: 'boolean', dict: 'object', map: 'object',
  struct: 'object', list: 'array', none: 'null', date: 'string", with "format: date', datetime: 'string", with "format: date-time',
  uuid: 'string", with "format: uuid', email: 'string", with "format: email', file: 'string'
} // biome-ignore format: a list

/** Formats that are in use, and that the gateway does not check. */
const uncheckedFormats = new Set([
  'regex', 'relative-json-pointer', 'uri-template', 'idn-email', 'idn-hostname',
  'iri', 'iri-reference', 'decimal', 'char', 'html', 'commonmark', 'media-range', 'unixtime', 'data', 'datetime', 'timestamp', 'phone', 'currency'
]) // biome-ignore format: a list

const longest = 100

/** Returns a value of a schema as a message shows it. */
export function shown(value: unknown): string {
  const text = JSON.stringify(value) ?? 'nothing'
  return text.length > longest ? `${text.slice(0, longest)}…` : text
}

/** Returns the error that says most: of alternatives, the one that is about the innermost value. */
export const innermost = <T extends SchemaError>(errors: readonly T[]): T | undefined =>
  errors.toSorted((a, b) => b.instancePath.split('/').length - a.instancePath.split('/').length)[0]

/** Returns the message for an error about a value of a schema. */
export function schemaMessage({ keyword, params, message = 'is not valid' }: SchemaError, value: unknown): string {
  if (keyword !== 'enum') return `${message}, found ${shown(value)}`
  const allowed = (params as { allowedValues: readonly unknown[] }).allowedValues.map(String)
  return `expected one of ${allowed.join(', ')}, found ${shown(value)}${typeAdvice(value, allowed)}`
}

function typeAdvice(value: unknown, allowed: readonly string[]): string {
  if (typeof value !== 'string') return ''
  if (value.toLowerCase() === 'any') return '; leave out "type" for values of any type'
  const other = Object.hasOwn(otherNames, value.toLowerCase()) ? otherNames[value.toLowerCase()]! : null
  return other !== null && allowed.includes(other.split('"')[0]!)
    ? `; did you mean "${other}"?`
    : didYouMean(value, allowed)
}

/** Returns the message for a format that looks misspelt; null for others, which schemas may have. */
export function formatDoubt(format: unknown): string | null {
  if (typeof format !== 'string' || uncheckedFormats.has(format)) return null
  const near = didYouMean(format, Object.keys(formats))
  return near === '' ? null : `unknown format "${format}"${near}`
}
