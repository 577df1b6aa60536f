/**
 * The section `forward`: calls to services without the mesh. It applies with `mesh: false`, and keys that only the mesh
 * reads are then faults.
 */
import type { Steps } from '../plugins/time-slices.ts'
import { checkPem } from './checked.ts'
import type { Checked, Key } from './concern.ts'
import { everyLevel, gatewayAndService, gatewayOnly } from './concern.ts'
import type { Report } from './faults.ts'
import { pointer } from './faults.ts'
import { checkOrigin } from './instances.ts'
import { didYouMean } from './nearest.ts'
import type { ForwardPolicy } from './schema/forward.ts'
import { ForwardTls } from './schema/forward.ts'
import { Count, Duration, orOff, Size, Url } from './schema/kit.ts'
import Type from './schema/type.ts'
import type { Written } from './schema.ts'

type TlsOptions = NonNullable<ForwardPolicy['tls']>

/** The keys of `forward`, `services.NAME.forward` and `routes[].forward`. */
export const forwardKeys: readonly Key[] = [
  {
    name: 'sidecar',
    options: Url(
      'http',
      'URL of the listener of a local sidecar that selects the service by `Host`. Services without `sidecar` and `instances` are called there.'
    ),
    levels: gatewayOnly,
    check: (url, at, { report }) => checkOrigin(at, url as string, report, { what: 'the address of a sidecar' })
  },
  {
    name: 'host',
    options: Type.String({
      pattern: '^([A-Za-z0-9._:-]|\\{service\\})+$',
      expected: 'a host name such as orders.internal or {service}.internal',
      description:
        '`Host` of the requests to services; `{service}` is the name of the service. Default: with `forward.sidecar` the name of the service, else as `edge.host` says.'
    }),
    levels: gatewayAndService
  },
  {
    name: 'connectTimeout',
    options: Duration('Longest time to establish a connection, with its TLS handshake.'),
    levels: gatewayAndService,
    default: '2s'
  },
  {
    name: 'timeout',
    options: Duration(
      "Longest time for a call, from the end of the request to the response's headers, including the time to connect."
    ),
    levels: everyLevel,
    default: '60s'
  },
  {
    name: 'idleTimeout',
    options: orOff(
      Duration('Longest pause within a response body, and while a service takes no more of a request body.')
    ),
    levels: everyLevel,
    default: '60s'
  },
  {
    name: 'responseTimeout',
    options: orOff(
      Duration(
        'Longest time for a whole response, from its headers to its end; does not apply to WebSockets. Unset, only pauses are limited, by `idleTimeout`.'
      )
    ),
    levels: everyLevel
  },
  {
    name: 'maxRequests',
    options: Count('Requests in flight to one service, each on a connection of its own. More get 503.'),
    levels: gatewayAndService,
    default: 1024
  },
  {
    name: 'maxHeaderSize',
    options: Size('Largest header section of a response. A larger one fails the call with a 502.'),
    levels: gatewayAndService,
    default: '64kb'
  },
  {
    name: 'tls',
    options: ForwardTls,
    levels: gatewayAndService,
    check(options, at, checked) {
      const tls = options as TlsOptions
      if (!checked.report.sound(at)) return
      if ((tls.cert === undefined) !== (tls.key === undefined)) {
        checked.report.fault(at, 'a client certificate needs both cert and key')
      }
      for (const key of ['ca', 'cert', 'key'] as const) checkPem(at, key, tls[key], checked)
    },
    complete(options, absolute) {
      const { serverName, ...files } = options as TlsOptions
      const paths = Object.entries(files).map(([key, path]) => [key, absolute(path)])
      return { ...Object.fromEntries(paths), ...(serverName !== undefined && { serverName }) }
    }
  }
]

/** Returns whether a document, as parsed, is a configuration without the mesh. */
export const isWithoutMesh = (data: unknown): data is Record<string, unknown> => isMapping(data) && data.mesh === false

const isMapping = (value: unknown): value is Record<string, unknown> =>
  typeof value === 'object' && value !== null && !Array.isArray(value)

const cure = 'remove it, or remove "mesh: false"'

/** Keys that need the mesh, with the way to do without them. */
type Advice = Readonly<Record<string, string>>
const ofServices: Advice = {
  subsets: `subsets need the mesh: ${cure}`,
  mesh: `its concerns need the mesh: set timeouts under "forward", or remove "mesh: false"`
}
const ofRoutes: Advice = {
  split: `a split needs the mesh: set service, or remove "mesh: false"`,
  stickOn: `stickOn needs the mesh: ${cure}`,
  mesh: `its concerns need the mesh: set timeouts under "forward", or remove "mesh: false"`
}

const ofCalls: Advice = {
  mesh: `its concerns need the mesh: set timeout of the call, or remove "mesh: false"`
}

const known = ['sidecar', 'instances', 'forward', ...Object.keys(ofServices)]

/** Returns advice for keys of a service that can be sources of instances: mappings whose names resemble no known key. */
function sourcesIn(service: Record<string, unknown>): Advice {
  const message = (key: string) =>
    `finding instances by "${key}" needs the mesh: set instances or sidecar instead, or remove "mesh: false"`
  const found = Object.keys(service).filter((key) => {
    return !known.includes(key) && isMapping(service[key]) && didYouMean(key, known) === ''
  })
  return Object.fromEntries(found.map((key) => [key, message(key)]))
}

/** Reports the keys of a document without the mesh that need it, and removes them. Call it before the validation. */
export function removeMeshKeys(document: object, report: Report): void {
  const data = document as Record<string, unknown>
  data.mesh = {}
  data.forward ??= {}
  const remove = (holder: Record<string, unknown>, at: string, advice: Advice) => {
    for (const [key, message] of Object.entries(advice)) {
      if (!Object.hasOwn(holder, key)) continue
      report.excludedKey(at, key, message)
      delete holder[key]
    }
  }
  remove(data, '', {
    sidecar: 'it runs the mesh half of the gateway, which "mesh: false" leaves out: set mesh: { mode: sidecar }',
    discovery: `finding instances needs the mesh: set instances or sidecar of each service, or remove "mesh: false"`
  })
  if (isMapping(data.services)) {
    for (const [name, service] of Object.entries(data.services)) {
      if (!isMapping(service)) continue
      const at = pointer('/services', name)
      remove(service, at, { ...ofServices, ...sourcesIn(service) })
      if (!Array.isArray(service.instances)) continue
      for (const [index, instance] of service.instances.entries()) {
        const weights = { weight: `weights need the mesh: all addresses get equal shares; ${cure}` }
        if (isMapping(instance)) remove(instance, pointer(at, 'instances', index), weights)
      }
    }
  }
  if (!Array.isArray(data.routes)) return
  for (const [index, route] of data.routes.entries()) {
    if (!isMapping(route)) continue
    remove(route, pointer('/routes', index), ofRoutes)
    const { compose } = route
    if (!isMapping(compose) || !isMapping(compose.calls)) continue
    for (const [name, call] of Object.entries(compose.calls)) {
      const at = pointer('/routes', index, 'compose', 'calls', name)
      if (isMapping(call)) remove(call, at, ofCalls)
    }
  }
}

/** Reports the plugins, by their indexes, that are concerns of the mesh. */
export function refuseMeshConcerns(indexes: Iterable<number>, report: Report): void {
  for (const index of indexes) {
    report.fault(pointer('/plugins', index), `its concern needs the mesh: remove the plugin, or remove "mesh: false"`)
  }
}

/** Checks `forward` at every level, and the addresses of the services that are called by it. */
export function* checkForward(checked: Checked): Steps<void> {
  const { data, report, keys } = checked
  if (keys.withoutMesh && report.usable('/services')) {
    for (const [name, service] of Object.entries(data.services)) {
      yield
      const at = pointer('/services', name)
      if (report.usable(at)) checkAddress(at, service, checked)
    }
  }
  const places = [
    ['', data] as const,
    ...(report.usable('/services') ? Object.entries(data.services) : []).map(
      ([name, service]) => [pointer('/services', name), service] as const
    ),
    ...(report.usable('/routes') ? data.routes : []).map((route, index) => [pointer('/routes', index), route] as const)
  ]
  for (const [holder, value] of places) {
    yield
    const at = `${holder}/forward`
    if (value?.forward === undefined || !report.usable(at)) continue
    if (keys.withoutMesh) checkSection(at, value.forward, checked)
    else report.fault(at, 'no effect with the mesh: set the timeouts under "mesh", or set "mesh: false"', 'key')
  }
}

function checkSection(at: string, section: object, checked: Checked): void {
  for (const { name, check } of forwardKeys) {
    const options: unknown = Reflect.get(section, name)
    if (options !== undefined && checked.report.usable(`${at}/${name}`)) {
      check?.(options, `${at}/${name}`, checked, { service: null })
    }
  }
}

/** Checks that a service has one address. */
function checkAddress(at: string, service: Written['services'][string], { data, report }: Checked): void {
  const { sidecar, instances } = service
  if (sidecar !== undefined && instances !== undefined) {
    report.fault(
      `${at}/instances`,
      'a service has one address without the mesh, but this one has sidecar and instances',
      'key'
    )
  } else if (sidecar === undefined && instances === undefined && report.usable('/forward')) {
    if (data.forward?.sidecar !== undefined || report.unknownKeyIn(at) || !report.usable(`${at}/instances`)) return
    report.fault(at, 'has no address: set sidecar or instances, or forward.sidecar for all services')
  }
}
