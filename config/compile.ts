/** The schema of a file as functions that validate it: ajv, with the formats and keywords in which options are described. */
import { isIP } from 'node:net'
import type { ValidateFunction } from 'ajv'
import { Ajv } from 'ajv'
import type { Steps } from '../plugins/time-slices.ts'
import { didYouMean } from './nearest.ts'
import type { Unit } from './units.ts'
import { units } from './units.ts'

/** Holder of a value, in which it can be replaced. */
interface Holder {
  parentData: object
  parentDataProperty: string | number
}

/** A host, and a port if it is not the usual one. */
function isAuthority(text: string): boolean {
  if (!URL.canParse(`tcp://${text}`)) return false
  const { hostname, host } = new URL(`tcp://${text}`)
  return hostname !== '' && host.toLowerCase() === text.toLowerCase()
}

function isPeer(text: string): boolean {
  if (text === 'unix') return true
  const [address = '', bits, ...rest] = text.split('/')
  const version = isIP(address)
  if (version === 0 || rest.length > 0) return false
  return bits === undefined || (/^\d{1,3}$/.test(bits) && Number(bits) <= (version === 4 ? 32 : 128))
}

const isUnit = (name: string): name is Unit => Object.hasOwn(units, name)

/** Adds the formats and keywords in which options are described: `unit`, `expected`. */
export function addKeywords(ajv: Ajv): Ajv {
  ajv.addFormat('url', (text: string) => URL.canParse(text) && new URL(text).hostname !== '')
  ajv.addFormat('authority', isAuthority)
  ajv.addFormat('peer', isPeer)
  ajv.addKeyword({ keyword: 'expected', schemaType: 'string' })
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

/** One for all schemas of plugins, as it compiles the schema of schemas first. */
let checker: Ajv | undefined

/** Returns what makes a schema useless for the validator; null if it is fine. */
export function schemaFault(schema: object): string | null {
  checker ??= addKeywords(new Ajv({ strict: true, useDefaults: true }))
  try {
    checker.compile(schema)
    // Another one may have the same `$id`.
    checker.removeSchema(schema)
    return null
  } catch (error) {
    checker = undefined
    return (error as Error).message
  }
}

/** A property of the root whose items are validated one by one: a list, or a mapping whose keys are names. */
export interface Collection {
  readonly key: string
  /** Names of the items of a mapping; null for a list. */
  readonly names: RegExp | null
  readonly items: Part
}

/** A compiled schema. */
export interface Part {
  readonly schema: object
  readonly isValid: ValidateFunction
}

/** The schema of the root without the items of its collections, and the schemas of these. */
export interface Compiled {
  readonly root: Part
  readonly collections: readonly Collection[]
}

/** Part of a JSON Schema that tells whether it is that of a collection. */
interface CollectionShape {
  readonly type?: string
  readonly items?: object
  readonly patternProperties?: Readonly<Record<string, object>>
}

/**
 * Compiles a schema in parts. A collection's items have one of their own, so that a thousand routes need not be validated
 * at once, nor all of the schema compiled at once.
 */
export function* compile(schema: object): Steps<Compiled> {
  // `schemaFault` has validated the schemas of plugins.
  const fast = { code: { optimize: false }, allowMatchingProperties: true, validateSchema: false }
  const ajv = addKeywords(new Ajv({ allErrors: true, useDefaults: true, strict: true, verbose: true, ...fast }))
  const part = (schema: object): Part => ({ schema, isValid: ajv.compile(schema) })
  const { properties = {} } = schema as { properties?: Readonly<Record<string, CollectionShape>> }
  const rootProperties: Record<string, object> = { ...properties }
  const collections: Collection[] = []
  for (const [key, shape] of Object.entries(properties)) {
    const [pattern, ...others] = Object.keys(shape.patternProperties ?? {})
    if (shape.type === 'array' && shape.items !== undefined) {
      rootProperties[key] = { ...shape, items: {} }
      collections.push({ key, names: null, items: part(shape.items) })
    } else if (shape.type === 'object' && pattern !== undefined && others.length === 0) {
      rootProperties[key] = { ...shape, patternProperties: { [pattern]: {} } }
      collections.push({ key, names: new RegExp(pattern, 'u'), items: part(shape.patternProperties![pattern]!) })
    } else continue
    yield
  }
  return { root: part({ ...schema, properties: rootProperties }), collections }
}

/** The schema that was compiled last. Compiling takes longer than all else for a small file, and plugins seldom change it. */
export class LastCompiled {
  #last: { readonly text: string; readonly compiled: Compiled } | undefined;

  *compiled(schema: object): Steps<Compiled> {
    const text = JSON.stringify(schema)
    if (this.#last?.text !== text) this.#last = { text, compiled: yield* compile(schema) }
    return this.#last.compiled
  }
}
