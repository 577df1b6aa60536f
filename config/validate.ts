/** Validates a document against the schema by ajv, and translates ajv's errors into faults. */
import type { ErrorObject } from 'ajv'
import type { Steps } from '../plugins/time-slices.ts'
import type { Part, Validated } from './compile.ts'
import type { Keys } from './concern.ts'
import type { Shape } from './expected.ts'
import { expected, found } from './expected.ts'
import type { Report } from './faults.ts'
import { pointer, segmentsOf } from './faults.ts'
import { Advisor } from './misplaced.ts'
import { didYouMean } from './nearest.ts'

/** Context of a value for ajv's validating functions. */
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
    if (!validated.isValid(value, at)) this.#reportAll(validated, report)
    for (const [key, inner] of own.inner(value)) {
      yield
      const holder = value as Record<string | number, unknown>
      const place = { ...at, instancePath: pointer(at.instancePath, key), parentData: holder, parentDataProperty: key }
      yield* this.#validate(inner, holder[key], place, report)
    }
  }

  #reportAll({ isValid, schema, path }: Validated, report: Report): void {
    for (const error of isValid.errors ?? []) {
      if (error.keyword !== 'if')
        this.#report({ ...error, schemaPath: `#${path}${error.schemaPath.slice(1)}` }, schema, report)
    }
  }

  #report(error: ErrorObject, schema: object, report: Report): void {
    const at = error.instancePath
    // One fault per value: a value that fails a pattern may also fail a format.
    if (!report.usable(at)) return
    if (error.keyword === 'required') report.missing(at, error.params.missingProperty)
    else if (error.keyword === 'additionalProperties') this.#reportKey(error, report)
    else {
      const wanted = expected(shapeOf(error, schema))
      const actual = found(error.data, (error.parentSchema ?? {}) as Shape, at, report.at(at)?.from)
      report.fault(at, `expected ${wanted}, found ${actual}${hint(error)}`)
    }
  }

  #reportKey(error: ErrorObject, report: Report): void {
    const { properties, patternProperties, expectedKey = 'a name of a-z, 0-9 and dashes' } = error.parentSchema ?? {}
    const key: string = error.params.additionalProperty
    const at = pointer(error.instancePath, key)
    if (this.#keys.lackConcerns && isSection(error.instancePath)) return
    if (key === 'todo' && properties !== undefined) {
      report.excludedKey(error.instancePath, key, undecided(Reflect.get(Object(error.data), key)))
    } else if (properties !== undefined) {
      const known = Object.keys(properties)
      const [name = ''] = key.split(':')
      const advice = known.includes(name)
        ? `; write a space after the colon of "${name}:"`
        : this.#advisor.adviceFor(error.instancePath, key, known)
      report.unknownKey(error.instancePath, key, advice)
    }
    // A mapping whose keys are names chosen by the user.
    else if (patternProperties !== undefined) {
      report.fault(at, `expected ${expectedKey} as its key`, 'key')
    }
  }
}

/** Returns the message for a key `todo`, in which an import leaves a decision to the user. */
function undecided(value: unknown): string {
  const texts = [value].flat().filter((each) => typeof each === 'string' && each !== '')
  const what = texts.length === 0 ? '' : `: ${texts.join('; ')}`
  return `to be decided${what}. Write what replaces it, if it is needed, and remove "todo"`
}

/** Returns the schema to which an error refers; for two alternatives, the schema of both. */
function shapeOf(error: ErrorObject, whole: object): Shape {
  const steps = segmentsOf(error.schemaPath.slice(1)).map(decodeURIComponent)
  const [branch] = steps.slice(-2)
  if (branch !== 'then' && branch !== 'else') return (error.parentSchema ?? {}) as Shape
  let place = steps.slice(0, -2)
  // For nested alternatives, goes up to the outermost.
  while (/^(then|else)$/.test(place.at(-1) ?? '')) place = place.slice(0, -1)
  return place.reduce<unknown>((schema, step) => Reflect.get(schema as object, step), whole) as Shape
}

/** Returns whether the mapping at a pointer holds keys of concerns or of sources of instances. */
const isSection = (at: string) =>
  /^(\/(routes|services|groups)\/[^/]+)?\/(edge|mesh)$|^\/(discovery|services\/[^/]+)$/.test(at)

/** Returns whether a text matches the pattern of a schema. */
const fits = (text: string, { pattern }: Shape) => pattern === undefined || new RegExp(pattern).test(text)

function hint({ data, keyword, parentSchema, params }: ErrorObject): string {
  if (keyword === 'enum' && typeof data === 'string') return didYouMean(data, params.allowedValues.map(String))
  if (keyword !== 'type') return ''
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
