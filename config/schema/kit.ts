/** Schema builders for the kinds of values: durations, sizes, names, alternatives. */
import type { Static, TObject, TSchema } from 'typebox'
import { token, tokenPattern } from '../../plugins/http-syntax.ts'
import type { Unit } from '../units.ts'
import { units } from '../units.ts'
import Type from './type.ts'

/** `250ms`, `15s`, `5m`, `1h`; loaded as milliseconds. */
export const Duration = (description: string, more: { default?: string } = {}) =>
  Type.Unsafe<number>({ type: 'string', unit: 'duration', description, ...more })
/** A duration that no timer waits for, so that it may be months; loaded as milliseconds. */
export const Period = (description: string) => Type.Unsafe<number>({ type: 'string', unit: 'period', description })
/** A value with a unit that may also be the number 0, without a unit. */
const orZero = (unit: Unit, description: string, more: { default?: string } = {}) =>
  Either({ const: 0 }, Type.Literal(0), Type.Unsafe<number>({ type: 'string', unit }), { description, ...more })
/** A duration that may be 0. */
export const DurationOrZero = (description: string, more: { default?: string } = {}) =>
  orZero('duration or 0', description, more)
/** `512b`, `16kb`, `10mb`, `1gb`; loaded as bytes (1kb = 1024 bytes). */
export const Size = (description: string, more: { default?: string } = {}) =>
  Type.Unsafe<number>({ type: 'string', unit: 'size', description, ...more })
/** A size that may be 0. */
export const SizeOrZero = (description: string, more: { default?: string } = {}) =>
  orZero('size or 0', description, more)
/** `20%`; loaded as a fraction: 0.2. */
export const Percent = (description: string, more: { default?: string } = {}) => orZero('percent', description, more)
/** A percentage of at most `100%`. */
export const Share = (description: string, more: { default?: string } = {}) => orZero('share', description, more)
/** An absolute URL with a scheme or its TLS variant: `http` or `https`, `redis` or `rediss`. */
export const Url = (scheme: 'http' | 'redis', description: string) =>
  Type.String({
    format: 'url',
    pattern: `^${scheme}s?://`,
    expected: `a URL that starts with ${scheme}:// or ${scheme}s://`,
    description
  })
/** Address on which a server listens. The empty string stands for all addresses. */
export const ListenHost = (value: string, description?: string) =>
  Type.String({
    pattern: '^([A-Za-z0-9_.-]{0,253}|[0-9A-Fa-f:.]+(%[A-Za-z0-9]+)?)$',
    expected: 'an IP address or a host name',
    default: value,
    ...(description !== undefined && { description })
  })
export const Port = (description: string, min = 0) => Type.Integer({ minimum: min, maximum: 65535, description })
export const Count = (description: string, more: { default?: number; minimum?: number; maximum?: number } = {}) =>
  Type.Integer({ minimum: 1, description, ...more })
export const Names = <T extends string>(values: readonly T[], more: object = {}) =>
  Type.Unsafe<T>({ type: 'string', enum: [...values], ...more })
export const strict = { additionalProperties: false }
/**
 * One of two shapes: `yes` for values that fit `when`, else `no`. With if/then/else instead of `anyOf`, the validator
 * reports the faults of one shape only, and fills in its defaults.
 */
export const Either = <A extends TSchema, B extends TSchema>(when: object, yes: A, no: B, more: object = {}) =>
  // biome-ignore lint/suspicious/noThenProperty: a JSON Schema keyword
  Type.Unsafe<Static<A> | Static<B>>({ if: when, then: yes, else: no, ...more })
export const Name = Type.String({
  pattern: '^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$',
  expected: 'a name of a-z, 0-9 and dashes, at most 63 characters'
})
export const HeaderName = (description: string, more: { default?: string } = {}) =>
  Type.String({ pattern: token.source, expected: 'a header name', description, ...more })
/** `false`, or a value of the schema. */
export const orOff = <T extends TSchema>(schema: T, more: object = {}) =>
  Either({ const: false }, Type.Literal(false), schema, more)

/** Schema of `false`, for consumers for which a concern may be switched off, but that have no other options. */
export const Off = Type.Literal(false, { expected: 'false' })

/** A non-empty string, or a list of them. */
export const Text = Type.String({ minLength: 1 })
export const oneOrMany = Either({ type: 'array' }, Type.Array(Text, { minItems: 1 }), Text)

/** The property of a call that is hashed. */
export const HashOn = Type.Unsafe<'ip' | 'consumer' | `header:${string}` | `cookie:${string}` | `query:${string}`>({
  type: 'string',
  pattern: `^(ip|consumer|(header|cookie):${tokenPattern}|query:.+)$`,
  expected: 'ip, consumer, header:NAME, cookie:NAME or query:NAME',
  description: 'Property of the request that is hashed: ip | consumer | header:NAME | cookie:NAME | query:NAME.'
})

/** Returns the options that an empty mapping gets from its schema, with units converted as in a loaded configuration. */
export function defaultsOf<T extends TObject>({ properties }: T): Static<T> {
  const loaded = (schema: { default?: unknown; unit?: Unit; else?: { unit?: Unit } }) => {
    // In a schema made by `orZero` the unit is in the `else` branch.
    const unit = schema.unit ?? schema.else?.unit
    return unit === undefined ? schema.default : units[unit].parse(String(schema.default))
  }
  const given = Object.entries<TSchema>(properties).filter(([, schema]) => 'default' in schema)
  return Object.fromEntries(given.map(([name, schema]) => [name, loaded(schema)])) as Static<T>
}

/** Mode of a concern that can be tried out before it acts. */
export const Mode = Names(['enforce', 'shadow'], {
  default: 'enforce',
  description: 'shadow: refuses nothing; a metric counts what `enforce` would have refused.'
})

/** Adds `mode` to the mapping of a concern's options, unless it has a key of this name. */
export function withMode<S extends TSchema>(schema: S): S {
  const { type, properties } = schema as { type?: unknown; properties?: Record<string, TSchema> }
  if (type === 'object' && properties !== undefined) {
    return { ...schema, properties: { ...properties, ...(!Object.hasOwn(properties, 'mode') && { mode: Mode }) } }
  }
  const branches = Object.entries(schema).filter(([key]) => key === 'then' || key === 'else')
  return { ...schema, ...Object.fromEntries(branches.map(([key, branch]) => [key, withMode(branch as TSchema)])) }
}
