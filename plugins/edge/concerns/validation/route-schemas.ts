/** The schemas that a route has in the configuration itself. */
import type { ValidateFunction } from 'ajv'
import { pointer as below } from '../../../../config/faults.ts'
import { atOnce } from '../../../time-slices.ts'
import { isObject } from '../../strict-json.ts'
import type { ContentRule, Operation, PlaceRule } from './operation.ts'
import type { ValidationOptions } from './options.ts'
import type { Parameter } from './parameters.ts'
import { Schemas } from './schemas.ts'
import { isArray, shapeOf } from './shapes.ts'
import type { Place } from './sources.ts'
import { SchemaFault, Sources } from './sources.ts'
import type { Dialect } from './validators.ts'
import type { In } from './values.ts'

/** Keys of the options, and the places of parameters. */
export const placeKeys = {
  path: 'path',
  query: 'query',
  headers: 'header',
  cookies: 'cookie'
} as const satisfies Record<string, In>

const dialects: readonly (readonly [RegExp, Dialect])[] = [
  [/^https?:\/\/json-schema\.org\/draft-0[467]\/schema#?$/, 'draft-07'],
  [/^https?:\/\/json-schema\.org\/draft\/20(?:19-09|20-12)\/schema#?$/, '2020-12']
]

function dialectOf(schema: unknown, place: Place, fault: (fault: SchemaFault) => void): Dialect {
  const named = isObject(schema) ? schema.$schema : undefined
  if (named === undefined) return '2020-12'
  const found = dialects.find(([name]) => name.test(String(named)))
  if (found === undefined) {
    fault(
      new SchemaFault(
        { ...place, pointer: `${place.pointer}/$schema` },
        'expected http://json-schema.org/draft-07/schema# or https://json-schema.org/draft/2020-12/schema'
      )
    )
  }
  return found?.[1] ?? '2020-12'
}

/** Stands for a schema with a fault. */
const refuseAll = Object.assign(() => false, { errors: null }) as unknown as ValidateFunction

/** A schema that is the root of its own references. */
interface Root {
  readonly schemas: Schemas
  readonly place: Place
  readonly sources: Sources
  readonly id: string
  readonly isBroken: boolean
}

/**
 * Compiles the schemas of a route. `file` is that of the configuration, to which references are relative. Faults are reported
 * with the key of the option, such as `query` or `body/content/application~1json`, and a place within its schema.
 */
export function compileRoute(
  options: Pick<ValidationOptions, 'query' | 'path' | 'headers' | 'cookies' | 'body'>,
  file: string,
  report: (key: string, fault: SchemaFault) => void
): Operation {
  const names = new Set<string>()
  const rootOf = (schema: unknown, key: string): Root => {
    let isBroken = false
    const fault = (each: SchemaFault): void => {
      if (each.severity !== 'hint') isBroken = true
      report(key, each)
    }
    const sources = new Sources()
    const place = { source: sources.add({ file, root: schema }), pointer: '' }
    const schemas = new Schemas(sources, dialectOf(schema, place, fault), 'request', fault)
    const id = schemas.add(place)
    atOnce(schemas.copyAll())
    try {
      if (!isBroken) atOnce(schemas.compileAll(true))
    } catch (error) {
      fault(new SchemaFault(place, (error as Error).message))
    }
    for (const name of schemas.names) names.add(name)
    return { schemas, place, sources, id, isBroken }
  }
  const compiled = ({ schemas, id, isBroken }: Root, all: boolean): ValidateFunction =>
    isBroken ? refuseAll : schemas.validator(id, all)
  const places: PlaceRule[] = []
  for (const [key, where] of Object.entries(placeKeys) as [keyof typeof placeKeys, In][]) {
    const schema = options[key]
    if (schema === undefined) continue
    const root = rootOf(schema, key)
    const { properties } = shapeOf(root.sources, root.place)
    const parameters = [...properties].map(
      ([name, shape]): Parameter => ({
        in: where,
        name,
        style: where === 'query' || where === 'cookie' ? 'form' : 'simple',
        explode: where === 'query' && isArray(shape),
        shape,
        mayBeEmpty: false
      })
    )
    places.push({ in: where, parameters, validate: compiled(root, true) })
  }
  return { places, body: bodyOf(), names }

  function bodyOf(): Operation['body'] {
    const { body } = options
    if (body === undefined) return null
    const content = Object.entries(body.content).map(([range, schema]) => {
      const key = below('body/content', range)
      if (schema === true) return [range, null] as const
      const root = rootOf(schema, key)
      const rule: ContentRule = {
        validate: compiled(root, false),
        validateAll: compiled(root, true),
        shape: shapeOf(root.sources, root.place)
      }
      return [range, rule] as const
    })
    return { isRequired: (method) => body.required && bodyMethods.has(method), content }
  }
}

const bodyMethods: ReadonlySet<string> = new Set(['POST', 'PUT', 'PATCH'])

/** Returns options with absolute paths in references to files. */
export function withAbsoluteFiles(options: ValidationOptions, absolute: (path: string) => string): ValidationOptions {
  const copy = (value: unknown): unknown => {
    if (Array.isArray(value)) return value.map(copy)
    if (!isObject(value)) return value
    return Object.fromEntries(
      Object.entries(value).map(([key, each]) => [key, key === '$ref' ? fileOf(each) : copy(each)])
    )
  }
  const fileOf = (reference: unknown): unknown => {
    const [, path = '', fragment = ''] = /^([^#]*)(#.*)?$/s.exec(String(reference)) ?? []
    return typeof reference !== 'string' || path === '' || path.includes(':')
      ? copy(reference)
      : `${absolute(path)}${fragment}`
  }
  const { query, path, headers, cookies, body, ...rest } = options
  const schemas = Object.entries({ query, path, headers, cookies, body }).filter(([, schema]) => schema !== undefined)
  return { ...rest, ...Object.fromEntries(schemas.map(([key, schema]) => [key, copy(schema)])) }
}
