/** Compiles the schema of a file into validating functions by ajv, with the formats and keywords of options. */
import type { ValidateFunction } from 'ajv'
import { Ajv } from 'ajv'
import { formats } from './formats.ts'
import { didYouMean } from './nearest.ts'
import type { Unit } from './units.ts'
import { units } from './units.ts'

/** Parent of a value, in which the value can be replaced. */
interface Holder {
  parentData: object
  parentDataProperty: string | number
}

const isUnit = (name: string): name is Unit => Object.hasOwn(units, name)

/** Adds the formats and keywords in which options are described: `unit`, `expected`, `expectedKey`. */
function addKeywords(ajv: Ajv): Ajv {
  for (const [name, fits] of Object.entries(formats)) ajv.addFormat(name, fits)
  ajv.addKeyword({ keyword: 'expected', schemaType: 'string' })
  ajv.addKeyword({ keyword: 'expectedKey', schemaType: 'string' })
  ajv.addKeyword({
    keyword: 'unit',
    type: 'string',
    schemaType: 'string',
    modifying: true,
    errors: false,
    compile: (unit: string) => {
      if (!isUnit(unit)) {
        const names = Object.keys(units)
        throw new Error(`unknown unit "${unit}"${didYouMean(unit, names) || `; possible are ${names.join(', ')}`}`)
      }
      return (text: string, context?: Holder) => {
        const value = units[unit].parse(text)
        return (
          value !== null && context !== undefined && Reflect.set(context.parentData, context.parentDataProperty, value)
        )
      }
    }
  })
  return ajv
}

/** Shared by all schemas of plugins, since a new ajv compiles the meta-schema first. */
let checker: Ajv | undefined

/** Returns the reason why the validator cannot use a schema; null if it can. */
export function schemaFault(schema: object): string | null {
  checker ??= addKeywords(new Ajv({ strict: true, useDefaults: true }))
  try {
    checker.compile(schema)
    // Removed, since another schema may have the same `$id`.
    checker.removeSchema(schema)
    return null
  } catch (error) {
    checker = undefined
    return (error as Error).message
  }
}

/** Keywords by which a JSON Schema is divided into parts. */
interface Shape {
  readonly type?: string
  readonly properties?: Readonly<Record<string, Shape>>
  readonly patternProperties?: Readonly<Record<string, Shape>>
  readonly items?: Shape
  readonly if?: Shape
  readonly then?: Shape
  readonly else?: Shape
  readonly default?: unknown
}

/** The schema by which a value was validated. */
export interface Validated {
  readonly isValid: ValidateFunction
  /** The schema to which the paths of errors are relative, after `path`. */
  readonly schema: object
  readonly path: string
}

/** Iterator over the values within a value, each with the part that validates it. */
type Inner = Iterable<readonly [key: string | number, part: Part]>

/**
 * A schema that is compiled in parts. Each mapping, list and alternative in it is compiled when a file first has such a value:
 * most files use few keys, and compiling all would take longer than the rest of the work for a small file. A long list is
 * validated item by item, between which the event loop can run.
 */
export class Part {
  readonly #compiler: Compiler
  readonly #shape: Shape
  readonly #whole: object
  readonly #path: string
  /** False for a schema that is compiled as a whole. */
  readonly #isApart: boolean
  readonly #branches: { then?: Part; else?: Part } = {}
  #validated: Validated | undefined
  #names: RegExp | undefined

  /** `path`: pointer from the whole schema to this one, if this is an alternative within it. */
  constructor(compiler: Compiler, schema: object, isApart: boolean, whole = schema, path = '') {
    this.#compiler = compiler
    this.#shape = schema
    this.#isApart = isApart
    this.#whole = whole
    this.#path = path
  }

  /** Returns the part that validates a value; for two alternatives, the one that fits. */
  for(value: unknown): Part {
    if (!this.#isApart || !isChoice(this.#shape)) return this
    const branch = this.#compiler.compiled(this.#shape.if)(value) ? 'then' : 'else'
    this.#branches[branch] ??= new Part(
      this.#compiler,
      this.#shape[branch],
      true,
      this.#whole,
      `${this.#path}/${branch}`
    )
    return this.#branches[branch].for(value)
  }

  /** Compiles the schema without those of the values within. */
  get validated(): Validated {
    this.#validated ??= {
      isValid: this.#compiler.compiled(this.#isApart ? this.#shallow() : this.#shape),
      schema: this.#whole,
      path: this.#path
    }
    return this.#validated
  }

  /** Yields the items and properties of a value whose schema is large, each with the part that validates it. */
  *inner(value: unknown): Inner {
    if (!this.#isApart || typeof value !== 'object' || value === null) return
    const { items, properties = {} } = this.#shape
    if (Array.isArray(value)) {
      if (items === undefined || !isLarge(items)) return
      for (const key of value.keys()) yield [key, this.#compiler.part(items)]
      return
    }
    for (const [name, schema] of Object.entries(properties)) {
      if (isLarge(schema) && Object.hasOwn(value, name)) yield [name, this.#compiler.part(schema)]
    }
    const named = namedItems(this.#shape)
    if (named === null) return
    const [pattern, schema] = named
    this.#names ??= new RegExp(pattern, 'u')
    for (const name of Object.keys(value)) if (this.#names.test(name)) yield [name, this.#compiler.part(schema)]
  }

  #shallow(): object {
    const { items, properties, ...rest } = this.#shape
    const named = namedItems(this.#shape)
    const stub = (schema: Shape) => (!isLarge(schema) ? schema : 'default' in schema ? { default: schema.default } : {})
    return {
      ...rest,
      ...(items !== undefined && { items: isLarge(items) ? {} : items }),
      ...(properties !== undefined && {
        properties: Object.fromEntries(Object.entries(properties).map(([name, schema]) => [name, stub(schema)]))
      }),
      ...(named !== null && { patternProperties: { [named[0]]: {} } })
    }
  }
}

/** Returns key pattern and item schema of a mapping with free names; null if the schema is not such a mapping. */
function namedItems({ patternProperties = {} }: Shape): [pattern: string, items: Shape] | null {
  const [first, ...others] = Object.entries(patternProperties)
  return first !== undefined && others.length === 0 && isLarge(first[1]) ? first : null
}

type Choice = Shape & { readonly if: Shape; readonly then: Shape; readonly else: Shape }

const ofChoices = new Set(['if', 'then', 'else', 'default', 'description'])

/** Returns whether a schema consists of two alternatives only. */
function isChoice(schema: Shape): schema is Choice {
  const { if: condition, then, else: otherwise } = schema
  if (condition === undefined || then === undefined || otherwise === undefined) return false
  return isLarge(schema) && Object.keys(schema).every((key) => ofChoices.has(key))
}

const large = new WeakMap<Shape, boolean>()

/** Returns whether a schema contains mappings, and so gets its own part. */
function isLarge(schema: Shape): boolean {
  let known = large.get(schema)
  if (known === undefined) {
    const { items, then, else: otherwise, properties, patternProperties } = schema
    known =
      properties !== undefined ||
      (patternProperties !== undefined && Object.values(patternProperties).some(isLarge)) ||
      [items, then, otherwise].some((inner) => typeof inner === 'object' && isLarge(inner))
    large.set(schema, known)
  }
  return known
}

/** Returns the schemas that contain options: of the file, of services, routes and a sidecar, and of their sections. */
function frameOf(schema: Shape): Shape[] {
  const sections = ({ properties = {} }: Shape) =>
    [properties.edge, properties.mesh].filter((section) => section !== undefined)
  const collections = Object.values(schema.properties ?? {}).filter((each) => each.items ?? namedItems(each))
  const items = collections.flatMap((each) => each.items ?? namedItems(each)![1])
  const sidecar = schema.properties?.sidecar
  const inbound = sidecar?.properties?.inbound
  const listeners = [inbound?.then?.items, inbound?.else].filter((each) => each !== undefined)
  const ofSidecar = [sidecar, inbound, inbound?.then].filter((each) => each !== undefined)
  return [
    schema,
    ...collections,
    ...items,
    ...ofSidecar,
    ...listeners,
    ...[schema, ...items, ...listeners].flatMap(sections)
  ]
}

/** Compiles schemas, equal ones only once: most options of concerns can be set at several levels. */
class Compiler {
  readonly #ajv: Ajv
  readonly #functions = new Map<string, ValidateFunction>()
  readonly #parts = new WeakMap<object, Part>()
  readonly #frame: ReadonlySet<object>

  constructor(schema: Shape) {
    this.#frame = new Set(frameOf(schema))
    // `schemaFault` has validated the schemas of plugins.
    const fast = { code: { optimize: false }, allowMatchingProperties: true, validateSchema: false }
    this.#ajv = addKeywords(new Ajv({ allErrors: true, useDefaults: true, strict: true, verbose: true, ...fast }))
  }

  part(schema: object): Part {
    let part = this.#parts.get(schema)
    if (part === undefined) {
      // A plugin's schema is compiled as a whole, since its references are relative to it.
      const isApart = this.#frame.has(schema) || !JSON.stringify(schema).includes('"$')
      part = new Part(this, schema, isApart)
      this.#parts.set(schema, part)
    }
    return part
  }

  compiled({ default: _set, ...schema }: Shape): ValidateFunction {
    // The default is applied by the parent of the value.
    const text = JSON.stringify(schema)
    let compiled = this.#functions.get(text)
    if (compiled === undefined) {
      compiled = this.#ajv.compile(schema)
      this.#functions.set(text, compiled)
    }
    return compiled
  }
}

/** Returns the part for a whole schema. */
export function compile(schema: object): Part {
  return new Compiler(schema).part(schema)
}

/** Cache of the last configuration's compiled schema, since plugins seldom change it. */
export class LastCompiled {
  #last: { readonly text: string; readonly compiled: Part } | undefined

  compiled(schema: object): Part {
    const text = JSON.stringify(schema)
    if (this.#last?.text !== text) this.#last = { text, compiled: compile(schema) }
    return this.#last.compiled
  }
}
