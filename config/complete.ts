/** Completes a validated document: applies inheritance, makes paths absolute, and freezes the result. */
import { dirname, resolve } from 'node:path'
import type { Steps } from '../plugins/time-slices.ts'
import { completePortal } from './check-portal.ts'
import { completeTracing } from './check-tracing.ts'
import type { Absolute } from './complete-services.ts'
import { completeSection, completeServices, files, freeze } from './complete-services.ts'
import { composedTargets } from './compose/targets.ts'
import type { Key, Keys } from './concern.ts'
import { keysAt } from './concern.ts'
import { completed } from './consumers.ts'
import { declaredBy, instructingHeaders, otherServices, perRequestHeaders } from './declared.ts'
import { directKindOf } from './direct-routes.ts'
import type { Position, Report } from './faults.ts'
import { forwardKeys } from './forward.ts'
import { Protections } from './protection.ts'
import type { ClientCertificateOptions, TlsOptions } from './schema/tls.ts'
import type { Config, Consumers, RouteConfig, RoutePolicy, Written } from './schema.ts'
import { backendsOf } from './sources.ts'

/** The file of a configuration, and its hash. */
type Origin = Pick<Config, 'file' | 'hash'>

export function* complete(data: Written, { file, hash }: Origin, keys: Keys, report: Report): Steps<Config> {
  const absolute = (path: string) => resolve(dirname(file), path)
  const edge = withoutIdle(completeSection(data.edge, keys.edge, absolute), data, keys)
  const forward = data.forward && completeSection(data.forward, forwardKeys, absolute)
  const routeKeys = new Set(keysAt(keys.edge, 'route').map(({ name }) => name))
  const inherited = Object.fromEntries(Object.entries(edge).filter(([name]) => routeKeys.has(name)))
  const bridgeOnly = Object.fromEntries(
    keys.edge.flatMap(({ name, needsBridge }) => (needsBridge === undefined ? [] : [[name, undefined]]))
  )
  const protections = new Protections(keys)
  const { mesh, services, discovery } = yield* completeServices(data, keys, absolute, (written) => ({
    ...(forward && { forward: { ...forward, ...completeSection(written.forward ?? {}, forwardKeys, absolute) } })
  }))
  const routes: RouteConfig[] = []
  for (const [index, { httpProxy, forward: ownForward, ...given }] of data.routes.entries()) {
    yield
    const { via: givenVia, split, stickOn, ...rest } = given
    const ownMesh = ownForward ?? completeSection(rest.mesh ?? {}, keys.mesh, absolute)
    const mesh: RoutePolicy = { ...ownMesh, ...(split && { split }), ...(stickOn && { stickOn }) }
    const isOwn = rest.compose !== undefined || directKindOf(rest) !== null
    const targets = directKindOf(rest)
      ? []
      : rest.compose
        ? composedTargets(rest.compose, mesh, (settings) => completeSection(settings, keys.mesh, absolute))
        : [{ service: rest.service ?? split?.[0]?.service ?? '', mesh, call: null }]
    const isForwarded = forward !== undefined && !isOwn && givenVia !== 'bridge'
    const isProxied = isForwarded || givenVia === 'http-proxy'
    const isBridged = !isProxied && !isOwn
    const off = isForwarded || isBridged ? {} : bridgeOnly
    const ownEdge = withoutIdle(completeSection(rest.edge ?? {}, keys.edge, absolute), data, keys)
    const edgePolicy = { ...inherited, ...ownEdge, ...off }
    const position = positionOf(`/routes/${index}/httpProxy`, report)
    routes.push({
      ...rest,
      ...(rest.response?.file !== undefined && { response: files(rest.response, ['file'], absolute) }),
      ...(rest.files && { files: files(rest.files, ['root'], absolute) }),
      ...(rest.portal && { portal: completePortal(rest.portal, absolute) }),
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
      ? { file: null, digest: null, stored: null, list: completed(data.consumers, keys.edge, absolute) }
      : (data.consumers as Consumers),
    listen: listeners[0]!,
    listeners,
    discovery,
    edge,
    mesh,
    ...(forward && { forward }),
    ...(data.tracing && { tracing: completeTracing(data.tracing, absolute) }),
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
    perRequestHeaders: perRequestHeaders(keys.edge, edge),
    calledModules: calledModules(keys.edge, edge, routes, report)
  }
  for (const part of [...routes, ...Object.values(services)]) {
    yield
    freeze(part)
  }
  return freeze(config)
}

/** Removes the options of concerns that need a section that the file does not have. */
function withoutIdle<T extends object>(section: T, data: Written, { edge }: Keys): T {
  for (const { name, needsSection } of edge) {
    if (needsSection !== undefined && data[needsSection] === undefined) Reflect.deleteProperty(section, name)
  }
  return section
}

function positionOf(at: string, report: Report): Position {
  const { line = 1, column = 1, file } = report.at(at) ?? {}
  return { line, column, ...(file !== undefined && { file }) }
}

function calledModules(
  keys: readonly Key[],
  edge: object,
  routes: readonly RouteConfig[],
  report: Report
): Config['calledModules'] {
  const found = new Map<string, Config['calledModules'][number]>()
  const policies = [edge, ...routes.map((route) => route.edge)]
  for (const { name, callsModule } of keys) {
    if (callsModule === undefined) continue
    for (const [index, policy] of policies.entries()) {
      const module: unknown = Reflect.get(Reflect.get(policy, name) || {}, callsModule)
      const at = `${index === 0 ? '' : `/routes/${index - 1}`}/edge/${name}/${callsModule}`
      if (typeof module !== 'string' || found.has(module)) continue
      found.set(module, { module, path: report.pathOf(at), position: positionOf(at, report) })
    }
  }
  return [...found.values()]
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
