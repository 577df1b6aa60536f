/**
 * The configuration of a sidecar: `sidecar` in place of `listen` and `routes`. Its listeners and routes become those of the
 * gateway's configuration, so that the same parts serve them.
 */
import type { TObject } from 'typebox'
import { METHODS } from '../plugins/node-http.ts'
import { checkConcerns, checkSection } from './check-concerns.ts'
import { checkServices } from './check-services.ts'
import { checkTracing } from './check-tracing.ts'
import type { Checked, Keys } from './concern.ts'
import { keysAt } from './concern.ts'
import type { Report } from './faults.ts'
import { pointer, Report as Unreported } from './faults.ts'
import type { Form } from './form.ts'
import { checkListeners } from './listeners.ts'
import { discovery, section, services } from './mesh-schema.ts'
import { didYouMean } from './nearest.ts'
import { checkOwnAddress, checkOwnAddresses, isLoopback } from './own-addresses.ts'
import { strict } from './schema/kit.ts'
import type { InboundOptions, OutboundOptions, SidecarOptions } from './schema/sidecar.ts'
import { sidecarSection } from './schema/sidecar.ts'
import { SidecarTracing } from './schema/tracing.ts'
import Type from './schema/type.ts'
import type { Listen, ServiceOptions, Written, WrittenRoute } from './schema.ts'
import { sections } from './schema.ts'
import { withDefaults } from './settings.ts'

/** Returns whether a document is that of a gateway whose mesh half can run in a sidecar (halves.ts). */
export function handsOver(data: unknown): boolean {
  const sidecar: unknown = Reflect.get(Object(data), 'sidecar')
  return typeof sidecar === 'object' && sidecar !== null && Object.hasOwn(sidecar, 'gateway')
}

/** Returns whether a document is the configuration of a sidecar. */
export const isSidecar = (data: unknown): data is object =>
  typeof data === 'object' && data !== null && Object.hasOwn(data, 'sidecar') && !handsOver(data)

/** Returns the schema of `sidecar`. */
export const sidecarSchema = ({ edge, mesh }: Keys): TObject =>
  sidecarSection(section(edge, 'gateway').properties, section(mesh, 'service'))

const remedy =
  'remove it, or remove "sidecar" to run a gateway, or set sidecar.gateway to run the mesh half of a gateway here'

/** Top-level keys of a gateway, with the reason why a sidecar has none. */
const ofGateway: Readonly<Record<string, string>> = {
  listen: `a sidecar listens at sidecar.outbound and sidecar.inbound; ${remedy}`,
  edge: `a sidecar has no edge; ${remedy}`,
  routes: `a sidecar has no routes: a listener of sidecar.outbound names its service, or selects it by Host; ${remedy}`,
  redis: `only the edge uses Redis, and a sidecar has no edge; ${remedy}`,
  consumers: `a sidecar has no edge, which identifies consumers; ${remedy}`,
  plugins: `a sidecar runs no plugins; ${remedy}`
}

/**
 * Options of all listeners. The local service is trusted, and a peer's sidecar makes the calls of many clients: so there are
 * no limits per client and no rates, and idle connections stay open longer than those of most clients.
 */
export const sidecarSocket = {
  direction: 'east-west',
  trustProxy: [],
  trustHeaders: [],
  timeouts: { headers: 60_000, bodyIdle: 300_000, body: false, sendIdle: 300_000, keepAlive: 3_600_000 },
  limits: {
    // More than a gateway accepts by default, since the gateway in front adds headers.
    headers: 65_536,
    url: 65_536,
    connections: 10_000,
    bodyRate: false,
    sendRate: false,
    perClient: { connections: false, requests: false, websockets: false }
  },
  paths: { case: 'distinct', trailingSlash: 'distinct', trailingDot: 'distinct' },
  // The host is that of another service, perhaps of one that another listener serves.
  unknownHost: 421
} as const

/** A listener of the file, and its place. */
interface Entry<T> {
  readonly at: string
  readonly options: T
}

function outbounds({ outbound }: SidecarOptions, report: Report): Entry<OutboundOptions>[] {
  if (!report.usable('/sidecar/outbound')) return []
  return outbound
    .map((options, index) => ({ at: pointer('/sidecar/outbound', index), options }))
    .filter(({ at }) => report.usable(at))
}

function inbounds({ inbound }: SidecarOptions, report: Report): Entry<InboundOptions>[] {
  const at = '/sidecar/inbound'
  if (inbound === undefined || !report.usable(at)) return []
  const entries = Array.isArray(inbound)
    ? (inbound as InboundOptions[]).map((options, index) => ({ at: pointer(at, index), options }))
    : [{ at, options: inbound as InboundOptions }]
  return entries.filter((entry) => report.usable(entry.at))
}

/** Returns the given name, or the default with the first number that makes it unique. */
function uniqueName(given: string | undefined, preset: string, taken: readonly string[]): string {
  if (given !== undefined) return given
  let name = preset
  for (let count = 2; taken.includes(name); count++) name = `${preset}-${count}`
  return name
}

/** Listeners with their names, in the order of the file. */
function named({ sidecar }: Pick<Written, 'sidecar'>, report: Report) {
  const options = sidecar!
  const names: string[] = [...outbounds(options, report), ...inbounds(options, report)].flatMap(
    (entry) => entry.options.name ?? []
  )
  const add = <T extends OutboundOptions | InboundOptions>(entry: Entry<T>, preset: string) => {
    const name = uniqueName(entry.options.name, preset, names)
    names.push(name)
    return { ...entry, name }
  }
  return {
    outbound: outbounds(options, report).map((entry) => {
      const { service } = entry.options
      return add(entry, service === undefined ? 'outbound' : `outbound-${service}`)
    }),
    inbound: inbounds(options, report).map((entry) => add(entry, 'inbound'))
  }
}

/** Name of the local service of an inbound listener. */
const localName = (index: number) => (index === 0 ? 'local' : `local-${index + 1}`)

/** Sets the listeners, and empty values of what a sidecar does not have. */
function normalize(data: Written, fixed: object, keys: Keys, report: Report): void {
  Object.assign(data, { listeners: [], routes: [], plugins: [], consumers: [], edge: {} })
  if (!report.usable('/sidecar')) return
  const { outbound, inbound } = named(data, report)
  const { drain, ...own } = data.sidecar!
  const listeners = [...outbound, ...inbound].map(({ at, name, options }): Listen => {
    const { host, port, path, socketMode, tls, connect, http2 = false } = options as Partial<Listen>
    return {
      ...sidecarSocket,
      at,
      name,
      enabled: true,
      host,
      port,
      path,
      socketMode,
      http2,
      ...(tls && { tls }),
      ...(connect && { connect }),
      drain
    } as unknown as Listen
  })
  const values = Object.fromEntries(keysAt(keys.edge, 'gateway').map(({ name }) => [name, Reflect.get(own, name)]))
  Object.assign(data, { listeners, listen: listeners[0], edge: { ...fixed, ...values } })
}

function checkSidecar(checked: Checked): void {
  const { data, report, keys } = checked
  const { outbound, inbound } = named(data, report)
  if (data.listeners.length === 0 && report.sound('/sidecar') && !report.unknownKeyIn('/sidecar')) {
    report.fault('/sidecar', 'needs listeners: outbound, for calls of the local service, or inbound, for calls to it')
  }
  for (const { at, options } of [...outbound, ...inbound]) {
    if (options.port === undefined && options.path === undefined && !report.unknownKeyIn(at))
      report.fault(at, 'missing key "port", or "path" for a Unix socket')
  }
  for (const { at, options } of outbound) {
    const { service } = options
    if (service === undefined || !report.usable(`${at}/service`) || !report.usable('/services')) continue
    if (Object.hasOwn(data.services, service)) continue
    report.fault(`${at}/service`, `unknown service "${service}"${didYouMean(service, Object.keys(data.services))}`)
  }
  for (const [index, { at, options }] of inbound.entries()) {
    checkInbound(at, options, checked)
    if (options.mesh?.mode !== undefined && options.mesh.mode !== 'direct' && report.usable(`${at}/mesh/mode`)) {
      report.fault(`${at}/mesh/mode`, 'the local service is called directly, at url')
    }
    checkSection(`${at}/mesh`, options.mesh, keys.mesh, null, checked)
    const name = localName(index)
    if (report.usable('/services') && Object.hasOwn(data.services, name)) {
      report.fault(pointer('/services', name), `"${name}" is the name of the local service of sidecar.inbound`, 'key')
    }
  }
  checkLoops(checked)
}

function checkInbound(at: string, { url, host, path, tls, connect }: InboundOptions, { report }: Checked): void {
  if (report.usable(`${at}/url`)) {
    const { pathname, search, username } = new URL(url)
    if (pathname !== '/' || search !== '' || username !== '')
      report.fault(`${at}/url`, 'the local service is scheme, host and port, without credentials, path and query')
  }
  if (!report.sound(at) || connect !== undefined) return
  if (tls === undefined && path === undefined && !isLoopback(host)) {
    report.warn(at, 'every process that can connect may call the local service: set connect, or tls')
  } else if (tls !== undefined && tls.ca === undefined && tls.clientCertificate === undefined) {
    report.warn(`${at}/tls`, 'callers need no certificate: set clientCertificate: { mode: require, ca: FILE }')
  }
}

/** Reports addresses of calls at which this sidecar itself listens. */
function checkLoops({ data, report }: Checked): void {
  const { outbound, inbound } = named(data, report)
  const listening = (entries: readonly Entry<OutboundOptions | InboundOptions>[]) =>
    entries.flatMap(({ at, options: { host, port, path } }) =>
      report.sound(at) && path === undefined ? [{ at, host, port }] : []
    )
  const own = listening([...outbound, ...inbound])
  for (const { at, options } of inbound) checkOwnAddress(`${at}/url`, options.url, 'sidecar', own, report)
  checkOwnAddresses(data, 'sidecar', listening(outbound), report)
}

const methods = METHODS.filter((method) => method !== 'CONNECT')

function routeTo(service: string, name: string, listener: string, hosts?: string[]): WrittenRoute {
  const match = { path: '/', methods, listeners: [listener], ...(hosts && { hosts }) }
  return { name, match, priority: 0, service, isTransparent: true } as WrittenRoute
}

/** The caller's name in this header is that of its certificate, so what the caller itself says is dropped. */
const inboundConfig = { dropHeaders: ['x-forwarded-client-cert'] }

/** Adds the local services, and a route for each service that a listener leads to. */
function expand(data: Written, keys: Keys): void {
  const report = new Unreported('')
  const { outbound, inbound } = named(data, report)
  const routes = outbound.flatMap(({ name, options: { service } }) =>
    service === undefined
      ? Object.keys(data.services).map((each) => routeTo(each, `${name}/${each}`, name, [each, `${each}.mesh`]))
      : [routeTo(service, name, name)]
  )
  // Not the top-level `mesh`, which is for calls to other services.
  const off = Object.fromEntries(keysAt(keys.mesh, 'service').map(({ name }) => [name, undefined]))
  const defaults = withDefaults(section(keys.mesh, 'gateway'), {}, '', report) as object
  const locals = inbound.map(({ options: { url, mesh } }, index): [string, ServiceOptions] => {
    return [
      localName(index),
      { instances: [url], mesh: { ...off, ...defaults, mode: 'direct', ...mesh } } as ServiceOptions
    ]
  })
  const { sidecar: _, ...rest } = data
  Reflect.deleteProperty(data, 'sidecar')
  Object.assign(data, {
    isSidecar: true,
    services: { ...rest.services, ...Object.fromEntries(locals) },
    routes: [
      ...routes,
      ...inbound.map(({ name }, index) => ({ ...routeTo(localName(index), name, name), config: inboundConfig }))
    ]
  })
}

/** Returns the form of a sidecar's configuration. `fixed`: options of its own edge that a file cannot set. */
export function sidecarForm(fixed: object, keys: Keys): Form {
  return {
    schema: () =>
      Type.Object(
        {
          sidecar: sidecarSchema(keys),
          admin: sections.admin,
          discovery: discovery(keys.sources),
          mesh: section(keys.mesh, 'gateway'),
          services: services(keys.mesh, keys.sources),
          tracing: Type.Optional(SidecarTracing),
          watch: sections.watch
        },
        { ...strict, patternProperties: { '^x-': {} }, title: 'Jingwei sidecar configuration' }
      ),
    prune(data, report) {
      for (const [key, advice] of Object.entries(ofGateway)) {
        if (!Object.hasOwn(data, key)) continue
        report.fault(`/${key}`, advice, 'key')
        Reflect.deleteProperty(data, key)
      }
    },
    normalize: (data, report) => normalize(data, fixed, keys, report),
    *check(checked) {
      if (!checked.report.usable('')) return
      if (checked.report.usable('/sidecar')) {
        yield* checkListeners(checked)
        checkSidecar(checked)
      }
      yield* checkServices(checked)
      checkTracing(checked)
      yield* checkConcerns(checked)
    },
    expand: (data) => expand(data, keys)
  }
}
