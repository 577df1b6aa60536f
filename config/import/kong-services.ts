/** Services of Kong, with their upstreams. */
import type { Draft } from './draft.ts'
import { duration } from './draft.ts'
import type { Foreign } from './foreign.ts'
import { ImportFault, member } from './foreign.ts'
import { healthOf } from './health.ts'
import type { Certificates } from './kong-tls.ts'
import type { Settings } from './yaml-text.ts'

/** Timeouts of Kong where a service sets none, in milliseconds. */
export const usualTimeoutMs = 60_000

export interface Upstreams {
  readonly draft: Draft
  readonly upstreams: ReadonlyMap<unknown, Foreign>
  readonly certificates: Certificates
}

interface Address {
  readonly protocol: string
  readonly host: string
  readonly port: string
  readonly path: string
}

export function serviceOf(service: Foreign, name: string, of: Upstreams): Settings {
  const { draft } = of
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
  const settings: Settings = {}
  const mesh = targetsOf({ protocol, host, port, path }, service.where, settings, of)
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
  const tls = of.certificates.tlsOf(service, name, settings)
  if (tls !== null) mesh.tls = tls
  service.skip('write_timeout', 'tags', 'id', 'enabled', 'name', 'host', 'protocol', 'port', 'path')
  if (Object.keys(mesh).length > 0) settings.mesh = mesh
  return settings
}

/** Returns the `Host` that a service gets, of its upstream; undefined for that of the address. */
export function hostHeaderOf(service: Foreign, { upstreams }: Upstreams): string | undefined {
  const host = service.text('host') ?? /^\w+:\/\/([^/:]+)/.exec(service.text('url') ?? '')?.[1]
  return upstreams.get(host)?.text('host_header')
}

/** Sets the instances of an address, which may name an upstream. Returns the policies of that. */
export function targetsOf(
  { protocol, host, port, path }: Address,
  where: string,
  settings: Settings,
  { draft, upstreams }: Upstreams
): Settings {
  const upstream = upstreams.get(host)
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
    if (live.length === 0) draft.undecided(settings, `${where}: all targets are off: write instances`)
    settings.instances = live.map((target) => {
      const [name, ofTarget = port] = splitPort(target.text('target') ?? '')
      const weight = target.number('weight') ?? 100
      target.skip('tags', 'id', 'created_at', 'upstream')
      const address = `${protocol}://${name}:${ofTarget}`
      return weight === 100 ? address : { url: address, weight }
    })
    if (path !== '') settings.basePath = path
  }
  if (upstream === undefined) return {}
  upstream.skip('name', 'tags', 'slots', 'id', 'use_srv_name', 'created_at', 'host_header')
  return balanceOf(upstream, draft, settings)
}

function splitPort(target: string): string[] {
  const colon = target.lastIndexOf(':')
  return colon === -1 || target.endsWith(']') ? [target] : [target.slice(0, colon), target.slice(colon + 1)]
}

const policies: Readonly<Record<string, string>> = {
  'round-robin': 'round-robin',
  'least-connections': 'least-request',
  latency: 'peak-ewma',
  'consistent-hashing': 'ring-hash',
  'sticky-sessions': 'ring-hash'
}

function balanceOf(upstream: Foreign, draft: Draft, settings: Settings): Settings {
  const algorithm = upstream.text('algorithm')
  const policy = member(policies, algorithm ?? '')
  if (algorithm !== undefined && policy === undefined) draft.note(settings, `algorithm ${algorithm}: not converted`)
  const isSticky = algorithm === 'sticky-sessions'
  const header = upstream.text('hash_on_header')
  const cookie = isSticky ? upstream.text('sticky_sessions_cookie') : upstream.text('hash_on_cookie')
  const query = upstream.text('hash_on_query_arg')
  const on = isSticky ? 'cookie' : (upstream.text('hash_on') ?? 'none')
  const known = { header: `header:${header}`, cookie: `cookie:${cookie ?? 'session'}`, query_arg: `query:${query}` }
  const hashOn = member<string>({ ...known, consumer: 'consumer', ip: 'ip', none: 'ip' }, on)
  if (policy === 'ring-hash' && hashOn === undefined)
    draft.note(settings, `${upstream.where}.hash_on ${on}: not converted; the address is hashed`)
  const fallback = upstream.text('hash_fallback') ?? 'none'
  upstream.skip('hash_on_uri_capture', 'hash_fallback_header', 'hash_fallback_query_arg', 'hash_on_cookie_path')
  upstream.skip('hash_fallback_uri_capture', 'sticky_sessions_cookie_path', 'hash_on_cookie', 'sticky_sessions_cookie')
  if (fallback !== 'none' && policy === 'ring-hash')
    draft.note(settings, `${upstream.where}.hash_fallback ${fallback}: not converted`)
  // Kong sets the cookie for clients that have none.
  const balance = { policy, hashOn: hashOn ?? 'ip', ...(on === 'cookie' && { cookieTtl: 0 }) }
  return {
    ...(policy !== undefined && { balance: policy === 'ring-hash' ? balance : policy }),
    ...healthOf(upstream.map('healthchecks'))
  }
}
