/**
 * Compiles JSON Schemas by ajv. Each schema is copied first, without what has no effect, with the keywords of OpenAPI 3.0
 * replaced by those of JSON Schema, and with references in a form by which ajv compiles each schema once.
 */
import type { Ajv as AjvOfDraft7, ValidateFunction } from 'ajv'
import { pointer as below } from '../../../../config/faults.ts'
import { linearSearch } from '../../../../config/linear-regexp.ts'
import { didYouMean } from '../../../../config/nearest.ts'
import { onFirstUse } from '../../../on-first-use.ts'
import type { Steps } from '../../../time-slices.ts'
import { isObject } from '../../strict-json.ts'
import { spend } from './budget.ts'
import { formats } from './formats.ts'
import type { Place, Sources } from './sources.ts'
import { SchemaFault, valueAt } from './sources.ts'
import { hasUniqueItems } from './unique-items.ts'

const draft7 = onFirstUse<{ Ajv: typeof AjvOfDraft7 }>('ajv')
const draft2020 = onFirstUse<{ Ajv2020: typeof AjvOfDraft7 }>('ajv/dist/2020')

export type Dialect = 'draft-07' | '2020-12' | 'openapi-3.0' | 'openapi-3.1'
/** Message that a schema describes: `readOnly` properties are only in responses, `writeOnly` ones only in requests. */
export type Direction = 'request' | 'response'

const isOld = (dialect: Dialect) => dialect === 'draft-07' || dialect === 'openapi-3.0'

const single = new Set([
  'additionalProperties', 'additionalItems', 'not', 'if', 'then', 'else', 'contains', 'propertyNames', 'unevaluatedProperties',
  'unevaluatedItems'
]) // biome-ignore format: a list
const lists = new Set(['allOf', 'anyOf', 'oneOf', 'prefixItems'])
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

/** Keyword that counts each evaluation of a reference. */
const step = 'jingweiStep'
const costOfStep = 20

type Schema = boolean | Readonly<Record<string, unknown>>

const validatorOf = (dialect: Dialect) => (isOld(dialect) ? draft7().Ajv : draft2020().Ajv2020)

/** Validators of schemas themselves, which all documents share. */
const checkers = new Map<boolean, AjvOfDraft7>()

function checkerOf(dialect: Dialect): AjvOfDraft7 {
  let checker = checkers.get(isOld(dialect))
  if (checker === undefined) {
    checker = new (validatorOf(dialect))({ strict: false, logger: false })
    checkers.set(isOld(dialect), checker)
  }
  return checker
}

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
  #first: AjvOfDraft7 | undefined
  #all: AjvOfDraft7 | undefined

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

  /** Adds an object schema whose properties are schemas at places; returns its id. */
  addObject(properties: ReadonlyMap<string, Place>, rest: Readonly<Record<string, unknown>>): string {
    const id = `jingwei:object:${this.#copies.size}:${this.#ids.size}`
    const refs = [...properties].map(([name, place]) => [name, { [step]: true, $ref: this.add(place) }])
    for (const name of properties.keys()) this.names.add(name)
    this.#copies.set(id, { type: 'object', properties: Object.fromEntries(refs), ...rest })
    return id
  }

  /** Copies and checks all schemas that were added, and those that they refer to. */
  *copyAll(): Steps<void> {
    const validator = checkerOf(this.#dialect)
    for (let next = this.#waiting.pop(); next !== undefined; next = this.#waiting.pop()) {
      const { id, place } = next
      let copy: Schema = true
      try {
        copy = this.#copy(valueAt(place), place)
        if (!validator.validateSchema(copy)) this.#reportInvalid(validator, place)
      } catch (error) {
        if (!(error instanceof SchemaFault)) throw error
        this.#fault(error)
      }
      this.#copies.set(id, copy)
      yield
    }
  }

  #reportInvalid({ errors }: AjvOfDraft7, place: Place): void {
    for (const { instancePath, message } of errors?.slice(0, 1) ?? []) {
      this.#fault(new SchemaFault({ ...place, pointer: place.pointer + instancePath }, `${message}`))
    }
  }

  /** Returns the function for a schema. `all`: it lists all errors. Call it after `copyAll`. */
  compile(id: string, all: boolean): ValidateFunction {
    this.#all ??= this.#ajv(true)
    this.#first ??= this.#ajv(false)
    const ajv = all ? this.#all : this.#first
    if (ajv.schemas[id] === undefined) {
      for (const [name, copy] of this.#copies)
        if (ajv.schemas[name] === undefined) ajv.addSchema(copy as object, name, false, false)
    }
    return ajv.getSchema(id) as ValidateFunction
  }

  #ajv(allErrors: boolean): AjvOfDraft7 {
    const ajv = new (validatorOf(this.#dialect))({
      allErrors,
      meta: false,
      validateSchema: false,
      strict: false,
      logger: false,
      inlineRefs: false,
      ownProperties: true,
      addUsedSchema: false,
      multipleOfPrecision: 8,
      formats: formats as never,
      code: { optimize: false, regExp: Object.assign(linear, { code: 'linear' }) as never }
    })
    ajv.removeKeyword('uniqueItems')
    ajv.addKeyword({
      keyword: 'uniqueItems',
      type: 'array',
      schemaType: 'boolean',
      error: { message: 'must NOT have equal items' },
      validate: (isUnique: boolean, items: readonly unknown[]) => !isUnique || hasUniqueItems(items)
    })
    ajv.addKeyword({
      keyword: step,
      schemaType: 'boolean',
      errors: false,
      before: '$ref',
      validate: () => {
        spend(costOfStep)
        return true
      }
    })
    return ajv
  }

  #copy(schema: unknown, place: Place): Schema {
    if (typeof schema === 'boolean') return schema
    if (!isObject(schema)) throw new SchemaFault(place, 'expected a JSON Schema')
    const at = (...segments: (string | number)[]): Place => ({ ...place, pointer: below(place.pointer, ...segments) })
    const copy: Record<string, unknown> = {}
    if ('$ref' in schema) {
      copy[step] = true
      copy.$ref = this.add(this.#sources.resolve(schema.$ref, at('$ref')))
      // Keywords beside a reference are ignored in the older dialects.
      if (isOld(this.#dialect)) return copy
    }
    for (const [key, value] of Object.entries(schema)) {
      if (key === '$ref' || key.startsWith('x-') || annotations.has(key)) continue
      if (single.has(key)) copy[key] = this.#copy(value, at(key))
      else if (key === 'items' && !Array.isArray(value)) copy[key] = this.#copy(value, at(key))
      else if (lists.has(key) || key === 'items') copy[key] = this.#list(value, at(key))
      else if (maps.has(key)) copy[key] = this.#map(value, at(key))
      else if (key === 'dependencies') copy[key] = this.#dependencies(value, at(key))
      else if (assertions.has(key)) this.#assert(key, value, copy, at(key))
      else if (unsupported.has(key)) this.#fault(new SchemaFault(at(key), `"${key}" is not supported`))
      else this.#fault(new SchemaFault(at(key), `unknown keyword "${key}"${didYouMean(key, keywords)}`))
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
        else this.#checkPattern(name, inner)
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
    if (key === 'pattern') this.#checkPattern(value, place)
    if (key === 'format' && !(typeof value === 'string' && Object.hasOwn(formats, value))) return
    if (key === 'required' && Array.isArray(value)) for (const name of value) this.names.add(String(name))
    copy[key] = value
  }

  #checkPattern(pattern: unknown, place: Place): void {
    try {
      linearSearch(String(pattern), spend)
    } catch (error) {
      throw new SchemaFault(
        place,
        `the regular expression ${JSON.stringify(pattern)} is not supported, because its cost may have no bound: ${(error as Error).message}`
      )
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

/** Compiles a pattern for ajv, which tells patterns apart by their texts. */
function linear(pattern: string): { test(text: string): boolean; toString(): string } {
  return { test: linearSearch(pattern, spend), toString: () => pattern }
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
