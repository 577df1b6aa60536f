/** Import of APISIX's standalone configuration (`apisix.yaml`), or of the objects of its Admin API in the same form. */
import { importConsumers } from './apisix-consumers.ts'
import { applyPlugins } from './apisix-plugins.ts'
import type { ApisixContext } from './apisix-scope.ts'
import type { Imported } from './draft.ts'
import { Draft, duration } from './draft.ts'
import type { Foreign } from './foreign.ts'
import { member } from './foreign.ts'
import { anyOf, oneOrAll, prefixOf } from './patterns.ts'
import type { Settings } from './yaml-text.ts'

const byId = (list: readonly Foreign[]): ReadonlyMap<string, Foreign> =>
  new Map(list.map((each) => [each.text('id') ?? each.text('name') ?? '', each]))

export function importApisix(root: Foreign): Imported {
  const draft = new Draft()
  draft.mesh.timeout = '1m'
  const upstreams = byId(root.maps('upstreams'))
  const services = byId(root.maps('services'))
  const shared = byId(root.maps('plugin_configs'))
  const context: ApisixContext = { draft, issuers: [] }
  importConsumers(root, context)
  for (const rule of root.maps('global_rules')) {
    rule.skip('id')
    applyPlugins(rule.map('plugins'), context, { edge: draft.edge, route: null, name: 'all' })
  }
  const known = new Map<string, string>()
  for (const route of root.maps('routes')) {
    if (route.text('status') === '0') {
      const off = route.text('name') ?? route.text('id') ?? route.where
      route.skip(...route.keys)
      draft.note(null, `${route.where}: route ${off} is off (status: 0): not converted`)
      continue
    }
    const given = route.text('name') ?? route.text('id')
    const service = services.get(route.text('service_id') ?? '')
    const name = draft.name('route', given ?? String([...route.texts('uri'), ...route.texts('uris')][0] ?? 'route'))
    const settings: Settings = { name }
    settings.match = matchOf(route, service, (text) => draft.undecided(settings, text))
    for (const key of ['filter_func', 'script', 'script_id'].filter((each) => route.has(each))) {
      draft.undecided(settings, `${key}: not converted`)
      route.skip(key)
    }
    const edge: Settings = {}
    const upstreamId = route.text('upstream_id') ?? service?.text('upstream_id')
    const inline = route.map('upstream') ?? (upstreamId === undefined ? service?.map('upstream') : undefined)
    const upstream = inline ?? upstreams.get(upstreamId ?? '')
    const key = inline === undefined ? `upstream ${upstreamId}` : inline.where
    if (upstream !== undefined) {
      const wanted = service?.text('name') ?? upstream.text('name') ?? upstreamId ?? name
      if (!known.has(key)) {
        const own = draft.name('service', wanted)
        known.set(key, own)
        draft.services[own] = serviceOf(upstream, draft)
      }
      settings.service = known.get(key)
      if (upstream.text('pass_host') === 'node') edge.host = 'upstream'
      const host = upstream.text('upstream_host')
      if (upstream.text('pass_host') === 'rewrite') {
        if (host !== undefined && /[.:]/.test(host)) edge.host = host
        else draft.note(settings, `${key}: pass_host rewrite: write edge.host`)
      }
    }
    const timeout = route.map('timeout')
    const read = timeout?.number('read')
    const connect = timeout?.number('connect')
    timeout?.skip('send')
    if (read !== undefined) settings.mesh = { timeout: duration(read * 1000) }
    if (connect !== undefined && settings.service !== undefined) {
      // Connections belong to services.
      const target = draft.services[String(settings.service)] as Settings
      const mesh = (target.mesh ?? {}) as Settings
      target.mesh = { ...mesh, connectTimeout: mesh.connectTimeout ?? duration(connect * 1000) }
    }
    const priority = route.number('priority')
    if (priority !== undefined && priority !== 0) settings.priority = priority
    route.skip('id', 'desc', 'labels', 'status', 'create_time', 'update_time', 'enable_websocket')
    service?.skip('id', 'desc', 'labels', 'enable_websocket', 'create_time', 'update_time')
    const [serviceId, sharedId] = [route.text('service_id'), route.text('plugin_config_id')]
    const ofShared = shared.get(sharedId ?? '')
    // Their plugins may protect the route.
    if (serviceId !== undefined && service === undefined)
      draft.undecided(settings, `service ${serviceId} is not in this file`)
    if (sharedId !== undefined && ofShared === undefined)
      draft.undecided(settings, `plugin_config ${sharedId} is not in this file`)
    for (const place of [service, ofShared, route]) {
      place?.skip('id', 'desc')
      const isOfRoute = place === route
      applyPlugins(place?.map('plugins'), context, {
        edge,
        route: settings,
        name: isOfRoute ? null : (known.get(key) ?? name)
      })
    }
    withoutCallers(edge, draft.edge)
    if (Object.keys(edge).length > 0) settings.edge = edge
    if (['service', 'response', 'redirect'].some((key) => settings[key] !== undefined)) draft.routes.push(settings)
    else draft.note(null, `route ${name} has no upstream in this file`)
  }
  for (const ssl of root.maps('ssls')) {
    const isMutual = ssl.has('client')
    ssl.skip(...ssl.keys)
    const text = `${ssl.where}: write listen.tls${isMutual ? ' with clientCertificate' : ''}`
    if (isMutual) draft.undecided(null, text)
    else draft.note(null, text)
  }
  for (const group of root.maps('consumer_groups')) {
    const plugins = group.map('plugins')
    for (const name of plugins?.keys ?? []) {
      const text = `plugin ${name} of consumer_group ${group.text('id')}: write it under consumers[].edge`
      draft.unknown(null, name, text)
    }
    plugins?.skip(...plugins.keys)
    group.skip(...group.keys)
  }
  for (const place of root.unread()) draft.note(null, `${place}: not converted`)
  return draft.finish('APISIX')
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

/** Returns a path of APISIX: `/api/*` matches what begins with `/api/`, others match as a whole. */
const pathOf = (uri: string): unknown => {
  if (uri === '/*') return '/'
  if (uri.endsWith('/*')) return prefixOf(uri.slice(0, -1))
  return uri.includes(':') || uri.includes('*') ? uri : { exact: uri }
}

function matchOf(route: Foreign, service: Foreign | undefined, report: (text: string) => void): Settings {
  const own = [...route.texts('host'), ...route.texts('hosts')]
  const hosts = own.length > 0 ? own : (service?.texts('hosts') ?? [])
  const methods = route.texts('methods')
  const addresses = [...route.texts('remote_addr'), ...route.texts('remote_addrs')]
  const match: Settings = {
    path: oneOrAll([...route.texts('uri'), ...route.texts('uris')].map(pathOf)),
    ...(hosts.length > 0 && { hosts }),
    ...(methods.length > 0 && { methods }),
    ...(addresses.length > 0 && { addresses })
  }
  const vars = route.value('vars')
  if (vars !== undefined && !Array.isArray(vars)) report('vars: not converted')
  for (const each of Array.isArray(vars) ? (vars as unknown[]) : []) {
    const [variable, operator, value] = Array.isArray(each) ? (each as unknown[]).map(String) : []
    const [, kind = '', name = ''] = /^(http|arg|cookie)_(.+)$/.exec(variable ?? '') ?? []
    const key = { http: 'headers', arg: 'query', cookie: 'cookies' }[kind]
    const given = Array.isArray(each) ? (each as unknown[])[2] : undefined
    const wanted =
      operator === '==' ? value
      : operator === '~~' ? unanchored(value ?? '')
      : operator?.toLowerCase() === 'in' && Array.isArray(given) ? anyOf(given.map(String))
      : undefined // biome-ignore format: one line for each operator
    if (key === undefined || wanted === undefined) report(`vars ${JSON.stringify(each)}: not converted`)
    else
      match[key] = { ...((match[key] ?? {}) as Settings), [kind === 'http' ? name.replaceAll('_', '-') : name]: wanted }
  }
  return match
}

/** Returns an expression for a whole text, for one that APISIX searches anywhere in it; undefined for alternatives with groups. */
function unanchored(expression: string): { regex: string } | undefined {
  if (expression.length > 1000) return undefined
  let flat = expression.replace(/\\./g, '').replace(/\[[^\]]*\]/g, '')
  while (/\([^()]*\)/.test(flat)) flat = flat.replace(/\([^()]*\)/g, '')
  const hasAlternatives = flat.includes('|')
  if (hasAlternatives && /[([\\]/.test(expression)) return undefined
  const whole = (hasAlternatives ? expression.split('|') : [expression]).map((each) => {
    const [begins, ends] = [each.startsWith('^'), /(?<!\\)\$$/.test(each)]
    const bare = each.slice(begins ? 1 : 0, ends ? -1 : undefined)
    return `${begins ? '' : '.*'}${bare}${ends ? '' : '.*'}`
  })
  return { regex: `^${hasAlternatives ? `(?:${whole.join('|')})` : whole[0]}$` }
}

const policies: Readonly<Record<string, string>> = {
  roundrobin: 'round-robin',
  least_conn: 'least-request',
  ewma: 'peak-ewma',
  chash: 'ring-hash'
}

function serviceOf(upstream: Foreign, draft: Draft): Settings {
  const settings: Settings = {}
  const mesh: Settings = {}
  const scheme = upstream.text('scheme') ?? 'http'
  const type = upstream.text('type') ?? 'roundrobin'
  upstream.skip('id', 'name', 'desc', 'labels', 'create_time', 'update_time', 'pass_host')
  const discovery = upstream.text('discovery_type')
  const discovered = upstream.text('service_name')
  if (discovery === 'consul' || discovery === 'consul_kv') settings.consul = { service: discovered }
  else if (discovery === 'eureka') settings.eureka = { app: discovered }
  else if (discovery === 'dns') {
    const [host, port] = (discovered ?? '').split(':')
    settings.dns = { host, ...(port !== undefined && { port: Number(port) }) }
  } else if (discovery !== undefined) draft.note(settings, `discovery_type ${discovery}: not converted`)
  else settings.instances = instancesOf(upstream, scheme, (text) => draft.note(settings, text))
  if (scheme !== 'http' && scheme !== 'https')
    draft.note(settings, `${upstream.where}: scheme ${scheme}: not converted`)
  const policy = member(policies, type)
  const hashOn = upstream.text('hash_on') ?? 'vars'
  const key = upstream.text('key') ?? 'remote_addr'
  if (policy === 'ring-hash') {
    const on = hashOn === 'header' ? `header:${key}` : hashOn === 'cookie' ? `cookie:${key}` : 'ip'
    mesh.balance = { policy, hashOn: on }
    if (hashOn === 'vars' && key !== 'remote_addr')
      draft.note(settings, `${upstream.where}: hash of ${key}: taken from the address`)
  } else if (policy !== undefined && policy !== 'round-robin') mesh.balance = policy
  else if (policy === undefined) draft.note(settings, `type ${type}: not converted`)
  const retries = upstream.number('retries')
  if (retries !== undefined) mesh.retry = retries === 0 ? false : { attempts: retries }
  const timeout = upstream.map('timeout')
  const read = timeout?.number('read')
  const connect = timeout?.number('connect')
  timeout?.skip('send')
  if (read !== undefined) mesh.timeout = duration(read * 1000)
  if (connect !== undefined) mesh.connectTimeout = duration(connect * 1000)
  const active = upstream.map('checks')?.map('active')
  if (active !== undefined) {
    const [healthy, unhealthy] = [active.map('healthy'), active.map('unhealthy')]
    const interval = healthy?.number('interval')
    const [successes, failures] = [healthy?.number('successes'), unhealthy?.number('http_failures')]
    const statuses = healthy?.texts('http_statuses').map(Number) ?? []
    mesh.healthCheck = {
      path: active.text('http_path') ?? '/',
      ...(interval !== undefined && { interval: `${interval}s` }),
      ...(statuses.length > 0 && { statuses }),
      ...(successes !== undefined && { healthyThreshold: successes }),
      ...(failures !== undefined && { unhealthyThreshold: failures })
    }
    unhealthy?.skip('interval', 'http_statuses', 'tcp_failures', 'timeouts')
    active.skip('type', 'timeout', 'concurrency', 'https_verify_certificate')
  }
  if (Object.keys(mesh).length > 0) settings.mesh = mesh
  return settings
}

/** Returns the nodes: a mapping of addresses to weights, or a list. */
function instancesOf(upstream: Foreign, scheme: string, note: (text: string) => void): unknown[] {
  const base = scheme === 'https' ? 'https' : 'http'
  const nodes = upstream.value('nodes')
  const all = Array.isArray(nodes)
    ? upstream.maps('nodes').map((node) => {
        node.skip('metadata')
        const port = node.text('port')
        return {
          address: `${node.text('host')}${port === undefined ? '' : `:${port}`}`,
          weight: node.number('weight') ?? 1,
          priority: node.number('priority') ?? 0
        }
      })
    : Object.entries((nodes ?? {}) as Readonly<Record<string, unknown>>).map(([address, weight]) => ({
        address,
        weight: Number(weight),
        priority: 0
      }))
  // Others get requests only while these are unhealthy.
  const highest = all.reduce((most, { priority }) => Math.max(most, priority), Number.NEGATIVE_INFINITY)
  const list = all.filter(({ priority }) => priority === highest)
  for (const { address, priority } of all.filter((each) => !list.includes(each)))
    note(`node ${address} with priority ${priority}: write a service of its own, and mesh.fallback`)
  const isEven = list.every(({ weight }) => weight === list[0]!.weight)
  return list
    .filter(({ weight }) => weight > 0)
    .map(({ address, weight }) => (isEven ? `${base}://${address}` : { url: `${base}://${address}`, weight }))
}
