/** The rules for the requests of one operation: for each place of parameters, and for the body. */
import { isUtf8 } from 'node:buffer'
import type { ValidateFunction } from 'ajv'
import { pointer as below, segmentsOf } from '../../../../config/faults.ts'
import type { MediaType } from '../../protocol/media-types.ts'
import { formatOf, ruleFor } from '../../protocol/media-types.ts'
import { NotStrictJson, parseStrictJson } from '../../strict-json.ts'
import { TooMuchWork, withBudget } from './budget.ts'
import type { Parameter } from './parameters.ts'
import { readParameters } from './parameters.ts'
import type { Reason, Violation } from './refusals.ts'
import { Refusal } from './refusals.ts'
import type { Shape } from './shapes.ts'
import { isObjectShape } from './shapes.ts'
import type { In, Texts } from './values.ts'
import { queryTexts } from './values.ts'
import { detailOf, distinct, maskedPointer } from './violations.ts'

/** Rules for one place of parameters. */
export interface PlaceRule {
  readonly in: In
  readonly parameters: readonly Parameter[]
  /** Validates the object of all values. Lists all errors. */
  readonly validate: ValidateFunction
}

/** Rules for bodies of one media type; null if they are not read. */
export interface ContentRule {
  /** Stops at the first error. */
  readonly validate: ValidateFunction
  /** Lists all errors. */
  readonly validateAll: ValidateFunction | null
  readonly shape: Shape
}

export interface BodyRule {
  readonly isRequired: (method: string) => boolean
  readonly content: readonly (readonly [range: string, rule: ContentRule | null])[]
}

export interface Operation {
  readonly places: readonly PlaceRule[]
  readonly body: BodyRule | null
  readonly names: ReadonlySet<string>
}

export interface Limits {
  readonly maxDepth: number
  readonly maxErrors: number
}

const reasons: { readonly [I in In]: Reason } = {
  path: 'validation_path',
  query: 'validation_query',
  header: 'validation_header',
  cookie: 'validation_cookie'
}

/** Values up to which all errors of a body are listed; of a larger one, the first, since each takes memory. */
const mostListed = 2000

const tooCostly = () => new Refusal('validation_cost', 'The request takes too much work to check')

/** Runs a check with a bounded amount of work. */
export function bounded<T>(bytes: number, check: () => T): T {
  try {
    return withBudget(bytes, check)
  } catch (error) {
    // A schema may refer to itself without an end.
    if (error instanceof TooMuchWork || error instanceof RangeError) throw tooCostly()
    throw error
  }
}

/** Throws a refusal if the parameters of a request do not fit. */
export function checkPlaces(operation: Operation, texts: (where: In) => Texts, { maxErrors }: Limits): void {
  let first: In | null = null
  const found: Violation[] = []
  for (const { in: where, parameters, validate } of operation.places) {
    const { values, faults } = readParameters(parameters, where, texts(where))
    const unread = new Set(faults.map(({ parameter }) => parameter))
    for (const { parameter, detail } of faults) found.push({ parameter, in: where, detail })
    const isValid = bounded(16 * 1024, () => validate(values) as boolean)
    if (!isValid) {
      for (const error of distinct(validate.errors)) {
        const [name = null, ...rest] = segmentsOf(error.instancePath)
        const missing: unknown = error.params.missingProperty
        const parameter = name ?? (typeof missing === 'string' ? missing : null)
        if (parameter !== null && unread.has(parameter)) continue
        found.push(
          inPlace(
            parameter,
            rest,
            error.params.additionalProperty !== undefined,
            where,
            detailOf(error),
            values,
            operation
          )
        )
      }
      validate.errors = null
    }
    if (found.length > 0) first ??= where
  }
  if (first === null) return
  const message = 'The parameters of the request do not match their schema'
  throw new Refusal(reasons[first], message, found.slice(0, maxErrors))
}

function inPlace(
  name: string | null,
  rest: readonly string[],
  isUnknown: boolean,
  where: In,
  detail: string,
  values: Record<string, unknown>,
  { names }: Operation
): Violation {
  if (name === null) {
    return { parameter: '*', in: where, detail: isUnknown ? 'a parameter that is not defined is not allowed' : detail }
  }
  const pointer = maskedPointer(
    rest.reduce<string>((at, each) => below(at, each), ''),
    values[name],
    names
  )
  const parameter = names.has(name) ? name : '*'
  const text =
    detail.startsWith('must have required property') && rest.length === 0 && !(name in values) ? 'is required' : detail
  return { parameter, in: where, ...(pointer !== '' && { pointer }), detail: text }
}

/** Returns the rule for bodies of a type; null if they are not read. Throws a refusal for a type that is not allowed. */
export function contentRule({ content }: BodyRule, type: MediaType | null): ContentRule | null {
  const rule = type === null ? undefined : ruleFor(content, type.essence)
  const accepted = { accept: content.map(([range]) => range).join(', ') }
  if (rule === undefined) throw new Refusal('validation_type', 'The body has a type that is not allowed', [], accepted)
  if (rule === null || formatOf(type!.essence) === null) return null
  if (!type!.isUtf8) throw new Refusal('validation_type', 'The body must be in UTF-8', [], accepted)
  return rule
}

/** Throws a refusal if a body does not fit. */
export function checkBody(bytes: Buffer, type: string, rule: ContentRule, { names }: Operation, limits: Limits): void {
  const { value, values } = parsedBody(bytes, type, rule, limits)
  const { validate, validateAll } = rule
  if (bounded(bytes.length, () => validate(value) as boolean)) return
  let { errors } = validate
  validate.errors = null
  if (validateAll !== null && values <= mostListed) {
    try {
      bounded(bytes.length, () => validateAll(value) as boolean)
      errors = validateAll.errors
    } catch (error) {
      if (!(error instanceof Refusal)) throw error
    }
    validateAll.errors = null
  }
  const violations = distinct(errors).map((error) => ({
    pointer: maskedPointer(error.instancePath, value, names),
    detail: detailOf(error)
  }))
  throw new Refusal('validation_body', 'The body does not match its schema', violations.slice(0, limits.maxErrors))
}

const jsonFaults: { readonly [F in NotStrictJson['fault']]: readonly [Reason, string] } = {
  malformed: ['validation_json', 'The body is not JSON'],
  duplicate: ['validation_duplicate_key', 'The body has two keys of the same name in one object'],
  nesting: ['validation_nesting', 'The body is nested too deep']
}

interface Parsed {
  readonly value: unknown
  /** Number of values. */
  readonly values: number
}

function parsedBody(bytes: Buffer, type: string, { shape }: ContentRule, { maxDepth }: Limits): Parsed {
  if (!isUtf8(bytes)) throw new Refusal('validation_json', 'The body is not UTF-8')
  const text = bytes.toString()
  const format = formatOf(type)
  if (format === 'text') return { value: text, values: 1 }
  if (format === 'form') return formOf(text, shape)
  try {
    return parseStrictJson(text, maxDepth)
  } catch (error) {
    if (!(error instanceof NotStrictJson)) throw error
    const [reason, message] = jsonFaults[error.fault]
    throw new Refusal(reason, message)
  }
}

/** Most fields of a form. */
const mostFields = 1000

function formOf(text: string, shape: Shape): Parsed {
  const texts = queryTexts(text)
  const values = [...texts.values()].reduce((sum, all) => sum + all.length, 0)
  if (values > mostFields) throw new Refusal('validation_body', `The form has more than ${mostFields} fields`)
  const parameters = [...shape.properties].map(([name, inner]) => ({
    in: 'query' as const,
    name,
    // A form has objects as JSON.
    style: isObjectShape(inner) ? ('json' as const) : ('form' as const),
    explode: true,
    shape: inner,
    mayBeEmpty: false
  }))
  const read = readParameters(parameters, 'query', texts)
  const [fault] = read.faults
  if (fault !== undefined) {
    const violation = { pointer: below('', fault.parameter), detail: fault.detail }
    throw new Refusal('validation_body', 'The body does not match its schema', [violation])
  }
  return { value: read.values, values }
}
