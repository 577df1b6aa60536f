/**
 * Validates options that a program passes as objects instead of a file. The schema is interpreted, not compiled, so that such
 * a program loads no validator: it has few options and reads them once.
 */
import { isDeepStrictEqual } from 'node:util'
import type { Shape as Described } from './expected.ts'
import { expected, found } from './expected.ts'
import type { Report } from './faults.ts'
import { pointer } from './faults.ts'
import { formats } from './formats.ts'
import { didYouMean } from './nearest.ts'
import type { Unit } from './units.ts'
import { units } from './units.ts'

/** Keywords that occur in schemas of options. */
interface Shape extends Described {
  readonly format?: keyof typeof formats
  readonly items?: Shape
  readonly properties?: Readonly<Record<string, Shape>>
  readonly patternProperties?: Readonly<Record<string, Shape>>
  readonly required?: readonly string[]
  readonly default?: unknown
  readonly if?: Shape
  readonly then?: Shape
  readonly else?: Shape
}

type Values = Readonly<Record<string, unknown>>

const isObject = (value: unknown): value is Values =>
  typeof value === 'object' && value !== null && !Array.isArray(value)

const types: Readonly<Record<string, (value: unknown) => boolean>> = {
  object: isObject,
  array: Array.isArray,
  string: (value) => typeof value === 'string',
  boolean: (value) => typeof value === 'boolean',
  number: Number.isFinite,
  integer: Number.isSafeInteger
}

/** Returns advice for an unknown key of a mapping, as `; …`; empty if there is none. */
type AdviceFor = (holder: string, key: string, known: readonly string[]) => string

/**
 * Returns a copy of the value at a pointer, with defaults; reports faults. Durations may be numbers of milliseconds, sizes
 * numbers of bytes. Percentages need their unit, since 10 could mean 10 % or 1,000 %.
 */
export function withDefaults(
  schema: object,
  value: unknown,
  at: string,
  report: Report,
  adviceFor: AdviceFor = (_holder, key, known) => didYouMean(key, known)
): unknown {
  let shape = schema as Shape
  while (shape.if !== undefined) shape = (meets(shape.if, value) ? shape.then : shape.else) ?? {}
  const loaded = shape.unit === undefined ? value : withUnit(shape.unit, value)
  const isFit = shape.unit === undefined ? fits(shape, value) : loaded !== null
  if (!isFit) {
    // Names all alternatives, not only the one that was chosen.
    report.fault(at, `expected ${expected(schema)}, found ${found(value, shape, at)}`)
    return value
  }
  if (Array.isArray(value)) {
    // `Array.from` visits holes, too.
    return Array.from(value, (item, index) =>
      withDefaults(shape.items ?? {}, item, pointer(at, index), report, adviceFor)
    )
  }
  return isObject(value) ? objectWithDefaults(shape, value, at, report, adviceFor) : loaded
}

/** Units that accept plain numbers. */
const plain: { readonly [U in Unit]?: string } = {
  duration: 'ms',
  'duration or 0': 'ms',
  period: 'ms',
  size: 'b',
  'size or 0': 'b'
}

/** Returns null for a value that is no such quantity. */
function withUnit(unit: Unit, value: unknown): number | null {
  const text = typeof value === 'number' && plain[unit] !== undefined ? `${value}${plain[unit]}` : value
  return typeof text === 'string' ? units[unit].parse(text) : null
}

function objectWithDefaults(shape: Shape, value: Values, at: string, report: Report, adviceFor: AdviceFor): Values {
  const { properties, patternProperties = {}, required = [] } = shape
  const [named] = Object.entries(patternProperties)
  const loaded: Record<string, unknown> = {}
  for (const [key, inner] of Object.entries(value)) {
    if (inner === undefined) continue
    const below = pointer(at, key)
    const isOwn = properties !== undefined && Object.hasOwn(properties, key)
    const schema = isOwn ? properties[key] : named && new RegExp(named[0], 'u').test(key) ? named[1] : undefined
    if (schema !== undefined) loaded[key] = withDefaults(schema, inner, below, report, adviceFor)
    else if (properties === undefined) report.fault(below, 'expected a name of a-z, 0-9 and dashes as its key', 'key')
    else report.unknownKey(at, key, adviceFor(at, key, Object.keys(properties)))
  }
  for (const [key, inner] of Object.entries(properties ?? {})) {
    if (Object.hasOwn(loaded, key)) continue
    if ('default' in inner) loaded[key] = withDefaults(inner, inner.default, pointer(at, key), report)
    else if (required.includes(key)) report.missing(at, key)
  }
  return loaded
}

/** Returns whether a value meets the condition of two alternatives. */
function meets(condition: Shape, value: unknown): boolean {
  if (!fits(condition, value)) return false
  return !isObject(value) || (condition.required ?? []).every((key) => Object.hasOwn(value, key))
}

/** Returns whether a value fits the schema, without the values within it. */
function fits(shape: Shape, value: unknown): boolean {
  if ('const' in shape) return isDeepStrictEqual(value, shape.const)
  if (shape.enum?.includes(value) === false) return false
  if (shape.type !== undefined && !types[shape.type]!(value)) return false
  if (typeof value === 'number') return value >= (shape.minimum ?? -Infinity) && value <= (shape.maximum ?? Infinity)
  if (Array.isArray(value)) return value.length >= (shape.minItems ?? 0)
  if (typeof value !== 'string') return true
  if (shape.pattern !== undefined && !new RegExp(shape.pattern, 'u').test(value)) return false
  return value.length >= (shape.minLength ?? 0) && (shape.format === undefined || formats[shape.format](value))
}
