/**
 * A gateway whose mesh half can run as a process of its own, from the same file: `sidecar.gateway`. With `mesh.mode: sidecar`
 * the gateway hands each call to that process, with the name of the call. The sidecar applies the policies of route and
 * service, so that each policy applies once.
 */
import { isDeepStrictEqual } from 'node:util'
import type { TObject, TSchema } from 'typebox'
import { METHODS } from '../plugins/node-http.ts'
import { callerHeader, callHeader, errorHeader } from '../plugins/seam-headers.ts'
import { freeze } from './complete-services.ts'
import type { Checked, Key, Keys, SidecarKeys } from './concern.ts'
import { keysAt } from './concern.ts'
import { pointer, Report } from './faults.ts'
import type { Form, Half } from './form.ts'
import { gatewayForm } from './form.ts'
import { overlap } from './listeners.ts'
import { section } from './mesh-schema.ts'
import { checkOwnAddresses, isLoopback } from './own-addresses.ts'
import { gatewaySidecarSection } from './schema/sidecar.ts'
import Type from './schema/type.ts'
import type { Config, Listen, MeshPolicy, RouteConfig, RouteTarget, ServiceConfig, Written } from './schema.ts'
import { withDefaults } from './settings.ts'
import { sidecarSocket } from './sidecar.ts'

/** Reports plugins of the mesh half. */
export function refuseMeshPlugins(
  modules: readonly ({
    readonly concern: { readonly layer?: unknown } | null
    readonly instanceSource: object | null
  } | null)[],
  report: Report
): void {
  for (const [index, module] of modules.entries()) {
    if (module === null || (module.concern?.layer === undefined && module.instanceSource === null)) continue
    const message =
      'it belongs to the mesh half, which the sidecar runs without plugins: remove it, or remove "sidecar"'
    report.fault(pointer('/plugins', index), message)
  }
}

/** Name of the sidecar's listener for the gateway. */
const listenerName = 'gateway'

/** Replaces `mode: sidecar` by the mode of the sidecar's own calls: the checks are those of the sidecar. */
function replaceModes(data: Written, report: Report): void {
  if (!['/mesh/mode', '/services'].every((at) => report.usable(at))) return
  const mode = (report.usable('/sidecar/mode') && data.sidecar?.mode) || 'direct'
  const inherited = data.mesh.mode
  const handedOver: string[] = []
  for (const [name, service] of Object.entries(data.services)) {
    if (!report.usable(`${pointer('/services', name)}/mesh/mode`)) continue
    if ((service.mesh?.mode ?? inherited) !== 'sidecar') continue
    handedOver.push(name)
    if (service.mesh?.mode !== undefined) Object.assign(service.mesh, { mode })
  }
  if (inherited === 'sidecar') Object.assign(data.mesh, { mode })
  Object.assign(data, { handedOver })
}

function checkSidecar({ data, report }: Checked): void {
  for (const name of data.handedOver ?? []) {
    const at = pointer('/services', name, 'sidecar')
    if (data.services[name]?.sidecar === undefined || !report.usable(at)) continue
    report.fault(
      at,
      'the service is called at sidecar.gateway; remove it, or set another mesh.mode for this service',
      'key'
    )
  }
  if (!report.sound('/sidecar')) return
  const { gateway, admin } = data.sidecar!
  const own = { at: '/sidecar/gateway', ...gateway! }
  const others = [
    ...(report.sound('/listen') ? data.listeners.filter((each) => each.enabled && each.path === undefined) : []),
    ...(report.sound('/admin') && data.admin !== false ? [{ ...data.admin, at: '/admin' }] : [])
  ]
  const adminOwn = admin ? [{ ...admin, at: '/sidecar/admin' }] : []
  for (const [index, each] of [own, ...adminOwn].entries()) {
    const taken = [...others, ...(index > 0 ? [own] : [])].find(
      ({ host, port }) => port === each.port && port !== 0 && overlap(host, each.host)
    )
    if (taken === undefined) continue
    const where = report.pathOf(taken.at)
    report.fault(`${each.at}/port`, `${where}.port is ${each.port}, too, and ${each.host} overlaps ${taken.host}`)
  }
  checkOwnAddresses(data, 'sidecar', [own], report)
  if (isLoopback(own.host)) return
  report.warn('/sidecar/gateway/host', 'every host that can connect may call all services: keep it on loopback')
}

/** The values of `read` in all policies. */
function everywhere<T>({ services, routes }: Config, read: (policy: Partial<MeshPolicy>) => T | undefined): T[] {
  const places = [...Object.values(services), ...routes.flatMap(({ targets }) => targets)]
  return places.flatMap(({ mesh }) => read(mesh) ?? [])
}

/** Returns whether a schema accepts false, as `orOff` makes it. */
const canBeOff = (options: TSchema) => isDeepStrictEqual(Reflect.get(options, 'if'), { const: false })

/** Returns the policy of the gateway's calls to its sidecar: the sidecar ends what takes too long, so it gets more time. */
function policyOfHop(config: Config, keys: readonly Key[]): MeshPolicy {
  const defaults = withDefaults(section(keys, 'gateway'), {}, '', new Report('')) as MeshPolicy
  const off = keys.flatMap(({ name, options }) => (canBeOff(options) ? [[name, false] as const] : []))
  const pauses = everywhere(config, ({ idleTimeout }) => idleTimeout)
  return {
    ...defaults,
    ...Object.fromEntries(off),
    mode: 'sidecar',
    // Twice, since a fallback may be called after the timeout.
    timeout: 2 * Math.max(...everywhere(config, ({ timeout }) => timeout)) + 1000,
    idleTimeout: pauses.includes(false) ? false : Math.max(...pauses.map(Number)) + 1000,
    maxHeaderSize: Math.max(...everywhere(config, ({ maxHeaderSize }) => maxHeaderSize))
  }
}

const ofService = (name: string) => `service/${name}`

/** Returns the name of a route and, if its response is made of calls, of one of them. */
const nameOf = ({ name }: RouteConfig, { call }: RouteTarget) => (call === null ? name : `${name}/${call.name}`)

/** Returns the configuration of the gateway's process, which hands over the calls of the named services. */
function gatewayHalf(config: Config, names: readonly string[], keys: Keys): Config {
  const { handedOver: _names, sidecar, ...rest } = config
  if (names.length === 0) return freeze(rest)
  const { host, port } = sidecar!.gateway!
  const url = `http://${host.includes(':') ? `[${host}]` : host}:${port}`
  const hop = policyOfHop(config, keys.mesh)
  const services = Object.entries(config.services).map(([name, service]): [string, ServiceConfig] => {
    const mesh = { ...hop, handOver: ofService(name) }
    return [name, names.includes(name) ? { name, sidecar: url, mesh } : service]
  })
  const routes = config.routes.map((route): RouteConfig => {
    const targets = route.targets.map((target): RouteTarget => {
      const shares = target.mesh.split?.map((share) => share.service) ?? [target.service]
      const service = shares.find((each) => names.includes(each))
      return service === undefined
        ? target
        : { ...target, service, mesh: { handOver: `route/${nameOf(route, target)}` } }
    })
    const [first] = targets
    // The one target of a route has the same policy as the route.
    return { ...route, targets, ...(first?.call === null && { service: first.service, mesh: first.mesh }) }
  })
  // The sidecar writes the snapshot.
  const { snapshot: _snapshot, ...discovery } = config.discovery
  return freeze({ ...rest, discovery, services: Object.fromEntries(services), routes })
}

const noConsumers = { file: null, digest: null, stored: null, list: [] }

const methods = METHODS.filter((method) => method !== 'CONNECT')

/** Bytes for the fields that the gateway adds to a request, and for a longer path. */
const ROOM_FOR_FIELDS = 48 * 1024

/** Returns the configuration of the sidecar's process: a route for each call that the gateway can hand over. */
function sidecarHalf(config: Config, { keys, fixedFor }: SidecarKeys): Config {
  const { handedOver: _names, sidecar, redis: _redis, ...rest } = config
  const { gateway, mode: _mode, admin = config.admin, drain, ...own } = sidecar!
  const values = Object.fromEntries(keysAt(keys, 'gateway').map(({ name }) => [name, Reflect.get(own, name)]))
  const edge = { ...fixedFor(config.edge), ...values } as Config['edge']
  const inherited = Object.fromEntries(keysAt(keys, 'route').map(({ name }) => [name, Reflect.get(edge, name)]))
  const most = (read: (limits: Listen['limits']) => number) =>
    Math.max(
      sidecarSocket.limits.headers,
      ROOM_FOR_FIELDS + Math.max(...config.listeners.map(({ limits }) => read(limits)))
    )
  const limits = { ...sidecarSocket.limits, headers: most(({ headers }) => headers), url: most(({ url }) => url) }
  const listener = {
    ...sidecarSocket,
    limits,
    ...gateway,
    at: '/sidecar/gateway',
    name: listenerName,
    enabled: true,
    drain
  }
  const listen = listener as unknown as Listen
  const routeFor = (name: string, call: string, { service, mesh }: RouteTarget): RouteConfig => ({
    name,
    match: { path: '/', methods, listeners: [listenerName], headers: { [callHeader]: call } },
    priority: 0,
    service,
    services: [service],
    targets: [{ service, mesh, call: null }],
    isBridged: true,
    mesh,
    edge: inherited,
    declared: { answersPreflights: false, ownsHeaders: [errorHeader], ownPaths: [] },
    protection: 0,
    isTransparent: true,
    isHandedOver: true,
    config: { dropHeaders: [callHeader, callerHeader] }
  })
  const routes = [
    ...config.routes.flatMap((route) =>
      route.targets.map((target) => routeFor(nameOf(route, target), `route/${nameOf(route, target)}`, target))
    ),
    ...Object.keys(config.services).map((service) =>
      routeFor(ofService(service), ofService(service), { service, mesh: {}, call: null })
    )
  ]
  return freeze({
    ...rest,
    isSidecar: true,
    listen,
    listeners: [listen],
    admin,
    edge,
    routes,
    plugins: [],
    consumers: noConsumers
  })
}

/** Returns the form of such a file. `own`: the edge of the sidecar. */
export function handOverForm(own: SidecarKeys): Form {
  return {
    ...gatewayForm,
    schema(keys): TObject {
      const { properties, ...more } = gatewayForm.schema(keys)
      const sidecar = gatewaySidecarSection(section(own.keys, 'gateway').properties)
      return Type.Object({ ...properties, sidecar }, more)
    },
    prune(data, report) {
      const sidecar = Reflect.get(data, 'sidecar') as Record<string, unknown>
      for (const key of ['outbound', 'inbound']) {
        if (!Object.hasOwn(sidecar, key)) continue
        report.excludedKey(
          '/sidecar',
          key,
          'with sidecar.gateway, this sidecar serves the gateway of this file alone: write a file with another sidecar'
        )
        Reflect.deleteProperty(sidecar, key)
      }
    },
    normalize(data, report) {
      gatewayForm.normalize(data, report)
      replaceModes(data, report)
    },
    *check(checked) {
      yield* gatewayForm.check(checked)
      if (checked.report.usable('') && checked.report.usable('/sidecar')) checkSidecar(checked)
    },
    divide: (config, keys, half: Half) =>
      half === 'sidecar'
        ? sidecarHalf(config, own)
        : gatewayHalf(config, half === 'gateway' ? (config.handedOver ?? []) : [], keys)
  }
}
