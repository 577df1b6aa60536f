/** Import of Traefik's dynamic configuration (file provider), in YAML. */
import { traefikAccessLog } from './access-logs.ts'
import type { Imported } from './draft.ts'
import { Draft } from './draft.ts'
import type { Foreign } from './foreign.ts'
import { ImportFault } from './foreign.ts'
import { oneOrAll, prefixOf } from './patterns.ts'
import { EntryPoints } from './traefik-listeners.ts'
import { matchesOf } from './traefik-match.ts'
import { applyMiddlewares } from './traefik-middlewares.ts'
import type { Middlewares } from './traefik-scope.ts'
import { bare, Services } from './traefik-services.ts'
import { influxOf, tracingOf } from './traefik-telemetry.ts'
import type { Settings } from './yaml-text.ts'

export function importTraefik(root: Foreign): Imported {
  const draft = new Draft()
  const http = root.map('http')
  if (http === undefined) {
    throw new ImportFault('no "http" in this file: import the dynamic configuration, which has routers and services')
  }
  const middlewares: Middlewares = new Map(http.named('middlewares'))
  const services = new Services(root, http, draft)
  const entryPoints = new EntryPoints(root, http, draft)
  const hasPriorities = http.named('routers').some(([, router]) => (router.number('priority') ?? 0) !== 0)
  const lists = [...middlewares.values()].flatMap((each) => {
    const users = each.map('basicAuth')
    return users === undefined ? [] : [[...users.texts('users'), users.text('usersFile') ?? ''].join('\n')]
  })
  const hasSeveralLists = new Set(lists).size > 1
  const context: Context = { services, middlewares, entryPoints, hasPriorities, hasSeveralLists, draft }
  for (const [name, router] of http.named('routers')) importRouter(name, router, context)
  const hasTls = root.has('tls')
  entryPoints.finish(root.map('tls'))
  if (!hasTls && !entryPoints.isSecure && http.named('routers').some(([, router]) => router.has('tls')))
    draft.note(null, 'tls of routers: write listen.tls with the certificates')
  const accessLog = root.has('accessLog') ? root.mapOrEmpty('accessLog') : undefined
  if (accessLog !== undefined) traefikAccessLog(accessLog, draft)
  if (root.has('tracing')) tracingOf(root.mapOrEmpty('tracing'), draft)
  const influx = root.map('metrics')?.map('influxDB2')
  if (influx !== undefined) influxOf(influx, draft)
  root.map('metrics')?.skip('prometheus')
  const providers = root.map('providers')
  for (const provider of providers?.keys ?? [])
    if (provider !== 'file' && provider !== 'providersThrottleDuration')
      draft.note(null, `providers.${provider}: its routers are not in this file: write them as routes`)
  providers?.skip(...providers.keys)
  if (root.has('certificatesResolvers'))
    draft.note(null, 'certificatesResolvers: an ACME client writes certificates into listen.tls.folders')
  root.skip('log', 'api', 'ping', 'global', 'providers', 'certificatesResolvers', 'experimental')
  for (const place of root.unread()) draft.note(null, `${place}: not converted`)
  return draft.finish('Traefik')
}

interface Context {
  readonly services: Services
  readonly middlewares: Middlewares
  readonly entryPoints: EntryPoints
  /** True if routers have priorities, which Traefik compares with the lengths of the rules of others. */
  readonly hasPriorities: boolean
  readonly hasSeveralLists: boolean
  readonly draft: Draft
}

function importRouter(name: string, router: Foreign, context: Context): void {
  const { services, middlewares, entryPoints, hasPriorities, hasSeveralLists, draft } = context
  const rule = router.text('rule') ?? ''
  const priority = router.number('priority') || rule.length
  router.skip('ruleSyntax', 'observability')
  const tls = router.value('tls')
  const ofRouter = typeof tls === 'object' ? router.map('tls')?.text('options') : undefined
  if (typeof tls === 'object') router.map('tls')?.skip('certResolver', 'domains')
  const points = router.texts('entryPoints')
  const options = ofRouter ?? entryPoints.optionsOf(points) ?? 'default'
  const listeners = entryPoints.listenersOf(points)
  const wanted = router.text('service') ?? ''
  const names = [...entryPoints.middlewaresOf(points), ...router.texts('middlewares')]
  const redirects = names.some((each) => /redirect/.test(middlewares.get(bare(each))?.keys.join(' ') ?? ''))
  if (wanted.endsWith('@internal') && !(wanted.startsWith('noop@') && redirects)) {
    draft.note(null, `router ${name}: ${wanted} is not converted; the admin port has the pages of the gateway`)
    return
  }
  const written: Settings[] = []
  for (const { match, unknown } of matchesOf(rule)) {
    if (listeners.length > 0) match.listeners = listeners
    const route: Settings = { name: draft.name('route', name), match }
    for (const text of unknown) draft.undecided(route, `router ${name}: ${text}: not converted`)
    if (bare(options) !== 'default')
      draft.undecided(route, `router ${name}: tls.options ${options}: write listen.tls.hosts, or another listener`)
    for (const point of entryPoints.missing(points))
      draft.undecided(
        route,
        `router ${name}: entryPoint ${point} is not in this file: write listen and match.listeners`
      )
    if (hasPriorities) route.priority = priority
    if (!wanted.endsWith('@internal')) services.apply(wanted, route)
    const edge: Settings = {}
    if (typeof route.service === 'string' && services.ownHosts.has(route.service)) edge.host = 'upstream'
    applyMiddlewares(names.map(bare), middlewares, { route, edge, draft, hasSeveralLists })
    if (Object.keys(edge).length > 0) route.edge = edge
    if (wanted.endsWith('@internal') && route.redirect === undefined)
      draft.undecided(route, `router ${name}: ${wanted}: write a route with "redirect"`)
    written.push(...strippable(route, draft))
  }
  if (written.length > 1) shareLimits(written, draft.name('route', `${name}-limit`))
  draft.routes.push(...written)
}

/** Names the limits of the routes of one router, so that they count together. */
function shareLimits(routes: readonly Settings[], name: string): void {
  for (const { edge } of routes) {
    const limits = [((edge ?? {}) as Settings).rateLimit ?? []].flat() as Settings[]
    for (const [index, limit] of limits.entries())
      if (limit.max !== undefined) limit.name = limits.length > 1 ? `${name}-${index + 1}` : name
  }
}

/** Returns a route, or two of them if only some of its paths begin with the prefix that is stripped. */
function strippable(route: Settings, draft: Draft): Settings[] {
  const strip = (route.path as Settings | undefined)?.strip
  const match = route.match as Settings
  const paths = [match.path].flat()
  const textOf = (path: unknown) => (typeof path === 'string' ? path : String((path as Settings).exact))
  const isBelow = (path: unknown) => typeof strip === 'string' && `${textOf(path)}/`.startsWith(`${prefixOf(strip)}/`)
  const below = paths.filter(isBelow)
  if (typeof strip !== 'string' || below.length === paths.length) return [route]
  const { path: _path, ...rest } = route
  const others = { ...rest, match: { ...match, path: oneOrAll(paths.filter((path) => !isBelow(path))) } }
  if (below.length === 0) {
    // Stripped only where a request's path has the prefix, which a path of this rule need not have.
    if (!paths.includes('/')) return [others]
    return [
      { ...route, match: { ...match, path: prefixOf(strip) } },
      { ...others, name: draft.name('route', String(route.name)) }
    ]
  }
  return [
    { ...route, match: { ...match, path: oneOrAll(below) } },
    { ...others, name: draft.name('route', String(route.name)) }
  ]
}
