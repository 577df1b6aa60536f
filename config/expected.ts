/** Texts of faults: values that a schema allows, and the value that was found. */
import { isSecretKey, maskUrl, maskUserinfo } from './credentials.ts'
import type { Unit } from './units.ts'
import { units } from './units.ts'

/** Keywords of a JSON Schema that appear in messages. */
export interface Shape {
  readonly type?: string
  readonly const?: unknown
  readonly enum?: readonly unknown[]
  readonly unit?: Unit
  readonly expected?: string
  readonly format?: string
  readonly pattern?: string
  readonly minLength?: number
  readonly minItems?: number
  readonly minProperties?: number
  readonly minimum?: number
  readonly maximum?: number
  readonly then?: Shape
  readonly else?: Shape
}

/** Describes the values that a schema allows. */
export function expected(shape: Shape): string {
  if (shape.expected !== undefined) return shape.expected
  // For a value with a unit or 0, the description of the unit is enough.
  if (shape.then?.const === 0 && shape.else !== undefined) return expected(shape.else)
  if (shape.then !== undefined && shape.else !== undefined) {
    return [...new Set([expected(shape.then), expected(shape.else)])].join(' or ')
  }
  if (shape.unit !== undefined) return units[shape.unit].expected
  if (shape.format === 'peer') return 'an address or a range such as 10.0.0.0/8'
  if (shape.const !== undefined) return JSON.stringify(shape.const)
  if (shape.enum !== undefined) return `one of ${shape.enum.join(', ')}`
  const { minimum: min, maximum: max, minLength = 0, minItems = 0, minProperties = 0 } = shape
  if (shape.type === 'integer' || shape.type === 'number') {
    const range = max === undefined ? (min === undefined ? '' : ` of at least ${min}`) : ` from ${min ?? 0} to ${max}`
    return `${shape.type === 'integer' ? 'an integer' : 'a number'}${range}`
  }
  if (shape.type === 'string') return minLength > 1 ? `a string of at least ${minLength} characters` : 'a string'
  if (shape.type === 'array') return minItems > 0 ? 'a list with at least one item' : 'a list'
  if (shape.type === 'object') return minProperties > 0 ? 'a mapping with at least one key' : 'a mapping'
  return shape.type === 'boolean' ? 'true or false' : 'another value'
}

const KINDS: Readonly<Record<string, string>> = { string: 'a string', number: 'a number', boolean: 'a boolean' }

/** Describes the value at a pointer. `from`: the environment variables in its text, if any. */
export function found(data: unknown, shape: Shape, at: string, from?: string): string {
  if (data === null || data === undefined) return 'nothing'
  if (Array.isArray(data)) return data.length === 0 ? 'an empty list' : 'a list'
  if (typeof data === 'object') return Object.keys(data).length === 0 ? 'an empty mapping' : 'a mapping'
  if (data === '') return 'an empty string'
  // Values from environment variables and values of secret keys are not printed.
  const kind = KINDS[typeof data] ?? `a ${typeof data}`
  if (from !== undefined) return `${kind} (from ${from})`
  const { type, minLength = 0 } = shape
  if (typeof data === 'string' && data.length < minLength) return `${data.length}`
  if (isSecretKey(at)) return kind
  if (typeof data !== 'string') return typeof data === 'number' || typeof data === 'boolean' ? `${data}` : kind
  // Text instead of a mapping or list may be anything, even a secret, so it is not printed.
  return type === 'object' || type === 'array' ? kind : JSON.stringify(redact(data))
}

/** Masks credentials in a URL and shortens long texts. */
function redact(value: string): string {
  const text = value.includes('://') && value.includes('?') ? maskUrl(value) : maskUserinfo(value)
  return text.length > 60 ? `${text.slice(0, 60)}…` : text
}
