/** Connections to services' instances: mode, credentials, the expected identity of the peer, and intentions. */
import type http from 'node:http'
import type { MeshPolicy, ServiceConfig } from '../../../config/schema.ts'
import type { MeshDeps, Source } from '../core/types.ts'
import type { Get } from '../discovery/consul-get.ts'
import { createGet } from '../discovery/consul-get.ts'
import type { ConsulOptions } from '../discovery/consul-options.ts'
import { createAgent } from '../discovery/consul-query.ts'
import type { Open } from '../http/pool.ts'
import type { Security } from './connector.ts'
import { ServiceConnector } from './connector.ts'
import type { CredentialSource } from './credentials.ts'
import { Callers } from './identity/callers.ts'
import { ConnectIdentity } from './identity/connect.ts'
import { gated } from './identity/gated.ts'
import type { Permission } from './identity/intentions.ts'
import { Intentions } from './identity/intentions.ts'
import { speaksFor } from './identity/spiffe.ts'
import { InboundService } from './inbound.ts'
import { anyOf } from './names.ts'
import type { UpstreamTlsOptions } from './options.ts'
import { TlsFiles } from './tls-files.ts'

/** Connections of one service. */
export interface Transport {
  to(origin: string): Open
  /** Wraps a source so that it publishes no instances until the gateway has a client certificate. */
  gate(source: Source): Source
  /** Permission by Consul's intentions to call the service; null if they are disabled. */
  readonly permission: Permission | null
  /** Returns the state for the admin API; null for plain connections. */
  status(): object | null
  /** Closes files and identities that no other service uses. */
  close(): Promise<void>
}

interface Watched {
  start(): void
  close(): void | Promise<void>
}
/**
 * User of shared files and identities. After a reload, two services of one name exist until the old one's calls have
 * ended.
 */
interface User {
  /** Service that is called; null for a listener. */
  readonly service: string | null
}
/** Files or an identity that several services use. */
interface Shared<T> {
  readonly thing: T
  readonly users: Set<User>
  started: boolean
}
/** Certificate that the gateway shows to a service. */
interface Shown {
  readonly service: string
  readonly source: CredentialSource
}

/** Creates the transports of a mesh's services; files and identities that several of them use are watched once. */
export class Transports {
  readonly #consul: ConsulOptions | undefined
  readonly #deps: MeshDeps
  readonly #shared = new Map<string, Shared<Watched>>()
  readonly #shown = new Set<Shown>()
  #agent: http.Agent | null = null
  #reloads: ((service: string, outcome: string, by?: number) => void) | null = null

  constructor(consul: ConsulOptions | undefined, deps: MeshDeps) {
    this.#consul = consul
    this.#deps = deps
  }

  of(service: ServiceConfig): Transport {
    const { name, mesh } = service
    const { mode = 'direct' } = mesh
    const user: User = { service: name }
    if (mode === 'sidecar' && service.sidecar === undefined) {
      throw new Error(`service ${name}: mode sidecar needs \`sidecar\`, the URL of its local listener`)
    }
    const identity = mode === 'connect' ? this.#identity(service, user) : null
    const files = identity === null && mesh.tls ? this.#files(mesh.tls, user) : null
    const security = identity !== null ? this.#connect(service, identity) : files && byName(name, mesh.tls || {}, files)
    const connector = new ServiceConnector(name, mesh, security, this.#deps)
    const permission = this.#permission(service, user)
    const shown = security === null ? null : this.#measure(name, security.source)
    return {
      to: (origin) => connector.to(origin),
      gate: (source) => (identity === null ? source : gated(source, identity)),
      permission,
      status: () => {
        if (mode === 'direct' && security === null && permission === null) return null
        const expiresAt = security?.source.credentials?.expiresAt ?? null
        return {
          mode,
          ...(expiresAt !== null && { certificateExpires: new Date(expiresAt * 1000).toISOString() }),
          ...(files && { error: files.error }),
          ...identity?.status(),
          ...(permission && { intention: permission.verdict })
        }
      },
      close: async () => {
        if (shown !== null) this.#shown.delete(shown)
        await this.#leave(user)
      }
    }
  }

  /** Accepts calls as a service. Throws without Consul. */
  inbound(service: string): InboundService {
    const user: User = { service: null }
    const { consul, get } = this.#consulFor(`listen.connect for ${service}`)
    const identity = this.#shareIdentity(service, consul, get, user)
    const callers = this.#share(`callers ${service}`, user, () => new Callers(service, get, consul, this.#deps))
    return new InboundService(service, identity, callers, () => this.#leave(user))
  }

  /** Starts the files and identities that have not been started. */
  start(): void {
    for (const shared of this.#shared.values()) {
      if (!shared.started) shared.thing.start()
      shared.started = true
    }
  }

  async close(): Promise<void> {
    const things = [...this.#shared.values()].map(({ thing }) => thing)
    this.#shared.clear()
    await Promise.all(things.map((thing) => thing.close()))
    this.#agent?.destroy()
  }

  async #leave(user: User): Promise<void> {
    const unused: Watched[] = []
    for (const [id, { users, thing }] of this.#shared) {
      if (!users.delete(user) || users.size > 0) continue
      this.#shared.delete(id)
      unused.push(thing)
    }
    await Promise.all(unused.map((thing) => thing.close()))
  }

  #files(tls: UpstreamTlsOptions, user: User): TlsFiles {
    const { ca, cert, key, minVersion } = tls
    const id = JSON.stringify(['files', ca, cert, key, minVersion])
    return this.#share(id, user, (onReload) => new TlsFiles(tls, this.#deps.log, onReload))
  }

  #identity({ name, mesh }: ServiceConfig, user: User): ConnectIdentity {
    const { own, consul, get } = this.#asGateway(name, mesh, 'mode connect')
    return this.#shareIdentity(own, consul, get, user)
  }

  #shareIdentity(own: string, consul: ConsulOptions, get: Get, user: User): ConnectIdentity {
    return this.#share(`identity ${own}`, user, (onSwap) => new ConnectIdentity(own, get, consul, this.#deps, onSwap))
  }

  #connect(service: ServiceConfig, identity: ConnectIdentity): Security {
    const { name, consul } = service
    const { datacenter = null, namespace = 'default' } = this.#consul ?? {}
    const target = () => ({
      service: consul?.service ?? name,
      namespace,
      trustDomain: identity.trustDomain,
      datacenters: [consul?.datacenter ?? datacenter ?? identity.datacenter, ...(consul?.failover ?? [])]
    })
    return {
      source: identity,
      identify: speaksFor(name, target),
      // SNI in the format of Consul's own proxies; mesh gateways route by it.
      serverName: () => {
        const { service, trustDomain, datacenters } = target()
        return `${service}.${namespace}.${datacenters[0]}.internal.${trustDomain}`
      },
      always: true
    }
  }

  #permission({ name, consul, mesh }: ServiceConfig, user: User): Permission | null {
    const { mode, intentions } = mesh
    if (intentions === false || (intentions === undefined && mode !== 'connect')) return null
    const { own, consul: options, get } = this.#asGateway(name, mesh, 'intentions')
    const known = this.#share(`intentions ${own}`, user, () => new Intentions(own, get, options, this.#deps))
    return known.to(consul?.service ?? name)
  }

  #asGateway(
    service: string,
    { identity }: MeshPolicy,
    what: string
  ): { own: string; consul: ConsulOptions; get: Get } {
    if (identity === undefined) throw new Error(`service ${service}: ${what} needs \`mesh.identity.service\``)
    return { own: identity.service, ...this.#consulFor(`service ${service}: ${what}`) }
  }

  #consulFor(what: string): { consul: ConsulOptions; get: Get } {
    if (this.#consul === undefined) throw new Error(`${what} needs \`discovery.consul\``)
    this.#agent ??= createAgent(this.#consul)
    return { consul: this.#consul, get: createGet(this.#consul, this.#agent) }
  }

  #share<T extends Watched>(id: string, user: User, make: (onReload: (outcome: string) => void) => T): T {
    const users = new Set<User>()
    const reloaded = (outcome: string) => {
      const services = new Set(Array.from(users, (each) => each.service))
      for (const service of services) if (service !== null) this.#reloads?.(service, outcome)
    }
    const shared = this.#shared.get(id) ?? { thing: make(reloaded), users, started: false }
    this.#shared.set(id, shared)
    shared.users.add(user)
    return shared.thing as T
  }

  #measure(service: string, source: CredentialSource): Shown | null {
    const { meter } = this.#deps
    if (meter === null) return null
    if (this.#reloads === null) {
      const counter = meter.counter({
        name: 'jingwei_mesh_certificate_reloads_total',
        help: 'Reloads of changed certificates, by whether they can be used.',
        labelNames: ['service', 'outcome']
      })
      this.#reloads = (each, outcome, by) => counter.labels(each, outcome).inc(by)
      meter.gauge({
        name: 'jingwei_mesh_certificate_expiry_timestamp_seconds',
        help: 'Time at which the certificate that the gateway shows to the service expires.',
        labelNames: ['service'],
        collect: (set) => {
          for (const { service: each, source } of this.#shown) {
            const expiresAt = source.credentials?.expiresAt ?? null
            if (expiresAt !== null) set({ service: each }, expiresAt)
          }
        }
      })
      meter.gauge({
        name: 'jingwei_mesh_certificate_not_before_timestamp_seconds',
        help: 'Time from which the certificate that the gateway shows to the service is valid.',
        labelNames: ['service'],
        collect: (set) => {
          for (const { service: each, source } of this.#shown) {
            const validFrom = source.credentials?.validFrom ?? null
            if (validFrom !== null) set({ service: each }, validFrom)
          }
        }
      })
    }
    for (const outcome of ['success', 'failure']) this.#reloads(service, outcome, 0)
    const shown = { service, source }
    this.#shown.add(shown)
    return shown
  }
}

function byName(service: string, { serverName, san }: Partial<UpstreamTlsOptions>, source: CredentialSource): Security {
  return {
    source,
    serverName: () => serverName,
    identify: san === undefined ? undefined : anyOf(service, san),
    always: false
  }
}
