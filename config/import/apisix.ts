/** Import of APISIX's standalone configuration (`apisix.yaml`), or of the objects of its Admin API in the same form. */
import { importConsumers } from './apisix-consumers.ts'
import { matchOf, urisOf } from './apisix-match.ts'
import { applyPlugins } from './apisix-plugins.ts'
import type { ApisixContext } from './apisix-scope.ts'
import { Services } from './apisix-upstreams.ts'
import type { Imported } from './draft.ts'
import { Draft, duration } from './draft.ts'
import type { Foreign } from './foreign.ts'
import { oneOrAll } from './patterns.ts'
import type { Settings } from './yaml-text.ts'

const byId = (list: readonly Foreign[]): ReadonlyMap<string, Foreign> =>
  new Map(list.map((each) => [each.text('id') ?? each.text('name') ?? '', each]))

export function importApisix(root: Foreign): Imported {
  const draft = new Draft()
  draft.mesh.timeout = '1m'
  const services = byId(root.maps('services'))
  const shared = byId(root.maps('plugin_configs'))
  const context: ApisixContext = { draft, issuers: [], services: new Services(byId(root.maps('upstreams')), draft) }
  importConsumers(root, context)
  for (const rule of root.maps('global_rules')) {
    rule.skip('id')
    applyPlugins([{ plugins: rule.map('plugins'), name: 'all' }], context, { edge: draft.edge, route: null })
  }
  const live = root.maps('routes').filter((route) => {
    if (route.text('status') !== '0') return true
    const off = route.text('name') ?? route.text('id') ?? route.where
    route.skip(...route.keys)
    draft.note(null, `${route.where}: route ${off} is off (status: 0): not converted`)
    return false
  })
  const numbers = new Map<string, number>()
  for (const uri of live.flatMap(urisOf)) numbers.set(uri, (numbers.get(uri) ?? 0) + 1)
  for (const route of live) {
    // A priority decides between the routes of one path only.
    const isShared = urisOf(route).some((uri) => numbers.get(uri)! > 1)
    importRoute(route, { services, shared, isShared }, context)
  }
  importCertificates(root, draft)
  for (const place of root.unread()) draft.note(null, `${place}: not converted`)
  return draft.finish('APISIX')
}

interface Others {
  readonly services: ReadonlyMap<string, Foreign>
  /** Plugins that several routes share. */
  readonly shared: ReadonlyMap<string, Foreign>
  /** True for a route with a path that another one has, too. */
  readonly isShared: boolean
}

function importRoute(route: Foreign, { services, shared, isShared }: Others, context: ApisixContext): void {
  const { draft } = context
  const given = route.text('name') ?? route.text('id')
  const [serviceId, configId] = [route.text('service_id'), route.text('plugin_config_id')]
  const service = services.get(serviceId ?? '')
  const config = shared.get(configId ?? '')
  const name = draft.name('route', given ?? String(urisOf(route)[0] ?? 'route'))
  const settings: Settings = { name }
  settings.match = matchOf(route, (text) => draft.undecided(settings, text))
  if (serviceId !== undefined && service === undefined)
    draft.undecided(settings, `service ${serviceId} is not in this file`)
  if (configId !== undefined && config === undefined)
    draft.undecided(settings, `plugin_config ${configId} is not in this file`)
  const ofService = service?.texts('hosts') ?? []
  const match = settings.match as Settings
  if (ofService.length > 0) match.hosts ??= ofService
  const edge: Settings = {}
  setService(route, service, settings, edge, context)
  const priority = route.number('priority')
  if (priority !== undefined && priority !== 0 && isShared) settings.priority = priority
  route.skip('id', 'desc', 'labels', 'status', 'create_time', 'update_time', 'enable_websocket')
  service?.skip('id', 'desc', 'labels', 'enable_websocket', 'create_time', 'update_time', 'name')
  config?.skip('id', 'desc', 'labels', 'create_time', 'update_time')
  const common = String(settings.service ?? name)
  const sets = [
    { plugins: service?.map('plugins'), name: common },
    { plugins: config?.map('plugins'), name: common },
    { plugins: route.map('plugins'), name: null }
  ]
  applyPlugins(sets, context, { edge, route: settings })
  withoutCallers(edge, draft.edge)
  if (Object.keys(edge).length > 0) settings.edge = edge
  if (['service', 'split', 'response', 'redirect'].some((key) => settings[key] !== undefined))
    draft.routes.push(...(context.variants?.(settings) ?? []), settings)
  else draft.note(null, `route ${name} has no upstream in this file`)
  context.variants = undefined
}

/** Sets the service of a route, with its timeouts and `Host`. */
function setService(
  route: Foreign,
  service: Foreign | undefined,
  settings: Settings,
  edge: Settings,
  { draft, services }: ApisixContext
): void {
  const upstreamId = route.text('upstream_id') ?? service?.text('upstream_id')
  const inline = route.map('upstream') ?? (upstreamId === undefined ? service?.map('upstream') : undefined)
  const upstream = inline ?? services.byId(upstreamId ?? '')
  const timeout = route.map('timeout')
  const read = timeout?.number('read')
  const connect = timeout?.number('connect')
  timeout?.skip('send')
  if (read !== undefined) settings.mesh = { timeout: duration(read * 1000) }
  if (upstream === undefined) return
  const name = services.of(
    upstream,
    service?.text('name') ?? upstream.text('name') ?? upstreamId ?? String(settings.name)
  )
  settings.service = name
  const passes = upstream.text('pass_host')
  const host = upstream.text('upstream_host') ?? ''
  if (passes === 'node') edge.host = 'upstream'
  if (passes === 'rewrite' && /[.:]/.test(host)) edge.host = host
  else if (passes === 'rewrite') draft.note(settings, `${upstream.where}: upstream_host ${host}: write edge.host`)
  if (connect === undefined) return
  // Connections belong to services.
  const target = draft.services[name] as Settings
  const mesh = (target.mesh ?? {}) as Settings
  target.mesh = { ...mesh, connectTimeout: mesh.connectTimeout ?? duration(connect * 1000) }
}

/** Writes the listeners for certificates: ports 9080 and 9443, as APISIX has them unless told otherwise. */
function importCertificates(root: Foreign, draft: Draft): void {
  const isPem = (text: string | undefined) => text?.includes('-----BEGIN') === true
  const certificates: Settings[] = []
  const hosts: Settings[] = []
  for (const ssl of root.maps('ssls')) {
    const names = [...ssl.texts('snis'), ...ssl.texts('sni')]
    const [cert, key] = [ssl.text('cert'), ssl.text('key')]
    const client = ssl.map('client')
    const authority = client?.text('ca')
    const isUsable = isPem(cert) && isPem(key) && (ssl.text('type') ?? 'server') === 'server'
    const isOff = ssl.text('status') === '0'
    const hasMore = client?.has('skip_mtls_uri_regex') === true
    client?.skip(...client.keys)
    ssl.skip(...ssl.keys)
    if (isOff) continue
    const base = names[0] ?? 'site'
    const file = (ending: string, text: string) => draft.file(base, ending, `${text.trimEnd()}\n`)
    if (isUsable) certificates.push({ cert: file('-cert.pem', cert!), key: file('-key.pem', key!) })
    if (isUsable && isPem(authority) && names.length > 0 && !hasMore)
      hosts.push({ names, clientCertificate: { mode: 'require', ca: file('-ca.pem', authority!) } })
    else if (client !== undefined) draft.undecided(null, `${ssl.where}: write listen.tls with clientCertificate`)
    else if (!isUsable) draft.note(null, `${ssl.where}: write listen.tls`)
  }
  if (certificates.length === 0) return
  const tls = { certificates, ...(hosts.length > 0 && { hosts }) }
  const https: Settings = { name: 'https', port: 9443, http2: true, tls }
  draft.listeners.push({ name: 'http', port: 9080 }, https)
  draft.note(https, 'ssls: ports 9080 and 9443 are assumed')
}

const methods = ['keyAuth', 'basicAuth', 'hmacAuth', 'jwt', 'introspection', 'oidc', 'forwardAuth']

/** Counts by address, as APISIX does, where nothing on a route identifies the consumer. */
function withoutCallers(edge: Settings, general: Settings): void {
  if (methods.some((key) => edge[key] !== undefined || general[key] !== undefined)) return
  for (const limit of [edge.rateLimit ?? []].flat() as Settings[]) {
    if (limit.by === undefined) continue
    const others = [limit.by].flat().filter((each) => each !== 'consumer')
    if (others.length === 0 || (others.length === 1 && others[0] === 'ip')) delete limit.by
    else limit.by = oneOrAll(others)
  }
}
