/** Import of Kong's declarative configuration (`kong.yml`, also as decK writes it). */
import type { Imported } from './draft.ts'
import { Draft, duration } from './draft.ts'
import type { Foreign } from './foreign.ts'
import { ImportFault } from './foreign.ts'
import { importConsumers } from './kong-consumers.ts'
import { healthOf } from './kong-health.ts'
import { applyPlugins, nameOf } from './kong-plugins.ts'
import type { KongContext, Scoped } from './kong-scope.ts'
import { pluginsByScope, reference } from './kong-scope.ts'
import { anyOf, oneOrAll, patternOf, prefixOf, strippedBy } from './patterns.ts'
import type { Settings } from './yaml-text.ts'

/** Timeouts of Kong where a service sets none, in milliseconds. */
const usualTimeoutMs = 60_000

const givenName = (route: Foreign): string | undefined => route.text('name') ?? route.text('id')

export function importKong(root: Foreign): Imported {
  const draft = new Draft()
  root.skip('_format_version', '_transform', '_info', '_plugin_configs', '_comment')
  draft.edge.host = 'upstream'
  draft.mesh.timeout = duration(usualTimeoutMs)
  const scoped = pluginsByScope(root.maps('plugins'))
  const upstreams = new Map(root.maps('upstreams').map((each) => [each.text('name'), each]))
  const looseRoutes = root.maps('routes')
  const context: KongContext = { draft, issuers: [] }
  importConsumers(root, context, scoped)
  applyPlugins(scoped.global, context, { target: draft.edge, about: null, name: 'all', hasMethod: false })
  for (const service of root.maps('services')) {
    const name = service.text('name') ?? service.text('id') ?? service.text('host') ?? 'service'
    const ofService = scoped.of('service', name)
    const loose = looseRoutes.filter((route) => reference(route, 'service') === name)
    if (service.isOff()) {
      for (const each of [...loose, ...ofService]) each.skip(...each.keys)
      for (const route of loose) scoped.of('route', givenName(route) ?? '')
      draft.note(null, `${service.where}: service ${name} is off (enabled: false): not converted, nor are its routes`)
      continue
    }
    const own = draft.name('service', name)
    draft.services[own] = serviceOf(service, upstreams, draft)
    const plugins = [...service.maps('plugins'), ...ofService]
    const routes = [...service.maps('routes'), ...loose]
    const isAlone = routes.length === 1
    for (const route of routes) importRoute(route, own, { ofService: plugins, isAlone }, scoped, context)
    if (routes.length === 0) draft.note(null, `service ${name} has no routes`)
  }
  for (const group of root.maps('consumer_groups')) {
    for (const plugin of group.maps('plugins')) {
      const text = `plugin ${nameOf(plugin)} of consumer_group ${group.text('name')}: write it under consumers[].edge`
      draft.unknown(null, nameOf(plugin), text)
    }
    group.skip(...group.keys)
  }
  for (const [plugin, of] of scoped.lost()) {
    const name = nameOf(plugin)
    if (plugin.flag('enabled') === false) continue
    const config = plugin.mapOrEmpty('config')
    config.skip(...config.keys)
    draft.unknown(null, name, `plugin ${name} of ${of}, which is not in this file: not converted`)
  }
  for (const place of root.unread()) draft.note(null, `${place}: not converted`)
  return draft.finish('Kong')
}

function serviceOf(service: Foreign, upstreams: ReadonlyMap<unknown, Foreign>, draft: Draft): Settings {
  const url = service.text('url')
  // Not by URL, since its parts may be variables.
  const parts = url === undefined ? null : /^(\w+):\/\/(\[[^\]]+\]|\$\{[^}]+\}|[^/:]+)(?::([^/]+))?(\/.*)?$/.exec(url)
  if (url !== undefined && parts === null) {
    throw new ImportFault(`${service.where}.url: expected a URL, found "${url}"`)
  }
  const protocol = parts?.[1] ?? service.text('protocol') ?? 'http'
  const host = parts?.[2] ?? service.text('host') ?? ''
  const port = parts?.[3] ?? service.text('port') ?? (protocol === 'https' ? '443' : '80')
  const path = (parts?.[4] ?? service.text('path') ?? '').replace(/\/+$/, '')
  const upstream = upstreams.get(host)
  const settings: Settings = {}
  const mesh: Settings = {}
  const targets = upstream?.maps('targets') ?? []
  // Without targets in the file, they are added elsewhere; the name is then that of the host, as a rule.
  if (targets.length === 0) settings.instances = [`${protocol}://${host}:${port}${path}`]
  else {
    const live = targets.filter((target) => {
      const weight = target.number('weight') ?? 100
      const isOff = target.isOff() || weight === 0
      if (isOff) draft.note(settings, `${target.where}: ${target.text('target')} is off: not converted`)
      return !isOff
    })
    if (live.length === 0) draft.undecided(settings, `${service.where}: all targets are off: write instances`)
    settings.instances = live.map((target) => {
      const [name, ofTarget = port] = splitPort(target.text('target') ?? '')
      const weight = target.number('weight') ?? 100
      target.skip('tags')
      const address = `${protocol}://${name}:${ofTarget}`
      return weight === 100 ? address : { url: address, weight }
    })
    if (path !== '') settings.basePath = path
  }
  if (upstream !== undefined) {
    Object.assign(mesh, balanceOf(upstream, draft, settings))
    upstream.skip('name', 'tags', 'slots')
  }
  if (protocol !== 'http' && protocol !== 'https')
    draft.note(settings, `${service.where}: protocol ${protocol}: not converted`)
  const connect = service.number('connect_timeout')
  const read = service.number('read_timeout')
  if (connect !== undefined && connect !== usualTimeoutMs) mesh.connectTimeout = duration(connect)
  if (read !== undefined && read !== usualTimeoutMs) {
    mesh.timeout = duration(read)
    if (read > usualTimeoutMs) mesh.idleTimeout = duration(read)
  }
  const retries = service.number('retries')
  if (retries !== undefined && retries !== 5) mesh.retry = retries === 0 ? false : { attempts: retries }
  service.skip('write_timeout', 'tags', 'id', 'enabled', 'name', 'host', 'protocol', 'port', 'path')
  if (Object.keys(mesh).length > 0) settings.mesh = mesh
  return settings
}

function splitPort(target: string): string[] {
  const colon = target.lastIndexOf(':')
  return colon === -1 || target.endsWith(']') ? [target] : [target.slice(0, colon), target.slice(colon + 1)]
}

const policies: Readonly<Record<string, string>> = {
  'round-robin': 'round-robin',
  'least-connections': 'least-request',
  latency: 'peak-ewma',
  'consistent-hashing': 'ring-hash'
}

function balanceOf(upstream: Foreign, draft: Draft, settings: Settings): Settings {
  const mesh: Settings = {}
  const algorithm = upstream.text('algorithm')
  const policy = algorithm === undefined ? undefined : policies[algorithm]
  if (algorithm !== undefined && policy === undefined) draft.note(settings, `algorithm ${algorithm}: not converted`)
  const header = upstream.text('hash_on_header')
  const cookie = upstream.text('hash_on_cookie')
  const on = upstream.text('hash_on')
  const hashOn =
    on === 'header' ? `header:${header}` : on === 'cookie' ? `cookie:${cookie}` : on === 'none' ? undefined : on
  if (policy !== undefined) mesh.balance = policy === 'ring-hash' ? { policy, hashOn: hashOn ?? 'ip' } : policy
  Object.assign(mesh, healthOf(upstream.map('healthchecks')))
  return mesh
}

function importRoute(
  route: Foreign,
  service: string,
  { ofService, isAlone }: { readonly ofService: readonly Foreign[]; readonly isAlone: boolean },
  scoped: Scoped,
  context: KongContext
): void {
  const { draft } = context
  const given = givenName(route)
  if (route.isOff()) {
    scoped.of('route', given ?? '')
    draft.note(null, `${route.where}: route ${given ?? service} is off (enabled: false): not converted`)
    return
  }
  const edge: Settings = {}
  const settings: Settings = { name: draft.name('route', given ?? service), match: {}, service }
  const match = settings.match as Settings
  const paths = route.texts('paths')
  const patterns = paths.flatMap((path) =>
    path.startsWith('~') ? patternOf(path.slice(1), (text) => draft.undecided(settings, text)) : [prefixOf(path)]
  )
  const all = patterns.length === 0 ? ['/'] : patterns
  match.path = oneOrAll(all)
  const methods = route.texts('methods')
  if (methods.length > 0) match.methods = methods
  const hosts = route.texts('hosts')
  if (hosts.length > 0) match.hosts = hosts
  const headers = route.map('headers')
  if (headers !== undefined) match.headers = headersOf(headers)
  for (const key of ['expression', 'snis', 'sources', 'destinations']) {
    if (route.unread().includes(`${route.where}.${key}`))
      draft.undecided(settings, `${route.where}.${key}: a condition of the route: not converted`)
    route.skip(key)
  }
  const isStripped = route.flag('strip_path') ?? true
  if (isStripped && all.some((path) => path !== '/')) {
    const isPlain = all.every((path) => typeof path === 'string' && !path.includes(':') && !path.endsWith('*'))
    const path = isPlain ? { strip: true } : strippedBy(paths)
    if (path === null)
      draft.undecided(settings, `${route.where}.strip_path: write path.strip or path.rewrite for the paths`)
    else settings.path = path
  }
  if (route.flag('preserve_host') === true) edge.host = 'preserve'
  const protocols = route.texts('protocols')
  if (protocols.length === 1 && protocols[0] === 'https')
    draft.undecided(settings, `${route.where}.protocols: https only: write listen.tls and listen.redirect`)
  else if (protocols.some((each) => !each.startsWith('http'))) {
    draft.note(settings, `${route.where}.protocols: ${protocols.join(', ')}: not converted`)
  }
  const priority = route.number('regex_priority')
  if (priority !== undefined && priority !== 0) settings.priority = priority
  route.skip(
    'tags',
    'https_redirect_status_code',
    'request_buffering',
    'response_buffering',
    'path_handling',
    'id',
    'service'
  )
  const plugins = [...ofService, ...route.maps('plugins'), ...(given === undefined ? [] : scoped.of('route', given))]
  const place = { target: edge, about: settings, name: service, hasMethod: false, isAlone }
  applyPlugins(plugins, context, place, isAlone ? [] : ofService)
  if (Object.keys(edge).length > 0) settings.edge = edge
  draft.routes.push(settings)
}

function headersOf(headers: Foreign): Settings {
  return Object.fromEntries(
    headers.keys.map((name) => {
      const values = headers.texts(name)
      const [first = ''] = values
      if (first.startsWith('~*')) return [name, { regex: `^(?:${first.slice(2)})$` }]
      return [name, anyOf(values)]
    })
  )
}
