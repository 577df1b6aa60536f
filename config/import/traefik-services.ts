/** Services of Traefik, which are converted when a router names them. */
import type { Draft } from './draft.ts'
import { goDuration, goMs } from './durations.ts'
import type { Foreign } from './foreign.ts'
import { member } from './foreign.ts'
import { prefixOf } from './patterns.ts'
import { transportOf } from './traefik-transport.ts'
import type { Settings } from './yaml-text.ts'

/** Returns a name without its provider: `app@file` is `app`. */
export const bare = (name: string) => name.split('@', 1)[0]!

interface Share {
  readonly service: string
  readonly weight: number
}

/** Calls of a route: shares of services, with what applies to all of them. */
interface Target {
  readonly shares: readonly Share[]
  readonly mesh: Settings
  readonly stickOn?: string
}

const policies: Readonly<Record<string, Settings | string>> = {
  wrr: 'round-robin',
  p2c: 'least-request',
  hrw: { policy: 'ring-hash', hashOn: 'ip' },
  leasttime: 'peak-ewma'
}

/** Deepest nesting of services within services. */
const deepest = 8

/** Returns the greatest common divisor, by which weights are divided. */
const common = (a: number, b: number): number => (b === 0 ? a : common(b, a % b))

export class Services {
  readonly #given: ReadonlyMap<string, Foreign>
  readonly #transports: ReadonlyMap<string, Foreign>
  readonly #own = new Map<string, string>()
  readonly #draft: Draft
  /** Services that send their own `Host`. */
  readonly ownHosts = new Set<string>()

  constructor(root: Foreign, http: Foreign, draft: Draft) {
    this.#given = new Map(http.named('services'))
    this.#transports = new Map(http.named('serversTransports'))
    this.#draft = draft
    const general = root.map('serversTransport')
    if (general !== undefined) Object.assign(draft.mesh, transportOf(general, 'default', null, draft))
  }

  /** Sets the service or split of a route, with its mirror or fallback. */
  apply(wanted: string, route: Settings): void {
    const { shares, mesh, stickOn } = this.#target(wanted, route, 0)
    if (shares.length === 1) route.service = shares[0]!.service
    else {
      const divisor = shares.reduce((found, { weight }) => common(found, weight), 0) || 1
      route.split = shares.map(({ service, weight }) => ({ service, weight: weight / divisor }))
      if (stickOn !== undefined) route.stickOn = stickOn
    }
    if (Object.keys(mesh).length > 0) route.mesh = mesh
  }

  #target(wanted: string, route: Settings, depth: number): Target {
    const service = depth > deepest ? undefined : this.#given.get(bare(wanted))
    const weighted = service?.map('weighted')
    const mirroring = service?.map('mirroring')
    const failover = service?.map('failover')
    if (weighted !== undefined) return this.#weighted(weighted, route, depth)
    if (mirroring !== undefined) return this.#mirroring(mirroring, route, depth)
    if (failover !== undefined) {
      failover.skip('healthCheck')
      const { shares, mesh } = this.#target(failover.text('service') ?? '', route, depth + 1)
      const [fallback, ...more] = this.#target(failover.text('fallback') ?? '', route, depth + 1).shares
      if (more.length > 0) this.#draft.note(route, `${failover.where}.fallback: only its first service is converted`)
      const statuses = failover.map('errors')?.texts('status') ?? []
      failover.map('errors')?.skip('maxRequestBodyBytes')
      const failures = ['no-instance', 'circuit-open', 'overloaded', 'connect-failure', 'reset', 'timeout']
      const on = statuses.length > 0 && { on: [...new Set([...failures, ...statuses.flatMap(statusesIn)])] }
      return { shares, mesh: { ...mesh, fallback: [{ ...on, service: fallback?.service }] } }
    }
    return { shares: [{ service: this.#of(wanted), weight: 1 }], mesh: {} }
  }

  /** Joins the shares of weighted services within weighted ones. */
  #weighted(weighted: Foreign, route: Settings, depth: number): Target {
    weighted.skip('healthCheck')
    const cookie = weighted.map('sticky')?.map('cookie')
    const name = cookie?.text('name')
    cookie?.skip(...cookie.keys)
    if (weighted.has('sticky'))
      this.#draft.note(route, `${weighted.where}.sticky: the client has to get the cookie from the services`)
    const inner = weighted.maps('services').map((share) => {
      const target = this.#target(share.text('name') ?? '', route, depth + 1)
      if (Object.keys(target.mesh).length > 0)
        this.#draft.note(route, `${share.where}: mirrors and fallbacks of a share: not converted`)
      const sum = target.shares.reduce((total, { weight }) => total + weight, 0)
      return { weight: share.number('weight') ?? 1, shares: target.shares, sum }
    })
    const factor = inner.reduce((product, { sum }) => product * Math.max(1, sum), 1)
    const all = inner.flatMap(({ weight, shares, sum }) =>
      shares.map((each) => ({ ...each, weight: (weight * each.weight * factor) / Math.max(1, sum) }))
    )
    const merged = new Map<string, number>()
    for (const { service, weight } of all) merged.set(service, (merged.get(service) ?? 0) + weight)
    return {
      shares: [...merged].map(([service, weight]) => ({ service, weight })),
      mesh: {},
      ...(weighted.has('sticky') && { stickOn: `cookie:${name ?? 'sticky'}` })
    }
  }

  #mirroring(mirroring: Foreign, route: Settings, depth: number): Target {
    const target = this.#target(mirroring.text('service') ?? '', route, depth + 1)
    const [first, ...others] = mirroring.maps('mirrors')
    const most = mirroring.number('maxBodySize')
    const isBare = mirroring.flag('mirrorBody') === false
    mirroring.skip('healthCheck')
    if (others.length > 0) this.#draft.note(route, `${mirroring.where}.mirrors: only the first is converted`)
    if (first === undefined) return target
    const [copied, ...more] = this.#target(first.text('name') ?? '', route, depth + 1).shares
    if (more.length > 0) this.#draft.note(route, `${first.where}: only its first service is converted`)
    const mirror = {
      service: copied?.service,
      percent: `${first.number('percent') ?? 100}%`,
      ...(isBare ? { maxBody: 0 } : most !== undefined && most >= 0 && { maxBody: `${most}b` })
    }
    return { ...target, mesh: { ...target.mesh, mirror } }
  }

  #of(wanted: string): string {
    const name = bare(wanted)
    const known = this.#own.get(name)
    if (known !== undefined) return known
    const own = this.#draft.name('service', name)
    this.#own.set(name, own)
    const settings: Settings = {}
    this.#draft.services[own] = settings
    const given = this.#given.get(name)
    const balancer = given?.map('loadBalancer')
    if (balancer === undefined) {
      settings.consul = { service: name }
      const text =
        given === undefined
          ? 'is not in this file: it is taken from Consul'
          : 'has no loadBalancer: write its instances'
      this.#draft.note(settings, `service ${wanted} ${text}`)
      return own
    }
    settings.instances = balancer.maps('servers').map((server) => {
      const weight = server.number('weight')
      const url = prefixOf(server.text('url') ?? '')
      // Traefik ignores the path of a server, unless it is told otherwise.
      const address = server.flag('preservePath') === true ? url : (/^\w+:\/\/[^/]+/.exec(url)?.[0] ?? url)
      return weight === undefined ? address : { url: address, weight }
    })
    if (balancer.flag('passHostHeader') === false) this.ownHosts.add(own)
    balancer.skip('responseForwarding')
    const mesh: Settings = { ...this.#transport(balancer, settings), ...healthOf(balancer), ...balanceOf(balancer) }
    if (Object.keys(mesh).length > 0) settings.mesh = mesh
    return own
  }

  #transport(balancer: Foreign, settings: Settings): Settings {
    const wanted = balancer.text('serversTransport')
    if (wanted === undefined) return {}
    const transport = this.#transports.get(bare(wanted))
    if (transport !== undefined) return transportOf(transport, bare(wanted), settings, this.#draft)
    this.#draft.note(settings, `serversTransport ${wanted} is not in this file: write mesh.tls`)
    return {}
  }
}

/** Returns the statuses of errors in a range such as `500-599`, or the one that it is. */
function statusesIn(range: string): (string | number)[] {
  const [first = 0, last = first] = range.split('-', 2).map(Number)
  const least = Math.max(first, 400)
  const all = Array.from({ length: Math.max(0, Math.min(last, 599) - least + 1) }, (_, index) => least + index)
  return first <= 500 && last >= 599 ? [...all.filter((status) => status < 500), '5xx'] : all
}

function healthOf(balancer: Foreign): Settings {
  const check = balancer.map('healthCheck')
  const passive = balancer.map('passiveHealthCheck')
  const timing = (key: string, usual: string) => ({ [key]: goDuration(check?.text(key) ?? usual) })
  const [host, status] = [check?.text('hostname'), check?.number('status')]
  check?.skip('followRedirects', 'unhealthyInterval')
  const failures = passive?.number('maxFailedAttempts') ?? 1
  const window = passive?.text('failureWindow')
  return {
    ...(check !== undefined && {
      healthCheck: {
        path: check.text('path') ?? '/',
        ...timing('interval', '30s'),
        ...timing('timeout', '5s'),
        ...(host !== undefined && { host }),
        statuses: status === undefined ? ['200-399'] : [status],
        healthyThreshold: 1,
        unhealthyThreshold: 1
      }
    }),
    ...(passive !== undefined && {
      outlierDetection: {
        consecutive5xx: failures,
        consecutiveGatewayFailures: failures,
        ...(window !== undefined && goMs(window) !== 0 && { baseEjection: goDuration(window) })
      }
    })
  }
}

function balanceOf(balancer: Foreign): Settings {
  const policy = member(policies, balancer.text('strategy') ?? '')
  if (!balancer.has('sticky')) return policy === undefined ? {} : { balance: policy }
  const cookie = balancer.mapOrEmpty('sticky').map('cookie')
  const age = cookie?.number('maxAge') ?? 0
  const balance = {
    policy: 'ring-hash',
    hashOn: `cookie:${cookie?.text('name') ?? 'sticky'}`,
    cookieTtl: age > 0 ? `${age}s` : 0
  }
  cookie?.skip(...cookie.keys)
  return { balance }
}
