/** Import of Kong's declarative configuration (`kong.yml`, also as decK writes it). */
import type { Imported } from './draft.ts'
import { Draft, duration } from './draft.ts'
import type { Foreign } from './foreign.ts'
import { importConsumers } from './kong-consumers.ts'
import { withDefaults } from './kong-defaults.ts'
import { matchesOfExpression, protocolsIn } from './kong-expressions.ts'
import { applyPlugins, nameOf } from './kong-plugins.ts'
import type { KongContext, Scoped } from './kong-scope.ts'
import { pluginsByScope, reference } from './kong-scope.ts'
import type { Upstreams } from './kong-services.ts'
import { hostHeaderOf, serviceOf, usualTimeoutMs } from './kong-services.ts'
import { Certificates } from './kong-tls.ts'
import { anyOf, oneOrAll, patternOf, prefixOf, strippedBy, wholeOf } from './patterns.ts'
import type { Converted } from './traefik-match.ts'
import type { Settings } from './yaml-text.ts'

const givenName = (route: Foreign): string | undefined => route.text('name') ?? route.text('id')

export function importKong(file: Foreign): Imported {
  const root = withDefaults(file)
  const draft = new Draft()
  root.skip('_transform', '_info', '_plugin_configs', '_comment')
  draft.edge.host = 'upstream'
  draft.mesh.timeout = duration(usualTimeoutMs)
  const scoped = pluginsByScope(root.maps('plugins'))
  const upstreams = new Map(root.maps('upstreams').map((each) => [each.text('name'), each]))
  const looseRoutes = root.maps('routes')
  const of: Upstreams = { draft, upstreams, certificates: new Certificates(root, draft) }
  const marksExpressions = (root.number('_format_version') ?? 3) >= 3
  const { isSecure } = of.certificates
  const context: KongContext = { draft, issuers: [], of, routed: new Map(), isSecure, marksExpressions }
  importConsumers(root, context, scoped)
  applyPlugins(scoped.global, context, {
    target: draft.edge,
    about: null,
    name: 'all',
    hasMethod: false
  })
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
    draft.services[own] = serviceOf(service, own, of)
    const host = hostHeaderOf(service, of)
    const plugins = [...service.maps('plugins'), ...ofService]
    const routes = [...service.maps('routes'), ...loose]
    const isAlone = routes.length === 1
    for (const route of routes) importRoute(route, own, { ofService: plugins, isAlone, host }, scoped, context)
    if (routes.length === 0) draft.note(null, `service ${name} has no routes`)
  }
  for (const { plugin, owner } of scoped.lost()) {
    const name = nameOf(plugin)
    if (plugin.flag('enabled') === false) continue
    const config = plugin.mapOrEmpty('config')
    config.skip(...config.keys)
    draft.unknown(null, name, `plugin ${name} of ${owner}: not converted`)
  }
  of.certificates.finish(draft.routes.every((route) => Object.hasOwn(route.match as Settings, 'listeners')))
  for (const place of root.unread()) draft.note(null, `${place}: not converted`)
  return draft.finish('Kong')
}

interface OfService {
  readonly ofService: readonly Foreign[]
  /** True for the only route of the service. */
  readonly isAlone: boolean
  /** `Host` that the service gets, of its upstream. */
  readonly host: string | undefined
}

/** Protocols of requests that are no HTTP. */
const streams = new Set(['tcp', 'tls', 'udp', 'tls_passthrough'])

function importRoute(route: Foreign, service: string, of: OfService, scoped: Scoped, context: KongContext): void {
  const { draft } = context
  const given = givenName(route)
  const protocols = route.texts('protocols')
  if (route.isOff()) {
    scoped.of('route', given ?? '')
    draft.note(null, `${route.where}: route ${given ?? service} is off (enabled: false): not converted`)
    return
  }
  if (protocols.length > 0 && protocols.every((each) => streams.has(each))) {
    for (const each of [route, ...(given === undefined ? [] : scoped.of('route', given))]) each.skip(...each.keys)
    draft.note(null, `${route.where}: route ${given ?? service} is for ${protocols.join(', ')}: not converted`)
    return
  }
  const expression = route.text('expression')
  const isExpression = (path: string) => !context.marksExpressions && !/^[\w.~/%-]*$/.test(path)
  const paths = route.texts('paths').map((path) => (isExpression(path) ? `~${path}` : path))
  const variants = expression === undefined ? [matchOf(route, paths)] : matchesOfExpression(expression)
  const plugins = [...of.ofService, ...route.maps('plugins'), ...(given === undefined ? [] : scoped.of('route', given))]
  for (const { match, unknown } of variants) {
    const settings: Settings = { name: draft.name('route', given ?? service), match, service }
    const edge: Settings = {}
    for (const text of unknown) draft.undecided(settings, expression === undefined ? text : `expression ${text}`)
    strip(route, settings, expression === undefined ? paths : null, draft)
    if (route.flag('preserve_host') === true) edge.host = 'preserve'
    else if (of.host !== undefined) edge.host = of.host
    const isHttps = isForHttps(expression === undefined ? protocols : protocolsIn(expression))
    if (isHttps && context.isSecure) match.listeners = ['https']
    else if (isHttps)
      draft.undecided(settings, `${route.where}.protocols: https only: write listen.tls and listen.redirect`)
    else if (protocols.some((each) => !each.startsWith('http')))
      draft.note(settings, `${route.where}.protocols: ${protocols.join(', ')}: not converted`)
    const priority = expression === undefined ? route.number('regex_priority') : route.number('priority')
    if (priority !== undefined && priority !== 0) settings.priority = priority
    const target = { target: edge, about: settings, name: service, hasMethod: false, isAlone: of.isAlone }
    applyPlugins(plugins, context, target, of.isAlone ? [] : of.ofService)
    if (Object.keys(edge).length > 0) settings.edge = edge
    draft.routes.push(...(context.variants?.(settings) ?? []), settings)
    delete context.variants
  }
  route.skip('tags', 'https_redirect_status_code', 'request_buffering', 'response_buffering', 'path_handling')
  route.skip('id', 'service', 'created_at', 'updated_at', 'regex_priority')
}

/** Returns whether protocols are secure ones alone. */
const isForHttps = (protocols: readonly string[]): boolean =>
  protocols.length > 0 && protocols.every((each) => each === 'https' || each === 'grpcs' || each === 'wss')

/** Returns the conditions of a route. */
function matchOf(route: Foreign, paths: readonly string[]): Converted {
  const unknown: string[] = []
  const patterns = paths.flatMap((path) =>
    path.startsWith('~') ? patternOf(path.slice(1), (text) => unknown.push(text)) : [prefixOf(path)]
  )
  const match: Settings = { path: oneOrAll(patterns.length === 0 ? ['/'] : patterns) }
  const methods = route.texts('methods')
  if (methods.length > 0) match.methods = methods
  // Kong has wildcards at both ends.
  const hosts = route.texts('hosts').map((host) => host.replace(/:\d+$/, ''))
  const served = hosts.filter((host) => !host.endsWith('.*'))
  if (served.length > 0) match.hosts = served
  if (served.length < hosts.length)
    unknown.push(`${route.where}.hosts: ${hosts.filter((host) => host.endsWith('.*')).join(', ')}: write each host`)
  const headers = route.map('headers')
  if (headers !== undefined) match.headers = headersOf(headers)
  for (const key of ['snis', 'sources', 'destinations']) {
    if (route.unread().includes(`${route.where}.${key}`))
      unknown.push(`${route.where}.${key}: a condition of the route: not converted`)
    route.skip(key)
  }
  return { match, unknown }
}

/** Sets the change of the path that removes what the route matches. `paths` are those of Kong; null for an expression. */
function strip(route: Foreign, settings: Settings, paths: readonly string[] | null, draft: Draft): void {
  const all = [(settings.match as Settings).path].flat()
  const isStripped = route.flag('strip_path') ?? true
  if (!isStripped || all.every((path) => path === '/')) return
  const isPlain = all.every((path) => typeof path === 'string' && !path.includes(':') && !path.endsWith('*'))
  const path = isPlain ? { strip: true } : paths === null ? null : strippedBy(paths)
  if (path === null)
    draft.undecided(settings, `${route.where}.strip_path: write path.strip or path.rewrite for the paths`)
  else settings.path = path
}

function headersOf(headers: Foreign): Settings {
  return Object.fromEntries(
    headers.keys.map((name) => {
      const values = headers.texts(name)
      const [first = ''] = values
      if (values.length === 1 && first.startsWith('~*')) return [name, { regex: wholeOf(first.slice(2)) }]
      return [name, anyOf(values)]
    })
  )
}
