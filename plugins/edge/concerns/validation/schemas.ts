/**
 * Compiles JSON Schemas by ajv. Each schema is copied first, without what has no effect, with the keywords of OpenAPI 3.0
 * replaced by those of JSON Schema, and with references in a form by which ajv compiles each schema once.
 */
import type { Ajv as AjvOfDraft7, ValidateFunction } from 'ajv'
import { pointer as below } from '../../../../config/faults.ts'
import { linearSearch } from '../../../../config/linear-regexp.ts'
import { didYouMean } from '../../../../config/nearest.ts'
import type { Steps } from '../../../time-slices.ts'
import { isObject } from '../../strict-json.ts'
import { spend } from './budget.ts'
import { formats } from './formats.ts'
import { formatDoubt, innermost, schemaMessage } from './schema-messages.ts'
import type { Place, Sources } from './sources.ts'
import { SchemaFault, valueAt } from './sources.ts'
import type { Dialect } from './validators.ts'
import { checkerOf, costOfReference, isOld, reference, step, Validators } from './validators.ts'

/** Message that a schema describes: `readOnly` properties are only in responses, `writeOnly` ones only in requests. */
export type Direction = 'request' | 'response'

const single = new Set([
  'additionalProperties', 'additionalItems', 'not', 'if', 'then', 'else', 'contains', 'propertyNames', 'unevaluatedProperties',
  'unevaluatedItems'
]) // biome-ignore format: a list
/** Keywords whose schemas are all evaluated for one value. */
const branches = new Set(['allOf', 'anyOf', 'oneOf'])
const lists = new Set([...branches, 'prefixItems'])
const maps = new Set(['properties', 'patternProperties', 'dependentSchemas'])
const assertions = new Set([
  'type', 'enum', 'const', 'multipleOf', 'maximum', 'exclusiveMaximum', 'minimum', 'exclusiveMinimum', 'maxLength', 'minLength',
  'pattern', 'maxItems', 'minItems', 'uniqueItems', 'maxContains', 'minContains', 'maxProperties', 'minProperties', 'required',
  'dependentRequired', 'format'
]) // biome-ignore format: a list
const annotations = new Set([
  'title', 'description', 'default', 'examples', 'example', 'deprecated', '$comment', '$schema', '$id', 'id', '$defs', 'definitions',
  'discriminator', 'xml', 'externalDocs', 'contentMediaType', 'contentEncoding', 'contentSchema', 'readOnly', 'writeOnly', 'nullable'
]) // biome-ignore format: a list
const unsupported = new Set([
  '$anchor',
  '$dynamicRef',
  '$dynamicAnchor',
  '$recursiveRef',
  '$recursiveAnchor',
  '$vocabulary'
])
const keywords = [...single, ...lists, ...maps, ...assertions, ...annotations, 'items', 'dependencies', '$ref']

/** Most schemas within one that are no references: ajv makes one function of them. */
const mostInline = 10_000
const longestPointer = 4000
/** Most values in a keyword, such as `enum`. */
const mostValues = 1_000_000

/** Prefix of the ids of objects with parameters. */
const ofObjects = 'jingwei:object:'

type Schema = boolean | Readonly<Record<string, unknown>>

/** Schemas of one document, for one direction. */
export class Schemas {
  readonly #sources: Sources
  readonly #dialect: Dialect
  readonly #direction: Direction
  readonly #fault: (fault: SchemaFault) => void
  readonly #ids = new Map<string, string>()
  readonly #copies = new Map<string, Schema>()
  readonly #waiting: { readonly id: string; readonly place: Place }[] = []
  /** Names of properties that the schemas define. */
  readonly names = new Set<string>()
  #objects = 0
  /** Copies with a `$ref`. */
  readonly #referring: Record<string, unknown>[] = []
  /** True if a schema has a keyword that needs to know what a reference has evaluated. */
  #isUnevaluated = false
  /** Schemas that the one that is being copied may still have within it. */
  #left = 0
  #first: Validators | undefined
  #all: Validators | undefined

  constructor(sources: Sources, dialect: Dialect, direction: Direction, fault: (fault: SchemaFault) => void) {
    this.#sources = sources
    this.#dialect = dialect
    this.#direction = direction
    this.#fault = fault
  }

  /** Adds a schema; returns its id. It is copied by `copyAll`. */
  add(place: Place): string {
    const key = `${place.source.file}#${place.pointer}`
    let id = this.#ids.get(key)
    if (id === undefined) {
      id = `jingwei:${this.#ids.size}`
      this.#ids.set(key, id)
      this.#waiting.push({ id, place })
    }
    return id
  }

  /** Adds an object schema whose properties are schemas at places; returns its id. Only `validator(id, true)` has it. */
  addObject(properties: ReadonlyMap<string, Place>, rest: Readonly<Record<string, unknown>>): string {
    const id = `${ofObjects}${this.#objects++}`
    const copies = [...properties].map(([name, place]) => {
      this.names.add(name)
      return [name, this.#checked(place)]
    })
    this.#copies.set(id, { type: 'object', properties: Object.fromEntries(copies), ...rest })
    return id
  }

  #refer(copy: Record<string, unknown>, place: Place): void {
    copy[step] = costOfReference
    copy.$ref = this.add(place)
    this.#referring.push(copy)
  }

  /** Copies and checks all schemas that were added, and those that they refer to. */
  *copyAll(): Steps<void> {
    for (let next = this.#waiting.pop(); next !== undefined; next = this.#waiting.pop()) {
      this.#copies.set(next.id, this.#checked(next.place))
      yield
    }
  }

  /** Returns the copy of a schema; `true` for one with a fault, which it reports. */
  #checked(place: Place): Schema {
    const validator = checkerOf(this.#dialect)
    this.#left = mostInline
    try {
      const copy = this.#copy(valueAt(place), place)
      if (validator.validateSchema(copy)) return copy
      this.#reportInvalid(validator, place)
    } catch (error) {
      if (!(error instanceof SchemaFault)) throw error
      this.#fault(error)
    }
    return true
  }

  #reportInvalid({ errors }: AjvOfDraft7, place: Place): void {
    const error = innermost(errors ?? [])
    if (error === undefined) return
    const at = { ...place, pointer: place.pointer + error.instancePath }
    this.#fault(new SchemaFault(at, schemaMessage(error, valueAt(at))))
  }

  /** Compiles all schemas. Call it after `copyAll`. */
  *compileAll(hasAll: boolean): Steps<void> {
    if (!this.#isUnevaluated) {
      for (const copy of this.#referring) {
        copy[reference] = copy.$ref
        delete copy.$ref
        // The keyword counts this by itself.
        copy[step] = Number(copy[step]) - costOfReference
      }
    }
    const values = new Map([...this.#copies].filter(([id]) => !id.startsWith(ofObjects)))
    this.#first = new Validators(this.#dialect, values, false)
    yield* this.#first.compileAll()
    if (!hasAll) return
    this.#all = new Validators(this.#dialect, this.#copies, true)
    yield* this.#all.compileAll()
  }

  /** Returns the function for a schema. `all`: it lists all errors. Call it after `compileAll`. */
  validator(id: string, all: boolean): ValidateFunction {
    return (all ? this.#all! : this.#first!).get(id)
  }

  #copy(schema: unknown, place: Place): Schema {
    if (typeof schema === 'boolean') return schema
    // An alias of YAML may stand within its own value, or for many aliases.
    if (--this.#left < 0 || place.pointer.length > longestPointer) {
      throw new SchemaFault(place, `has more than ${mostInline} schemas within each other: refer to them by "$ref"`)
    }
    if (!isObject(schema)) throw new SchemaFault(place, 'expected a JSON Schema')
    const at = (...segments: (string | number)[]): Place => ({ ...place, pointer: below(place.pointer, ...segments) })
    const copy: Record<string, unknown> = {}
    if ('$ref' in schema) {
      this.#refer(copy, this.#sources.resolve(schema.$ref, at('$ref')))
      // Keywords beside a reference are ignored in the older dialects.
      if (isOld(this.#dialect)) return copy
    }
    for (const [key, value] of Object.entries(schema)) {
      if (key.startsWith('unevaluated')) this.#isUnevaluated = true
      if (key === '$ref' || key.startsWith('x-') || annotations.has(key)) continue
      if (single.has(key)) copy[key] = this.#copy(value, at(key))
      else if (key === 'items' && !Array.isArray(value)) copy[key] = this.#copy(value, at(key))
      else if (lists.has(key) || key === 'items') {
        const list = this.#list(value, at(key))
        copy[key] = list
        if (branches.has(key)) copy[step] = Number(copy[step] ?? 0) + list.length
      } else if (maps.has(key)) copy[key] = this.#map(value, at(key))
      else if (key === 'dependencies') copy[key] = this.#dependencies(value, at(key))
      else if (assertions.has(key)) this.#assert(key, value, copy, at(key))
      else if (unsupported.has(key)) this.#fault(new SchemaFault(at(key), `"${key}" is not supported`, 'minor'))
      else this.#fault(new SchemaFault(at(key), `unknown keyword "${key}"${didYouMean(key, keywords)}`, 'minor'))
    }
    if (isObject(schema.properties)) this.#direct(schema.properties, copy, at('properties'))
    return this.#dialect === 'openapi-3.0' || this.#dialect === 'draft-07' ? ofOpenapi30(schema, copy) : copy
  }

  #list(value: unknown, place: Place): Schema[] {
    if (!Array.isArray(value)) throw new SchemaFault(place, 'expected a list of schemas')
    return value.map((each, index) => this.#copy(each, { ...place, pointer: below(place.pointer, index) }))
  }

  #map(value: unknown, place: Place): Record<string, Schema> {
    if (!isObject(value)) throw new SchemaFault(place, 'expected a mapping of schemas')
    const isNamed = !place.pointer.endsWith('/patternProperties')
    return Object.fromEntries(
      Object.entries(value).map(([name, each]) => {
        const inner = { ...place, pointer: below(place.pointer, name) }
        if (isNamed) this.names.add(name)
        else if (!this.#isPattern(name, inner)) throw new SchemaFault(inner, 'cannot be checked')
        return [name, this.#copy(each, inner)]
      })
    )
  }

  #dependencies(value: unknown, place: Place): unknown {
    if (!isObject(value)) throw new SchemaFault(place, 'expected a mapping')
    return Object.fromEntries(
      Object.entries(value).map(([name, each]) => [
        name,
        Array.isArray(each) ? each : this.#copy(each, { ...place, pointer: below(place.pointer, name) })
      ])
    )
  }

  #assert(key: string, value: unknown, copy: Record<string, unknown>, place: Place): void {
    if (key === 'pattern' && !this.#isPattern(value, place)) return
    if (key === 'format' && !(typeof value === 'string' && Object.hasOwn(formats, value))) {
      const doubt = formatDoubt(value)
      if (doubt !== null) this.#fault(new SchemaFault(place, doubt, 'hint'))
      return
    }
    if (!isWithin(value, mostValues)) throw new SchemaFault(place, `has more than ${mostValues} values`)
    if (key === 'required' && Array.isArray(value)) for (const name of value) this.names.add(String(name))
    copy[key] = value
  }

  /** Returns whether a pattern can be checked, and reports one that cannot. */
  #isPattern(pattern: unknown, place: Place): boolean {
    try {
      linearSearch(String(pattern), spend)
      return true
    } catch (error) {
      const reason = `because its cost may have no bound: ${(error as Error).message}`
      const message = `the regular expression ${JSON.stringify(pattern)} is not supported, ${reason}`
      this.#fault(new SchemaFault(place, message, 'minor'))
      return false
    }
  }

  /** Refuses properties that are not of this direction. */
  #direct(properties: Readonly<Record<string, unknown>>, copy: Record<string, unknown>, place: Place): void {
    const flag = this.#direction === 'request' ? 'readOnly' : 'writeOnly'
    const others = Object.keys(properties).filter((name) => {
      let value = properties[name]
      let at: Place = { ...place, pointer: below(place.pointer, name) }
      for (let hops = 0; hops < 8 && isObject(value) && value[flag] !== true && '$ref' in value; hops++) {
        at = this.#sources.resolve(value.$ref, at)
        value = valueAt(at)
      }
      return isObject(value) && value[flag] === true
    })
    if (others.length === 0) return
    copy.properties = { ...(copy.properties as object), ...Object.fromEntries(others.map((name) => [name, false])) }
    if (Array.isArray(copy.required)) copy.required = copy.required.filter((name) => !others.includes(String(name)))
  }
}

/** Returns whether a value consists of at most so many values. Aliases count as what they stand for. */
function isWithin(value: unknown, most: number): boolean {
  const open = [value]
  let count = 0
  for (let each = open.pop(); each !== undefined && count <= most; each = open.pop()) {
    count++
    if (typeof each === 'object' && each !== null) for (const inner of Object.values(each)) open.push(inner)
  }
  return count <= most
}

/** Replaces keywords of OpenAPI 3.0 and draft 4: `nullable`, and `exclusiveMinimum: true`. */
function ofOpenapi30(schema: Readonly<Record<string, unknown>>, copy: Record<string, unknown>): Schema {
  for (const [exclusive, limit] of [
    ['exclusiveMinimum', 'minimum'],
    ['exclusiveMaximum', 'maximum']
  ] as const) {
    if (typeof copy[exclusive] !== 'boolean') continue
    if (copy[exclusive] && copy[limit] !== undefined) {
      copy[exclusive] = copy[limit]
      delete copy[limit]
    } else delete copy[exclusive]
  }
  if (schema.nullable !== true) return copy
  return { anyOf: [{ type: 'null' }, copy] }
}
