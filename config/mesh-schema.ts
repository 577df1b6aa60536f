/** Schema of the sections that the mesh reads: discovery, defaults for every service, services. */
import type { TObject, TSchema } from 'typebox'
import type { Key, Keys, Level, SourceKey } from './concern.ts'
import { keysAt } from './concern.ts'
import { Discovery } from './schema/gateway.ts'
import { Name, strict } from './schema/kit.ts'
import { Service } from './schema/service.ts'
import Type from './schema/type.ts'

/** Returns the schema of a mesh without a gateway. */
export function meshSchema({ mesh, sources }: Keys): TObject {
  return Type.Object(
    { discovery: discovery(sources), mesh: section(mesh, 'gateway'), services: services(mesh, sources) },
    strict
  )
}

/** Returns the schema of `discovery`, with the options of the sources. */
export function discovery(sources: readonly SourceKey[]): TObject {
  const options = sources.flatMap(({ name, options }) =>
    options === undefined ? [] : [[name, Type.Optional(options)]]
  )
  return Type.Object({ ...Object.fromEntries(options), ...Discovery.properties }, { ...strict, default: {} })
}

/** Returns the schema of `services`; `more` are further keys of a service. */
export function services(
  keys: readonly Key[],
  sources: readonly SourceKey[],
  more: Record<string, TSchema> = {}
): TSchema {
  const found = sources.map(({ name, service }) => [name, Type.Optional(service)])
  const service = Type.Object(
    { ...Object.fromEntries(found), ...Service.properties, mesh: Type.Optional(section(keys, 'service')), ...more },
    strict
  )
  return Type.Record(Name, service, { ...strict, default: {} })
}

/** Returns the schema of `edge` or `mesh` at a level. */
export function section(keys: readonly Key[], level: Level): TObject {
  const isTop = level === 'gateway'
  const properties = keysAt(keys, level).map((key): [string, TSchema] => {
    const hasDefault = isTop && key.default !== undefined
    const options = (level === 'route' && key.routeOptions) || key.options
    return [key.name, hasDefault ? { ...options, default: key.default } : Type.Optional(options)]
  })
  return Type.Object(Object.fromEntries(properties), isTop ? { ...strict, default: {} } : strict)
}
