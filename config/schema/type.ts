/**
 * Replacement for the TypeBox builders that options use, with TypeBox's types but without its code: TypeBox has 370 modules
 * and takes 0.1 s of CPU to load, while only JSON Schemas are needed at run time. Schemas from TypeBox itself, as in plugins,
 * can be mixed with these.
 */
import type TypeBox from 'typebox'

type Builders = Pick<
  typeof TypeBox,
  'Array' | 'Boolean' | 'Integer' | 'Literal' | 'Number' | 'Object' | 'Optional' | 'Record' | 'String' | 'Unknown' | 'Unsafe'
> // biome-ignore format: a list

/** Non-enumerable property by which TypeBox marks the schema of an optional key. */
const OPTIONAL = '~optional'

const isRequired = ([, schema]: [key: string, schema: object]) => !Object.hasOwn(schema, OPTIONAL)

const builders = {
  Array: (items: object, options?: object) => ({ type: 'array', items, ...options }),
  Boolean: (options?: object) => ({ type: 'boolean', ...options }),
  Integer: (options?: object) => ({ type: 'integer', ...options }),
  Literal: (value: unknown, options?: object) => ({ type: typeof value, const: value, ...options }),
  Number: (options?: object) => ({ type: 'number', ...options }),
  Object: (properties: Record<string, object>, options?: object) => {
    const required = Object.entries(properties).filter(isRequired).map(([key]) => key) // biome-ignore format: one line
    return { type: 'object', ...(required.length > 0 && { required }), properties, ...options }
  },
  Optional: (schema: object) => Object.defineProperty({ ...schema }, OPTIONAL, { value: true }),
  Record: (key: { pattern?: string; expected?: string }, value: object, options?: object) => {
    const { pattern = '^.*$', expected } = key
    const keys = expected === undefined ? {} : { expectedKey: expected }
    return { type: 'object', patternProperties: { [pattern]: value }, ...keys, ...options }
  },
  String: (options?: object) => ({ type: 'string', ...options }),
  Unknown: (options?: object) => ({ ...options }),
  Unsafe: (schema: object) => schema
} satisfies Record<keyof Builders, unknown>

const Type = builders as unknown as Builders
export default Type
