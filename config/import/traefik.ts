/** Import of Traefik's dynamic configuration (file provider), in YAML. */
import { traefikAccessLog } from './access-logs.ts'
import type { Imported } from './draft.ts'
import { Draft } from './draft.ts'
import type { Foreign } from './foreign.ts'
import { ImportFault } from './foreign.ts'
import { oneOrAll, patternOf, prefixOf } from './patterns.ts'
import { EntryPoints } from './traefik-listeners.ts'
import { applyMiddlewares } from './traefik-middlewares.ts'
import type { Matcher } from './traefik-rule.ts'
import { alternativesOf } from './traefik-rule.ts'
import type { Middlewares } from './traefik-scope.ts'
import type { Settings } from './yaml-text.ts'

/** Returns a name without its provider: `app@file` is `app`. */
const bare = (name: string) => name.split('@', 1)[0]!

export function importTraefik(root: Foreign): Imported {
  const draft = new Draft()
  const http = root.map('http')
  if (http === undefined) {
    throw new ImportFault('no "http" in this file: import the dynamic configuration, which has routers and services')
  }
  const middlewares: Middlewares = new Map(http.named('middlewares'))
  const services = new Services(http, draft)
  const entryPoints = new EntryPoints(root, http, draft)
  const context: Context = { services, middlewares, entryPoints, draft }
  for (const [name, router] of http.named('routers')) importRouter(name, router, context)
  const hasTls = root.has('tls')
  entryPoints.finish(root.map('tls'))
  if (!hasTls && !entryPoints.isSecure && http.named('routers').some(([, router]) => router.has('tls')))
    draft.note(null, 'tls of routers: write listen.tls with the certificates')
  const accessLog = root.has('accessLog') ? root.mapOrEmpty('accessLog') : undefined
  if (accessLog !== undefined) traefikAccessLog(accessLog, draft)
  root.skip('log', 'api', 'ping', 'metrics', 'global', 'providers', 'certificatesResolvers', 'experimental')
  for (const place of root.unread()) draft.note(null, `${place}: not converted`)
  return draft.finish('Traefik')
}

/** The services of the file, which are converted when a router names them. */
class Services {
  readonly #given: ReadonlyMap<string, Foreign>
  readonly #own = new Map<string, string>()
  readonly #draft: Draft
  /** Services that send their own `Host`. */
  readonly ownHosts = new Set<string>()

  constructor(http: Foreign, draft: Draft) {
    this.#given = new Map(http.named('services'))
    this.#draft = draft
  }

  /** Sets the service, split, mirror or failover of a route. */
  apply(wanted: string, route: Settings): void {
    const service = this.#given.get(bare(wanted))
    const weighted = service?.map('weighted')
    const mirroring = service?.map('mirroring')
    const failover = service?.map('failover')
    if (weighted !== undefined) {
      weighted.skip('healthCheck')
      route.split = weighted
        .maps('services')
        .map((share) => ({ service: this.#of(share.text('name') ?? ''), weight: share.number('weight') ?? 1 }))
    } else if (mirroring !== undefined) {
      route.service = this.#of(mirroring.text('service') ?? '')
      const [first, ...others] = mirroring.maps('mirrors')
      const mirror = first && {
        service: this.#of(first.text('name') ?? ''),
        percent: `${first.number('percent') ?? 100}%`
      }
      if (mirror !== undefined) route.mesh = { mirror }
      if (others.length > 0) this.#draft.note(route, `${mirroring.where}.mirrors: only the first is converted`)
    } else if (failover !== undefined) {
      route.service = this.#of(failover.text('service') ?? '')
      route.mesh = { fallback: [{ service: this.#of(failover.text('fallback') ?? '') }] }
    } else route.service = this.#of(wanted)
  }

  #of(wanted: string): string {
    const name = bare(wanted)
    const known = this.#own.get(name)
    if (known !== undefined) return known
    const own = this.#draft.name('service', name)
    this.#own.set(name, own)
    const settings: Settings = {}
    this.#draft.services[own] = settings
    const balancer = this.#given.get(name)?.map('loadBalancer')
    if (balancer === undefined) {
      settings.consul = { service: name }
      this.#draft.note(settings, `service ${wanted} is not in this file: it is taken from Consul`)
      return own
    }
    settings.instances = balancer.maps('servers').map((server) => {
      const weight = server.number('weight')
      const url = prefixOf(server.text('url') ?? '')
      return weight === undefined ? url : { url, weight }
    })
    if (balancer.flag('passHostHeader') === false) this.ownHosts.add(own)
    const check = balancer.map('healthCheck')
    if (check !== undefined) {
      const timing = (key: string) => {
        const text = check.text(key)
        return text !== undefined && { [key]: /^\d+$/.test(text) ? `${text}s` : text }
      }
      settings.mesh = { healthCheck: { path: check.text('path') ?? '/', ...timing('interval'), ...timing('timeout') } }
    }
    if (balancer.has('sticky')) {
      const cookie = balancer.map('sticky')?.map('cookie')
      settings.mesh = {
        ...((settings.mesh ?? {}) as Settings),
        balance: { policy: 'ring-hash', hashOn: `cookie:${cookie?.text('name') ?? 'sticky'}` }
      }
      cookie?.skip(...cookie.keys)
      this.#draft.note(settings, `${balancer.where}.sticky: the client has to get the cookie from the service`)
    }
    return own
  }
}

interface Context {
  readonly services: Services
  readonly middlewares: Middlewares
  readonly entryPoints: EntryPoints
  readonly draft: Draft
}

function importRouter(name: string, router: Foreign, { services, middlewares, entryPoints, draft }: Context): void {
  const rule = router.text('rule') ?? ''
  const priority = router.number('priority')
  router.skip('ruleSyntax', 'observability')
  const tls = router.value('tls')
  const options = typeof tls === 'object' ? (router.map('tls')?.text('options') ?? 'default') : 'default'
  if (typeof tls === 'object') router.map('tls')?.skip('certResolver', 'domains')
  const points = router.texts('entryPoints')
  const listeners = entryPoints.listenersOf(points)
  const wanted = router.text('service') ?? ''
  const names = [...entryPoints.middlewaresOf(points), ...router.texts('middlewares')]
  if (wanted.endsWith('@internal')) {
    draft.note(null, `router ${name}: ${wanted} is not converted; the admin port has the pages of the gateway`)
    return
  }
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
    if (priority !== undefined) route.priority = priority
    services.apply(wanted, route)
    const edge: Settings = {}
    if (typeof route.service === 'string' && services.ownHosts.has(route.service)) edge.host = 'upstream'
    applyMiddlewares(names.map(bare), middlewares, { route, edge, draft })
    if (Object.keys(edge).length > 0) route.edge = edge
    draft.routes.push(...strippable(route, draft))
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
    const broad = paths.filter((path) => path === '/').length > 0
    if (!broad) return [others]
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

/** Returns the routes of a rule. Alternatives that differ in their paths, or else their hosts, only are one route. */
function matchesOf(rule: string): { match: Settings; unknown: string[] }[] {
  let all = alternativesOf(rule).map(matchOf)
  for (const key of ['path', 'hosts', 'methods'] as const) {
    const merged = new Map<string, (typeof all)[number]>()
    for (const each of all) {
      const { [key]: list, ...others } = each.match
      const id = JSON.stringify([others, each.unknown])
      const before = merged.get(id)
      if (before === undefined) merged.set(id, { ...each, match: { ...each.match } })
      else if (list !== undefined && before.match[key] !== undefined) {
        before.match[key] = [...new Set([...(before.match[key] as unknown[]), ...(list as unknown[])])]
      } else merged.set(JSON.stringify([each.match, merged.size]), each)
    }
    all = [...merged.values()]
  }
  return all.map(({ match, unknown }) => ({
    match: { ...match, path: oneOrAll((match.path as unknown[] | undefined) ?? ['/']) },
    unknown
  }))
}

function matchOf(matchers: readonly Matcher[]): { match: Settings; unknown: string[] } {
  const match: Settings = {}
  const unknown: string[] = []
  const add = (key: string, values: readonly unknown[]) => {
    match[key] = [...((match[key] as unknown[] | undefined) ?? []), ...values]
  }
  const condition = (key: string, name: string, value: unknown) => {
    match[key] = { ...((match[key] ?? {}) as Settings), [name]: value }
  }
  const whole = (expression: string) => `^${expression.replace(/^\^|\$$/g, '')}$`
  for (const { name, args, isNot } of matchers) {
    const [first = '', second] = args
    const text = `${isNot ? '!' : ''}${name}(${args.join(', ')})`
    if (isNot) unknown.push(text)
    else if (name === 'Host' || name === 'HostHeader') add('hosts', args)
    else if (name === 'PathPrefix') add('path', args.map(prefixOf))
    else if (name === 'Path')
      add(
        'path',
        args.map((exact) => ({ exact }))
      )
    else if (name === 'PathRegexp') add('path', [patternOf(first, (reason) => unknown.push(reason))])
    else if (name === 'Method') add('methods', args)
    else if (name === 'ClientIP') add('addresses', args)
    else if (name === 'Header' || name === 'Headers') condition('headers', first.toLowerCase(), second ?? '')
    else if (name === 'HeaderRegexp' || name === 'HeadersRegexp') {
      condition('headers', first.toLowerCase(), { regex: whole(second ?? '') })
    } else if (name === 'Query') {
      const [key = '', value] = second === undefined ? first.split('=', 2) : [first, second]
      condition('query', key, value === undefined ? { present: true } : value)
    } else if (name === 'QueryRegexp') condition('query', first, { regex: whole(second ?? '') })
    else unknown.push(text)
  }
  return { match, unknown }
}
