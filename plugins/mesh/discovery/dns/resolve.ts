/** Resolution of a host's A/AAAA records, or a service's SRV records, to instances. */
import { lookup } from 'node:dns/promises'
import { isIP, isIPv6 } from 'node:net'
import type { ServiceConfig } from '../../../../config/schema.ts'
import type { InstanceSpec } from '../../core/types.ts'
import { messageOf } from '../loop.ts'
import type { Server } from './query.ts'
import { query } from './query.ts'
import type { Found, Target } from './records.ts'
import { additionalAddresses, addressesIn, byPriority, scaleWeights, targetsIn } from './records.ts'

export type DnsOptions = NonNullable<ServiceConfig['dns']>
export interface Resolved {
  readonly instances: readonly InstanceSpec[]
  readonly ttl: number
  /** True if the name does not exist (NXDOMAIN), which is no failure. */
  readonly nonexistent: boolean
}
/** TTL in seconds of the system's own lookup (hosts file, search domains), which has none. */
const LOOKUP_TTL = 10

export class Resolver {
  readonly #options: DnsOptions
  readonly #servers: () => readonly Server[]
  readonly #signal: AbortSignal
  /** Last addresses by family and host: they stay in use if the query of one family fails. */
  #kept = new Map<string, Found<string>>()

  constructor(options: DnsOptions, servers: () => readonly Server[], signal: AbortSignal) {
    this.#options = options
    this.#servers = servers
    this.#signal = signal
  }

  async resolve(): Promise<Resolved> {
    const { host, srv, port, tls } = this.#options
    const next = new Map<string, Found<string>>()
    const found = srv ? await this.#services(next) : await this.#host(host, port ?? (tls ? 443 : 80), next)
    this.#kept = next
    const scheme = tls ? 'https' : 'http'
    const instances = found.places.map(({ address, at, weight, name }) => {
      const { origin } = new URL(`${scheme}://${isIPv6(address) ? `[${address}]` : address}:${at}`)
      return { id: origin, origin, weight, tags: [], meta: { 'dns-name': name } }
    })
    // Sort ties as well, so that equal sets do not differ by the order of records.
    instances.sort((a, b) =>
      a.id === b.id ? (a.meta['dns-name'] < b.meta['dns-name'] ? -1 : 1) : a.id < b.id ? -1 : 1
    )
    return { instances: Object.freeze(instances), ttl: found.ttl, nonexistent: found.nonexistent }
  }

  async #host(host: string, port: number, next: Map<string, Found<string>>): Promise<Places> {
    const { records, ttl, nonexistent = false } = await this.#addresses(host, next)
    return { places: records.map((address) => ({ address, at: port, weight: 1, name: host })), ttl, nonexistent }
  }

  /** Returns the addresses of the most preferred group of SRV targets that has any. */
  async #services(next: Map<string, Found<string>>): Promise<Places> {
    const { host } = this.#options
    const reply = await query(host, 'SRV', this.#servers(), this.#signal)
    const targets = targetsIn(reply, host)
    const additional = additionalAddresses(reply)
    let failure: unknown = null
    for (const group of byPriority(targets.records)) {
      const weights = scaleWeights(group.map(({ weight }) => weight))
      const found = await Promise.allSettled(group.map((target) => this.#target(target, additional(target.host), next)))
      const places: Place[] = []
      let { ttl } = targets
      for (const [i, { port, host: name }] of group.entries()) {
        const result = found[i]
        if (result?.status === 'rejected') failure = result.reason
        if (result?.status !== 'fulfilled') continue
        ttl = Math.min(ttl, result.value.ttl)
        for (const address of result.value.records) places.push({ address, at: port, weight: weights[i] ?? 1, name })
      }
      if (places.length > 0) return { places, ttl, nonexistent: false }
    }
    if (failure !== null) throw failure
    return { places: [], ttl: 0, nonexistent: reply.code === 'NXDOMAIN' }
  }

  async #target(target: Target, sent: Found<string>, next: Map<string, Found<string>>): Promise<Found<string>> {
    return sent.records.length > 0 ? sent : this.#addresses(target.host, next)
  }

  async #addresses(host: string, next: Map<string, Found<string>>): Promise<Found<string>> {
    if (isIP(host)) return { records: [host], ttl: Number.POSITIVE_INFINITY }
    const system = this.#options.server === undefined
    // The system resolves names without a dot: hosts file, search domains.
    const local = system && !host.includes('.')
    const own = local ? await this.#lookup(host) : null
    if (own) return own
    try {
      const found = await this.#bothFamilies(host, next)
      if (found.records.length > 0 || !system || local) return found
      return (await this.#lookup(host)) ?? found
    } catch (error) {
      const found = system && !local ? await this.#lookup(host) : null
      if (found) return found
      throw error
    }
  }

  async #bothFamilies(host: string, next: Map<string, Found<string>>): Promise<Found<string>> {
    const families = await Promise.all([this.#family(host, 'A', next), this.#family(host, 'AAAA', next)])
    const records = families.flatMap((family) => family.records)
    const failed = families.find((family) => family.failure !== null)
    // If one family fails, the other's addresses are used; if these are empty, the query has failed.
    if (failed && (records.length === 0 || families.every((family) => family.failure !== null))) throw failed.failure
    const ttl = failed ? 0 : Math.min(...families.map((family) => family.ttl))
    return { records, ttl, nonexistent: families.every((family) => family.nonexistent) }
  }

  async #family(host: string, type: 'A' | 'AAAA', next: Map<string, Found<string>>) {
    const key = `${type} ${host}`
    try {
      const reply = await query(host, type, this.#servers(), this.#signal)
      const found = addressesIn(reply, host, type)
      next.set(key, found)
      return { ...found, nonexistent: reply.code === 'NXDOMAIN', failure: null }
    } catch (error) {
      const kept = this.#kept.get(key) ?? { records: [], ttl: 0 }
      next.set(key, kept)
      return { ...kept, nonexistent: false, failure: new Error(messageOf(error)) }
    }
  }

  /** Looks a name up by the system; null if that fails, or on close, because the lookup itself cannot be cancelled. */
  async #lookup(host: string): Promise<Found<string> | null> {
    const { promise: closed, reject } = Promise.withResolvers<never>()
    const onAbort = () => reject(new Error('closed'))
    this.#signal.addEventListener('abort', onAbort, { once: true })
    try {
      const list = await Promise.race([lookup(host, { all: true }), closed])
      return list.length === 0 ? null : { records: list.map(({ address }) => address), ttl: LOOKUP_TTL }
    } catch {
      return null
    } finally {
      this.#signal.removeEventListener('abort', onAbort)
    }
  }
}

interface Place {
  readonly address: string
  readonly at: number
  readonly weight: number
  readonly name: string
}
interface Places {
  readonly places: readonly Place[]
  readonly ttl: number
  readonly nonexistent: boolean
}
