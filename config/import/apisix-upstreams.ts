/** Upstreams of APISIX, as services. */
import type { Draft } from './draft.ts'
import { duration } from './draft.ts'
import type { Foreign } from './foreign.ts'
import { member } from './foreign.ts'
import { apisixHealthOf } from './health.ts'
import type { Settings } from './yaml-text.ts'

const policies: Readonly<Record<string, string>> = {
  roundrobin: 'round-robin',
  least_conn: 'least-request',
  ewma: 'peak-ewma',
  chash: 'ring-hash'
}

/** The upstreams of a file, which are converted when a route or plugin names them. */
export class Services {
  readonly #draft: Draft
  readonly #byId: ReadonlyMap<string, Foreign>
  readonly #known = new Map<string, string>()

  constructor(byId: ReadonlyMap<string, Foreign>, draft: Draft) {
    this.#draft = draft
    this.#byId = byId
  }

  byId(id: string): Foreign | undefined {
    return this.#byId.get(id)
  }

  /** Returns the name of the service for an upstream, which is added once. */
  of(upstream: Foreign, wanted: string): string {
    const known = this.#known.get(upstream.where)
    if (known !== undefined) return known
    const name = this.#draft.name('service', wanted)
    this.#known.set(upstream.where, name)
    this.#draft.services[name] = serviceOf(upstream, name, this.#draft)
    return name
  }

  /** Returns the name of a service for an address. */
  at(url: string): string {
    const known = this.#known.get(url)
    if (known !== undefined) return known
    const name = this.#draft.name('service', url.replace(/^\w+:\/\//, '').replace(/:\d+$/, ''))
    this.#known.set(url, name)
    this.#draft.services[name] = { instances: [url.replace(/\/+$/, '')] }
    return name
  }
}

function serviceOf(upstream: Foreign, name: string, draft: Draft): Settings {
  const settings: Settings = {}
  const scheme = upstream.text('scheme') ?? 'http'
  upstream.skip('id', 'name', 'desc', 'labels', 'create_time', 'update_time', 'pass_host', 'upstream_host')
  const discovery = upstream.text('discovery_type')
  const discovered = upstream.text('service_name')
  if (discovery === 'consul' || discovery === 'consul_kv') settings.consul = { service: discovered }
  else if (discovery === 'eureka') settings.eureka = { app: discovered }
  else if (discovery === 'dns') {
    const [host, port] = (discovered ?? '').split(':')
    settings.dns = { host, ...(port !== undefined && { port: Number(port) }) }
  } else if (discovery !== undefined) draft.note(settings, `discovery_type ${discovery}: not converted`)
  else settings.instances = instancesOf(upstream, scheme, (text) => draft.note(settings, text))
  if (discovery === 'consul_kv')
    draft.note(settings, `discovery_type consul_kv: instances are those of the service, not of keys`)
  if (scheme !== 'http' && scheme !== 'https')
    draft.note(settings, `${upstream.where}: scheme ${scheme}: not converted`)
  const retries = upstream.number('retries')
  const timeout = upstream.map('timeout')
  const read = timeout?.number('read')
  const connect = timeout?.number('connect')
  const pool = upstream.map('keepalive_pool')
  const [idle, requests] = [pool?.number('idle_timeout'), pool?.number('requests')]
  timeout?.skip('send')
  pool?.skip('size')
  const tls = tlsOf(upstream.map('tls'), name, settings, draft)
  const mesh: Settings = {
    ...balanceOf(upstream, settings, draft),
    ...(retries !== undefined && { retry: retries === 0 ? false : { attempts: retries } }),
    ...(read !== undefined && { timeout: duration(read * 1000) }),
    ...(connect !== undefined && { connectTimeout: duration(connect * 1000) }),
    ...((idle !== undefined || requests !== undefined) && {
      connections: {
        ...(idle !== undefined && { idle: idle === 0 ? 0 : duration(idle * 1000) }),
        ...(requests !== undefined && requests > 0 && { maxRequests: requests })
      }
    }),
    ...(tls !== null && { tls }),
    ...apisixHealthOf(upstream.map('checks'))
  }
  if (Object.keys(mesh).length > 0) settings.mesh = mesh
  return settings
}

/** Returns `mesh.tls` for a client certificate. */
function tlsOf(tls: Foreign | undefined, name: string, settings: Settings, draft: Draft): Settings | null {
  const [cert = '', key = ''] = [tls?.text('client_cert'), tls?.text('client_key')]
  const isPem = [cert, key].every((text) => text.includes('-----BEGIN'))
  if (tls !== undefined && !isPem) draft.note(settings, `${tls.where}: write mesh.tls`)
  tls?.skip(...tls.keys)
  if (tls === undefined || !isPem) return null
  const file = (ending: string, text: string) => draft.file(name, ending, `${text.trimEnd()}\n`)
  return { cert: file('-client-cert.pem', cert), key: file('-client-key.pem', key) }
}

function balanceOf(upstream: Foreign, settings: Settings, draft: Draft): Settings {
  const type = upstream.text('type') ?? 'roundrobin'
  const policy = member(policies, type)
  const hashOn = upstream.text('hash_on') ?? 'vars'
  const key = upstream.text('key') ?? 'remote_addr'
  if (policy === undefined) draft.note(settings, `type ${type}: not converted`)
  if (policy === undefined || policy === 'round-robin') return {}
  if (policy !== 'ring-hash') return { balance: policy }
  const variable = hashOn === 'header' ? `http_${key}` : hashOn === 'cookie' ? `cookie_${key}` : key
  const [, kind, name = ''] = /^(?:http_)?(http|cookie|arg)_(.+)$/.exec(variable) ?? []
  const on =
    hashOn === 'consumer' ? 'consumer'
    : kind === 'http' ? `header:${name.toLowerCase().replaceAll('_', '-')}`
    : kind === 'cookie' ? `cookie:${name.replace(/^cookie_/, '')}`
    : kind === 'arg' && hashOn === 'vars' ? `query:${name}`
    : 'ip' // biome-ignore format: one line for each kind
  if (on === 'ip' && key !== 'remote_addr')
    draft.note(settings, `${upstream.where}: hash of ${key}: taken from the address`)
  return { balance: { policy, hashOn: on } }
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
