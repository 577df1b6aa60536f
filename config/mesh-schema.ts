/** Schema of the sections that the mesh reads: discovery, defaults for every service, services. */
import type { TObject, TSchema } from 'typebox'
import type { Key, Level } from './concern.ts'
import { keysAt } from './concern.ts'
import { Discovery } from './schema/gateway.ts'
import { Name, strict } from './schema/kit.ts'
import { Service } from './schema/service.ts'
import Type from './schema/type.ts'

/** Returns the schema of a mesh without a gateway. */
export function meshSchema(keys: readonly Key[]): TObject {
  return Type.Object({ discovery: Discovery, mesh: section(keys, 'gateway'), services: services(keys) }, strict)
}

/** Returns the schema of `services`. */
export function services(keys: readonly Key[]): TSchema {
  const service = Type.Object({ ...Service.properties, mesh: Type.Optional(section(keys, 'service')) }, strict)
  return Type.Record(Name, service, { ...strict, default: {} })
}

/** Returns the schema of `edge` or `mesh` at a level. */
export function section(keys: readonly Key[], level: Level): TObject {
  const isTop = level === 'gateway'
  const properties = keysAt(keys, level).map((key): [string, TSchema] => {
    const hasDefault = isTop && key.default !== undefined
    return [key.name, hasDefault ? { ...key.options, default: key.default } : Type.Optional(key.options)]
  })
  return Type.Object(Object.fromEntries(properties), isTop ? { ...strict, default: {} } : strict)
}
