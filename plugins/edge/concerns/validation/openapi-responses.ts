/** Reads the responses of an operation of an OpenAPI document. */
import { pointer as below } from '../../../../config/faults.ts'
import { formatOf } from '../../protocol/media-types.ts'
import { isObject } from '../../strict-json.ts'
import type { ResponseRule } from './responses.ts'
import type { Schemas } from './schemas.ts'
import type { Place } from './sources.ts'
import { SchemaFault, valueAt } from './sources.ts'

/** Ids of schemas by media range; null for bodies that are not checked. */
type Contents = readonly (readonly [range: string, id: string | null])[]
/** Contents by status: `200`, `2XX`, `default`. */
export type ResponseDrafts = ReadonlyMap<string, Contents>

const inner = (place: Place, ...segments: string[]): Place => ({ ...place, pointer: below(place.pointer, ...segments) })

/** Returns the responses at a place. `resolve` returns the mapping at a place, after references. */
export function responseDrafts(
  place: Place,
  schemas: Schemas,
  resolve: (place: Place) => readonly [Place, Readonly<Record<string, unknown>>]
): ResponseDrafts {
  const all = valueAt(place)
  if (all === undefined) return new Map()
  if (!isObject(all)) throw new SchemaFault(place, 'expected a mapping of statuses')
  const drafts = new Map<string, Contents>()
  for (const status of Object.keys(all)) {
    if (status.startsWith('x-')) continue
    const at = inner(place, status)
    if (!/^(?:[1-5](?:\d\d|XX)|default)$/i.test(status))
      throw new SchemaFault(at, 'expected a status, such as 200, 2XX or default')
    const [found, response] = resolve(at)
    const contents = isObject(response.content) ? Object.keys(response.content) : []
    drafts.set(
      status.toUpperCase(),
      contents.map((range) => {
        const schema = inner(found, 'content', range, 'schema')
        const isRead = formatOf(range.split(';')[0]!.trim().toLowerCase()) === 'json'
        return [range, isRead && valueAt(schema) !== undefined ? schemas.add(schema) : null] as const
      })
    )
  }
  return drafts
}

/** Returns the rules, once the schemas are compiled. */
export const responseRules = (drafts: ResponseDrafts, schemas: Schemas): ReadonlyMap<string, ResponseRule> =>
  new Map(
    [...drafts].map(([status, contents]) => [
      status,
      contents.map(([range, id]) => [range, id === null ? null : schemas.validator(id, false)] as const)
    ])
  )
