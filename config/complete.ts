/** From what was written to what is in force: inheritance, absolute paths, and nothing that can change. */
import { dirname, resolve } from 'node:path'
import type { Static } from 'typebox'
import type { Report } from './faults.ts'
import type { Config, EdgePolicy, Gateway, RouteConfig, ServiceConfig } from './schema.ts'
import { parseDuration, parseSize } from './units.ts'

/** The document once it fits the schema. */
export type Written = Static<typeof Gateway>

/** On a route unless something says otherwise. */
const edgeDefaults = {
  bodyLimit: parseSize('10mb') ?? 0,
  accessLog: true,
  websocket: { idleTimeout: parseDuration('5m') ?? 0 }
}

/** Whether a `publicKey` is the key itself rather than the name of its file. */
export const isPem = (text: string) => text.includes('-----BEGIN')

export function complete(data: Written, file: string, report: Report): Config {
  const absolute = (path: string) => resolve(dirname(file), path)
  const { consumers: _none, ...rest } = data
  const edge = absoluteKey({ ...edgeDefaults, ...data.edge }, absolute)
  const { requestId: _everywhere, ...inherited } = edge
  const config: Config = {
    ...rest,
    file,
    listen: {
      ...data.listen,
      ...(data.listen.tls && { tls: files(data.listen.tls, ['cert', 'key', 'ca'], absolute) })
    },
    discovery: discovery(data, absolute),
    edge,
    mesh: upstreamFiles(data.mesh, absolute),
    services: Object.fromEntries(
      Object.entries(data.services).map(([name, s]) => [name, service(name, s, data, absolute)])
    ),
    routes: data.routes.map((route) => completeRoute(route, inherited, absolute)),
    plugins: data.plugins.map((plugin, index) => {
      const { line = 1, column = 1 } = report.at(`/plugins/${index}`) ?? {}
      return { ...files(plugin, ['path'], absolute), position: { line, column } }
    })
  }
  return freeze(config)
}

function service(
  name: string,
  written: Written['services'][string],
  data: Written,
  absolute: (path: string) => string
): ServiceConfig {
  const { consul, instances, dns } = written
  const found = consul ?? (instances === undefined && dns === undefined ? { passingOnly: true } : undefined)
  return {
    ...written,
    name,
    ...(found && { consul: { ...found, service: found.service ?? name } }),
    mesh: upstreamFiles({ ...data.mesh, ...written.mesh }, absolute)
  }
}

function completeRoute(
  route: Written['routes'][number],
  inherited: EdgePolicy,
  absolute: (path: string) => string
): RouteConfig {
  const { split, stickOn, edge, mesh, ...rest } = route
  return {
    ...rest,
    service: route.service ?? split?.[0]?.service ?? '',
    edge: absoluteKey({ ...inherited, ...edge }, absolute),
    mesh: { ...mesh, ...(split && { split }), ...(stickOn && { stickOn }) }
  }
}

function absoluteKey<T extends EdgePolicy>(edge: T, absolute: (path: string) => string): T {
  const { jwt } = edge
  if (!jwt || jwt.publicKey === undefined || isPem(jwt.publicKey)) return edge
  return { ...edge, jwt: { ...jwt, publicKey: absolute(jwt.publicKey) } }
}

function discovery({ discovery: written }: Written, absolute: (path: string) => string): Written['discovery'] {
  const { consul, snapshot } = written
  return {
    ...written,
    ...(consul?.tls && { consul: { ...consul, tls: files(consul.tls, ['ca', 'cert', 'key'], absolute) } }),
    ...(snapshot && { snapshot: files(snapshot, ['path'], absolute) })
  }
}

/** A mesh policy's files. */
function upstreamFiles<T extends { tls?: Written['mesh']['tls'] }>(mesh: T, absolute: (path: string) => string): T {
  return mesh.tls ? { ...mesh, tls: files(mesh.tls, ['ca', 'cert', 'key'], absolute) } : mesh
}

function files<T extends object, K extends keyof T>(
  section: T,
  keys: readonly K[],
  absolute: (path: string) => string
): T {
  const copy = { ...section }
  for (const key of keys) {
    const path = copy[key]
    if (typeof path === 'string') Object.assign(copy, { [key]: absolute(path) })
  }
  return copy
}

function freeze<T>(value: T): T {
  if (typeof value !== 'object' || value === null || Object.isFrozen(value)) return value
  for (const inner of Object.values(value)) freeze(inner)
  return Object.freeze(value)
}
