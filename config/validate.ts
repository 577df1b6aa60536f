/** The schema's part of the checks: ajv, with its errors told in the configuration's own words. */
import type { ErrorObject } from 'ajv'
import type { Steps } from '../plugins/time-slices.ts'
import type { Part, Validated } from './compile.ts'
import type { Keys } from './concern.ts'
import { isSecretKey, maskUserinfo } from './credentials.ts'
import type { Report } from './faults.ts'
import { pointer, segmentsOf } from './faults.ts'
import { Advisor } from './misplaced.ts'
import { didYouMean } from './nearest.ts'
import type { Unit } from './units.ts'
import { units } from './units.ts'

/** Part of a JSON Schema that messages name. */
interface Shape {
  type?: string
  const?: unknown
  enum?: unknown[]
  unit?: Unit
  expected?: string
  format?: string
  pattern?: string
  minLength?: number
  minItems?: number
  minProperties?: number
  minimum?: number
  maximum?: number
  then?: Shape
  else?: Shape
}

/** Place of a value, for the functions that ajv makes. */
type At = NonNullable<Parameters<Validated['isValid']>[1]>

export class Validator {
  readonly #root: Part
  readonly #keys: Keys
  readonly #advisor: Advisor

  constructor(root: Part, keys: Keys) {
    this.#root = root
    this.#keys = keys
    this.#advisor = new Advisor(keys)
  }

  /** Fills in defaults and converts units in place. */
  *validate(data: unknown, report: Report): Steps<void> {
    const rootData = data as At['rootData']
    const at = { instancePath: '', parentData: {}, parentDataProperty: '', rootData, dynamicAnchors: {} }
    yield* this.#validate(this.#root, data, at, report)
  }

  *#validate(part: Part, value: unknown, at: At, report: Report): Steps<void> {
    const own = part.for(value)
    const { validated } = own
    if (!validated.isValid(value, at)) this.#tellAll(validated, report)
    for (const [key, inner] of own.inner(value)) {
      yield
      const holder = value as Record<string | number, unknown>
      const place = { ...at, instancePath: pointer(at.instancePath, key), parentData: holder, parentDataProperty: key }
      yield* this.#validate(inner, holder[key], place, report)
    }
  }

  #tellAll({ isValid, schema, path }: Validated, report: Report): void {
    for (const error of isValid.errors ?? []) {
      if (error.keyword !== 'if')
        this.#tell({ ...error, schemaPath: `#${path}${error.schemaPath.slice(1)}` }, schema, report)
    }
  }

  #tell(error: ErrorObject, schema: object, report: Report): void {
    const at = error.instancePath
    // One fault a value is enough: what fails a pattern may well fail a format too.
    if (!report.usable(at)) return
    if (error.keyword === 'required') report.missing(at, error.params.missingProperty)
    else if (error.keyword === 'additionalProperties') this.#tellKey(error, report)
    else {
      const wanted = expected(shapeOf(error, schema))
      report.fault(at, `expected ${wanted}, found ${found(error, report)}${hint(error)}`)
    }
  }

  #tellKey(error: ErrorObject, report: Report): void {
    const { properties, patternProperties } = error.parentSchema ?? {}
    const key: string = error.params.additionalProperty
    const at = pointer(error.instancePath, key)
    if (this.#keys.lackConcerns && isSection(error.instancePath)) return
    if (properties !== undefined) {
      const known = Object.keys(properties)
      const [name = ''] = key.split(':')
      const advice = known.includes(name)
        ? `; write a space after the colon of "${name}:"`
        : this.#advisor.adviceFor(error.instancePath, key, known)
      report.unknownKey(error.instancePath, key, advice)
    }
    // A mapping whose keys are names.
    else if (patternProperties !== undefined) {
      report.fault(at, 'expected a name of a-z, 0-9 and dashes as its key', 'key')
    }
  }
}

/** The schema that an error is about; of two alternatives, both. */
function shapeOf(error: ErrorObject, whole: object): Shape {
  const steps = segmentsOf(error.schemaPath.slice(1)).map(decodeURIComponent)
  const [branch] = steps.slice(-2)
  if (branch !== 'then' && branch !== 'else') return (error.parentSchema ?? {}) as Shape
  let place = steps.slice(0, -2)
  // Alternatives within alternatives: all of them.
  while (/^(then|else)$/.test(place.at(-1) ?? '')) place = place.slice(0, -1)
  return place.reduce<unknown>((schema, step) => Reflect.get(schema as object, step), whole) as Shape
}

/** Returns whether keys of concerns stand in the mapping at a pointer. */
const isSection = (at: string) => /^(\/(routes|services)\/[^/]+)?\/(edge|mesh)$/.test(at)

function expected(shape: Shape): string {
  // The branch of a value with a unit describes well enough that 0 needs none.
  if (shape.then?.const === 0 && shape.else !== undefined) return expected(shape.else)
  if (shape.then !== undefined && shape.else !== undefined) return `${expected(shape.then)} or ${expected(shape.else)}`
  if (shape.expected !== undefined) return shape.expected
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

/** Returns whether a text has the form that a schema asks for. */
const fits = (text: string, { pattern }: Shape) => pattern === undefined || new RegExp(pattern).test(text)

const KINDS: Readonly<Record<string, string>> = { string: 'a string', number: 'a number', boolean: 'a boolean' }

function found({ data, instancePath, keyword, parentSchema }: ErrorObject, report: Report): string {
  if (data === null || data === undefined) return 'nothing'
  if (Array.isArray(data)) return data.length === 0 ? 'an empty list' : 'a list'
  if (typeof data === 'object') return Object.keys(data).length === 0 ? 'an empty mapping' : 'a mapping'
  if (data === '') return 'an empty string'
  // A value of the environment may be a secret, so it is never printed; nor is a value in a secret's place.
  const from = report.at(instancePath)?.from
  const kind = KINDS[typeof data] ?? typeof data
  if (from !== undefined) return `${kind} (from ${from})`
  if (keyword === 'minLength') return `${String(data).length}`
  const { type } = (parentSchema ?? {}) as Shape
  if (isSecretKey(instancePath)) return kind
  // Text in a section's place may be of any sort.
  if (typeof data === 'string' && (type === 'object' || type === 'array')) return kind
  return JSON.stringify(redact(data))
}

/** Without the credentials of a URL, and no longer than a line. */
function redact(value: unknown): unknown {
  if (typeof value !== 'string') return value
  const text = maskUserinfo(value)
  return text.length > 60 ? `${text.slice(0, 60)}…` : text
}

function hint({ data, keyword, parentSchema, params, instancePath }: ErrorObject): string {
  if (keyword === 'enum' && typeof data === 'string') return didYouMean(data, params.allowedValues.map(String))
  if (keyword !== 'type') return ''
  if (Array.isArray(data) && /^\/routes\/\d+\/match\/path$/.test(instancePath)) {
    return '; a route has one path: write a route for each'
  }
  const { type, unit } = (parentSchema ?? {}) as Shape
  if (data === null && type === 'object') return '; write {} to leave it empty'
  if (type === 'string' && unit === undefined && (typeof data === 'number' || typeof data === 'boolean')) {
    return fits(String(data), parentSchema as Shape) ? '; put it in quotes' : ''
  }
  if (type === 'array' && typeof data === 'string' && data !== '') return '; put it in brackets: [ ]'
  const quoted = typeof data === 'string' && data !== '' && (type === 'integer' || type === 'boolean')
  if (!quoted) return ''
  return (type === 'integer' ? /^\d+$/ : /^(true|false)$/).test(data) ? '; remove the quotes' : ''
}
