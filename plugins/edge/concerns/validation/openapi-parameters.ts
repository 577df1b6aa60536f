/** Reads the parameters of an operation of an OpenAPI document. */
import { pointer as below } from '../../../../config/faults.ts'
import { formatOf } from '../../protocol/media-types.ts'
import { isObject } from '../../strict-json.ts'
import type { Parameter, Style } from './parameters.ts'
import type { Schemas } from './schemas.ts'
import type { Shape } from './shapes.ts'
import { shapeOf } from './shapes.ts'
import type { Place, Sources } from './sources.ts'
import { SchemaFault, valueAt } from './sources.ts'
import type { In } from './values.ts'

type Mapping = Readonly<Record<string, unknown>>

/** Parameters of one place, and the id of the schema of the object with all of them. */
export interface PlaceDraft {
  readonly in: In
  readonly parameters: readonly Parameter[]
  readonly id: string
}

interface Context {
  readonly schemas: Schemas
  readonly sources: Sources
  /** True if query parameters that the document does not have are refused. */
  readonly refusesOthers: boolean
}

/** Headers that OpenAPI does not describe as parameters. */
const ofHttp = new Set(['accept', 'content-type', 'authorization'])
const noShape: Shape = { types: new Set(), items: null, properties: new Map() }

const inner = (place: Place, ...segments: string[]): Place => ({ ...place, pointer: below(place.pointer, ...segments) })

/** Returns the rule for one place; none if it has no parameters, unless it must have none. */
export function placeDraft(
  where: In,
  all: ReadonlyMap<string, Place>,
  { schemas, sources, refusesOthers: refusesUnknown }: Context
): readonly PlaceDraft[] {
  const found = [...all.values()].filter((each) => (valueAt(each) as Mapping).in === where)
  const described = new Map<string, Place>()
  const required: string[] = []
  const parameters: Parameter[] = []
  for (const at of found) {
    const parameter = valueAt(at) as Mapping
    const given = String(parameter.name)
    const name = where === 'header' ? given.toLowerCase() : given
    if (where === 'header' && ofHttp.has(name)) continue
    const schema = schemaOf(parameter, at)
    const shape = schema === null ? noShape : shapeOf(sources, schema.place)
    const { required: isRequired, allowEmptyValue } = parameter
    if (isRequired === true || where === 'path') required.push(name)
    if (schema !== null) described.set(name, schema.place)
    schemas.names.add(name)
    const style = schema?.isJson ? 'json' : styleOf(parameter.style, where, at)
    const explode = typeof parameter.explode === 'boolean' ? parameter.explode : style === 'form'
    parameters.push({
      in: where,
      name,
      style,
      explode,
      shape,
      mayBeEmpty: allowEmptyValue === true && isRequired !== true
    })
  }
  const refusesOthers = where === 'query' && refusesUnknown
  if (parameters.length === 0 && !refusesOthers) return []
  const undescribed = parameters.map(({ name }) => name).filter((name) => !described.has(name))
  const id = schemas.addObject(described, {
    required,
    ...(refusesOthers && { additionalProperties: false, patternProperties: namesPattern(undescribed) })
  })
  return [{ in: where, parameters, id }]
}

function styleOf(style: unknown, where: In, place: Place): Style {
  const possible: { readonly [I in In]: readonly Style[] } = {
    path: ['simple', 'label', 'matrix'],
    query: ['form', 'spaceDelimited', 'pipeDelimited', 'deepObject'],
    header: ['simple'],
    cookie: ['form']
  }
  const found = possible[where].find((each) => each === (style ?? possible[where][0]))
  if (found === undefined) throw new SchemaFault(inner(place, 'style'), `expected ${possible[where].join(', ')}`)
  return found
}

function schemaOf(parameter: Mapping, at: Place): { place: Place; isJson: boolean } | null {
  if ('schema' in parameter) return { place: inner(at, 'schema'), isJson: false }
  if (!isObject(parameter.content)) return null
  const [type = ''] = Object.keys(parameter.content)
  const place = inner(at, 'content', type, 'schema')
  return formatOf(type.toLowerCase()) === 'json' && valueAt(place) !== undefined ? { place, isJson: true } : null
}

/** Returns a pattern for parameters without a schema, so that they count as defined. */
function namesPattern(names: readonly string[]): Record<string, true> {
  const literal = (text: string) => text.replace(/[^A-Za-z0-9_]/g, '\\$&')
  return names.length === 0 ? {} : { [`^(?:${names.map(literal).join('|')})$`]: true }
}
