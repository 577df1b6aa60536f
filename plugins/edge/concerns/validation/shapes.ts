/** The types that a schema allows, which decide how the text of a parameter is read. */
import { pointer as below } from '../../../../config/faults.ts'
import { isObject } from '../../strict-json.ts'
import type { Place, Sources } from './sources.ts'
import { valueAt } from './sources.ts'

export interface Shape {
  /** Types of JSON Schema; empty if the schema names none. */
  readonly types: ReadonlySet<string>
  readonly items: Shape | null
  readonly properties: ReadonlyMap<string, Shape>
}

const nothing: Shape = { types: new Set(), items: null, properties: new Map() }
/** Levels of values within a parameter whose types are read: an object with lists. */
const levels = 2
/** Most schemas that are read for one shape: references may lead to very many. */
const mostSchemas = 1000

const typeOf = (value: unknown): string => {
  if (value === null) return 'null'
  return Array.isArray(value) ? 'array' : typeof value
}

/** Returns the shape of the values of a schema. References that cannot be resolved have no types; `Schemas` reports them. */
export const shapeOf = (sources: Sources, place: Place): Shape => read(sources, place, 0, { left: mostSchemas })

function read(sources: Sources, place: Place, level: number, budget: { left: number }): Shape {
  const schema = valueAt(place)
  if (!isObject(schema) || level > levels || --budget.left < 0) return nothing
  const at = (...segments: (string | number)[]): Place => ({ ...place, pointer: below(place.pointer, ...segments) })
  const inner = (...segments: (string | number)[]): Shape => read(sources, at(...segments), level + 1, budget)
  const types = new Set<string>()
  const parts: Shape[] = []
  if ('$ref' in schema) {
    try {
      parts.push(read(sources, sources.resolve(schema.$ref, place), level, budget))
    } catch {
      // Reported by `Schemas`.
    }
  }
  const { type } = schema
  if (typeof type === 'string') types.add(type)
  else if (Array.isArray(type)) for (const each of type) types.add(String(each))
  else if (Array.isArray(schema.enum)) for (const each of schema.enum) types.add(typeOf(each))
  else if ('const' in schema) types.add(typeOf(schema.const))
  if (schema.nullable === true) types.add('null')
  for (const key of ['allOf', 'anyOf', 'oneOf'] as const) {
    const list = schema[key]
    if (Array.isArray(list)) parts.push(...list.map((_, index) => read(sources, at(key, index), level, budget)))
  }
  const properties = new Map<string, Shape>()
  if (isObject(schema.properties)) {
    if (types.size === 0) types.add('object')
    for (const name of Object.keys(schema.properties)) properties.set(name, inner('properties', name))
  }
  let items = schema.items === undefined ? null : inner('items')
  if (items !== null && types.size === 0) types.add('array')
  const hasOwnTypes = types.size > 0
  for (const part of parts) {
    if (!hasOwnTypes) for (const each of part.types) types.add(each)
    for (const [name, shape] of part.properties) if (!properties.has(name)) properties.set(name, shape)
    items ??= part.items
  }
  return { types, items, properties }
}

const number = /^-?\d{1,400}(?:\.\d{1,400})?(?:[eE][+-]?\d{1,3})?$/

/** Returns a text as the value that a shape allows: a number, a boolean, null; else the text. */
export function typed(text: string, { types }: Shape): unknown {
  if (types.has('integer') || types.has('number')) {
    const value = number.test(text) ? Number(text) : Number.NaN
    if (Number.isFinite(value)) return value
  }
  if (types.has('boolean') && (text === 'true' || text === 'false')) return text === 'true'
  if (text === '' && types.has('null') && !types.has('string')) return null
  return text
}

export const isArray = ({ types }: Shape): boolean => types.has('array')
/** Returns whether the values are objects and no lists. */
export const isObjectShape = ({ types }: Shape): boolean => types.has('object') && !types.has('array')
