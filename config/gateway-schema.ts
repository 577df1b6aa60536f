import type { TObject, TSchema } from 'typebox'
import type { Key, Keys, Level } from './concern.ts'
import { consumersSchema } from './consumers.ts'
import { forwardKeys } from './forward.ts'
import { forwardingHeaders } from './header-names.ts'
import { discovery, section, services } from './mesh-schema.ts'
import { routeConfigSchema } from './route-config.ts'
import { composeOf } from './schema/compose.ts'
import { Listen, listenersOf } from './schema/gateway.ts'
import { Name, strict } from './schema/kit.ts'
import { GroupMatch, Priority, Route } from './schema/route.ts'
import Type from './schema/type.ts'
import { sections } from './schema.ts'

/** Returns the schema of the whole file, with the keys of concerns at each level. */
export function gatewaySchema({ edge, mesh, sources, routeConfig }: Keys): TObject {
  const halves = (level: Level) => ({ edge: section(edge, level), mesh: section(mesh, level) })
  const routeHalves = halves('route')
  const topHalves = halves('gateway')
  const route = Type.Object(
    {
      ...Route.properties,
      compose: Type.Optional(composeOf({ mesh: Type.Optional(routeHalves.mesh) })),
      edge: Type.Optional(routeHalves.edge),
      mesh: Type.Optional(routeHalves.mesh),
      forward: Type.Optional(forward('route')),
      config: Type.Optional(routeConfigSchema(routeConfig))
    },
    strict
  )
  const { config, edge: ownEdge, mesh: ownMesh, forward: ownForward } = route.properties
  const group = Type.Object(
    {
      match: Type.Optional(GroupMatch),
      priority: Type.Optional(Priority),
      service: Route.properties.service,
      path: Route.properties.path,
      edge: ownEdge,
      mesh: ownMesh,
      forward: ownForward,
      plugins: Route.properties.plugins,
      config
    },
    strict
  )
  const { admin, discovery: _discovery, redis, tracing, listen: _listen, ...last } = sections
  return Type.Object(
    {
      listen: listenWith([...edge, ...mesh]),
      admin,
      discovery: discovery(sources),
      redis,
      tracing,
      edge: topHalves.edge,
      mesh: { ...topHalves.mesh, expected: 'a mapping, or false for an edge without the mesh' },
      forward: Type.Optional(forward('gateway')),
      services: services(mesh, sources, { forward: Type.Optional(forward('service')) }),
      groups: Type.Optional(Type.Record(Name, group)),
      routes: Type.Array(route, { default: [] }),
      consumers: consumersSchema(edge, sources),
      ...last
    },
    {
      ...strict,
      // Sections for YAML anchors; the loader removes them.
      patternProperties: { '^x-': {} },
      title: 'Jingwei gateway configuration'
    }
  )
}

/** Returns the schema of `forward` at a level. */
function forward(level: Level): TSchema {
  // Without a default for the section: a file with the mesh has none.
  const { default: _none, ...schema }: { default?: unknown } & TSchema = section(forwardKeys, level)
  return schema
}

/** Returns the schema of `listen`; `trustHeaders` also accepts the headers that instruct concerns. */
function listenWith(keys: readonly Key[]): TSchema {
  const { trustHeaders } = Listen.properties
  const names = keys.flatMap(({ instructions }) => instructions?.headers.map((name) => name.toLowerCase()) ?? [])
  const items = { ...trustHeaders.items, enum: [...forwardingHeaders, ...names] }
  return listenersOf({ ...Listen, properties: { ...Listen.properties, trustHeaders: { ...trustHeaders, items } } })
}
