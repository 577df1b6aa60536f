/** Completes a validated document: applies inheritance, makes paths absolute, and freezes the result. */
import { dirname, resolve } from 'node:path'
import type { TObject } from 'typebox'
import type { Steps } from '../plugins/time-slices.ts'
import { composedTargets } from './compose/targets.ts'
import type { Key, Keys } from './concern.ts'
import { keysAt } from './concern.ts'
import { declaredBy, instructingHeaders, otherServices, perRequestHeaders } from './declared.ts'
import type { Position, Report } from './faults.ts'
import { forwardKeys } from './forward.ts'
import { Protections } from './protection.ts'
import { defaultsOf } from './schema/kit.ts'
import type { ClientCertificateOptions, TlsOptions } from './schema/tls.ts'
import type {
  Config,
  Consumers,
  DiscoveryOptions,
  MeshPolicy,
  RouteConfig,
  RoutePolicy,
  ServiceConfig,
  ServiceOptions,
  Written
} from './schema.ts'
import { backendsOf, defaultSources, sourcesOf } from './sources.ts'

/** A function that resolves a path relative to the configuration's folder. */
type Absolute = (path: string) => string

/** The file of a configuration, and its hash. */
type Origin = Pick<Config, 'file' | 'hash'>

export function* complete(data: Written, { file, hash }: Origin, keys: Keys, report: Report): Steps<Config> {
  const absolute = (path: string) => resolve(dirname(file), path)
  const edge = completeSection(data.edge, keys.edge, absolute)
  const mesh = completeSection(data.mesh, keys.mesh, absolute)
  const forward = data.forward && completeSection(data.forward, forwardKeys, absolute)
  const routeKeys = new Set(keysAt(keys.edge, 'route').map(({ name }) => name))
  const inherited = Object.fromEntries(Object.entries(edge).filter(([name]) => routeKeys.has(name)))
  const bridgeOnly = Object.fromEntries(
    keys.edge.flatMap(({ name, needsBridge }) => (needsBridge === undefined ? [] : [[name, undefined]]))
  )
  const protections = new Protections(keys)
  const named: [name: string, service: ServiceConfig][] = []
  for (const [name, written] of Object.entries(data.services)) {
    yield
    const policy = { ...mesh, ...completeSection(written.mesh ?? {}, keys.mesh, absolute) }
    const ownForward = forward && { ...forward, ...completeSection(written.forward ?? {}, forwardKeys, absolute) }
    const completed = service(name, written, policy, data.discovery, keys, absolute)
    named.push([name, { ...completed, ...(ownForward && { forward: ownForward }) }])
  }
  const services = Object.fromEntries(named)
  const routes: RouteConfig[] = []
  for (const [index, { httpProxy, forward: ownForward, ...given }] of data.routes.entries()) {
    yield
    const { via: givenVia, split, stickOn, ...rest } = given
    const ownMesh = ownForward ?? completeSection(rest.mesh ?? {}, keys.mesh, absolute)
    const mesh: RoutePolicy = { ...ownMesh, ...(split && { split }), ...(stickOn && { stickOn }) }
    const isComposed = rest.compose !== undefined
    const targets = rest.compose
      ? composedTargets(rest.compose, mesh, (settings) => completeSection(settings, keys.mesh, absolute))
      : [{ service: rest.service ?? split?.[0]?.service ?? '', mesh, call: null }]
    const isForwarded = forward !== undefined && !isComposed && givenVia !== 'bridge'
    const isProxied = isForwarded || givenVia === 'http-proxy'
    const isBridged = !isProxied && !isComposed
    const off = isForwarded || isBridged ? {} : bridgeOnly
    const edgePolicy = { ...inherited, ...completeSection(rest.edge ?? {}, keys.edge, absolute), ...off }
    const position = positionOf(`/routes/${index}/httpProxy`, report)
    routes.push({
      ...rest,
      ...(isProxied && { via: 'http-proxy' as const }),
      ...(httpProxy && { httpProxy: { ...files(httpProxy, ['module'], absolute), position } }),
      service: targets[0]?.service ?? '',
      targets,
      services: targets.flatMap(({ service, mesh }) => [
        service,
        ...(mesh.split ?? []).map((share) => share.service),
        ...otherServices(keys.mesh, mesh)
      ]),
      isBridged,
      mesh,
      edge: edgePolicy,
      declared: declaredBy(keys.edge, edgePolicy),
      protection: protections.of({ edge: edgePolicy, config: rest.config, plugins: rest.plugins })
    })
  }
  const listeners = data.listeners.map((listener) => ({
    ...files(listener, ['path'], absolute),
    ...(listener.tls && { tls: completeTls(listener.tls, absolute) })
  }))
  const config: Config = {
    ...data,
    file,
    hash,
    consumers: Array.isArray(data.consumers)
      ? { file: null, digest: null, list: data.consumers }
      : (data.consumers as Consumers),
    listen: listeners[0]!,
    listeners,
    discovery: discovery(data, keys, absolute),
    edge,
    mesh,
    ...(forward && { forward }),
    services,
    routes,
    plugins: data.plugins.map((plugin, index) => {
      const routeConfig = keys.routeConfig?.plugins?.[index] ?? null
      return { ...files(plugin, ['path'], absolute), position: positionOf(`/plugins/${index}`, report), routeConfig }
    }),
    backends: Object.fromEntries(Object.values(services).map((each) => [each.name, backendsOf(each, keys.sources)])),
    otherServices: Object.fromEntries(
      Object.values(services).map(({ name, mesh }) => [name, otherServices(keys.mesh, mesh)])
    ),
    instructions: instructingHeaders(keys, { edge, mesh, services, routes }),
    perRequestHeaders: perRequestHeaders(keys.edge, edge)
  }
  for (const part of [...routes, ...Object.values(services)]) {
    yield
    freeze(part)
  }
  return freeze(config)
}

function positionOf(at: string, report: Report): Position {
  const { line = 1, column = 1, file } = report.at(at) ?? {}
  return { line, column, ...(file !== undefined && { file }) }
}

/** Lets each concern complete its options, such as paths of files. */
function completeSection<T extends object>(section: T, keys: readonly Key[], absolute: Absolute): T {
  const copy = { ...section }
  for (const key of keys) {
    const options: unknown = Reflect.get(copy, key.name)
    if (options && key.complete) Object.assign(copy, { [key.name]: key.complete(options, absolute) })
  }
  return copy
}

/** Returns a service with the key of its source, also if the source is the default one. */
function service(
  name: string,
  { forward: _own, ...written }: ServiceOptions,
  mesh: MeshPolicy,
  discovery: DiscoveryOptions,
  { sources }: Keys,
  absolute: Absolute
): ServiceConfig {
  const [source] = [...sourcesOf(written, sources), ...defaultSources(discovery, sources)]
  if (source === undefined) return { ...written, name, mesh }
  const given: unknown =
    Reflect.get(written, source.name) ?? ('properties' in source.service ? defaultsOf(source.service as TObject) : {})
  const completed = source.completeService?.(given, name, absolute) ?? given
  return { ...written, name, [source.name]: completed, mesh }
}

function completeTls(tls: TlsOptions, absolute: Absolute): TlsOptions {
  const clients = (options: ClientCertificateOptions) => files(options, ['ca'], absolute)
  const { clientCertificate, certificates, folders, hosts } = tls
  return {
    ...files(tls, ['cert', 'key', 'ca'], absolute),
    certificates: certificates.map((pair) => files(pair, ['cert', 'key'], absolute)),
    folders: folders.map(absolute),
    ...(clientCertificate && { clientCertificate: clients(clientCertificate) }),
    hosts: hosts.map((host) => ({ ...host, clientCertificate: clients(host.clientCertificate) }))
  }
}

function discovery({ discovery: written }: Written, { sources }: Keys, absolute: Absolute): DiscoveryOptions {
  const { snapshot } = written
  const completed = sources.flatMap(({ name, complete }) => {
    const options: unknown = Reflect.get(written, name)
    return options === undefined || complete === undefined ? [] : [[name, complete(options, absolute)]]
  })
  return {
    ...written,
    ...Object.fromEntries(completed),
    ...(snapshot && { snapshot: files(snapshot, ['path'], absolute) })
  }
}

function files<T extends object, K extends keyof T>(section: T, keys: readonly K[], absolute: Absolute): T {
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
