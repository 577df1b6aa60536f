import type { IncomingMessage } from 'node:http'
import type { Config } from '../../../config/schema.ts'
import { unmapped } from '../../http-syntax.ts'
import { listenerNameOf } from '../../listener-of.ts'
import { canonicalAddress, mostHops, normalizeForwardedFor, trimForwardedFor } from './client-address.ts'
import type { TrustedHeaders } from './forwarding-headers.ts'
import { trustedHeaders, trustedPeers } from './forwarding-headers.ts'

/** Returns a function that returns the value of a request's listener. With one listener, it does not read the request. */
export function byListener<T>(
  { listeners }: Pick<Config, 'listeners'>,
  make: (listen: Config['listen']) => T
): (request: IncomingMessage) => T {
  const main = make(listeners[0]!)
  if (listeners.length === 1) return () => main
  const values = new Map(listeners.map((listen, index) => [listen.name, index === 0 ? main : make(listen)]))
  return (request) => {
    const value = values.get(listenerNameOf(request) ?? '')
    // A request to an embedding server gets the value of the first listener; null is a value of the listener's own.
    return value === undefined ? main : value
  }
}

interface Rules {
  readonly isTrusted: (address: string) => boolean
  /** True if all peers are trusted: those at a Unix socket have no address. */
  readonly trustsAll: boolean
  readonly trustedHeaders: TrustedHeaders
  /** Headers that Fastify uses, but `trustHeaders` does not have. */
  readonly untrusted: readonly string[]
}

/** Headers from which Fastify takes `request.ip`, `host` and `protocol`. */
const fastifyHeaders = ['x-forwarded-for', 'x-forwarded-host', 'x-forwarded-proto'] as const

/** Trust rules for peers, by listener: which peers are trusted, and for which headers. */
export class Peers {
  readonly #rulesOf: (request: IncomingMessage) => Rules
  readonly #isSingle: boolean
  /** False if no listener trusts a peer. */
  readonly #trustsSome: boolean

  constructor(config: Pick<Config, 'listeners' | 'instructions'>) {
    const { listeners, instructions } = config
    this.#isSingle = listeners.length === 1
    this.#trustsSome = listeners.some(({ trustProxy }) => trustProxy.length > 0)
    this.#rulesOf = byListener(config, ({ path, trustProxy, trustHeaders }) => ({
      isTrusted: trustedPeers(trustProxy),
      trustsAll: path !== undefined && trustProxy.includes('unix'),
      trustedHeaders: trustedHeaders({ trustHeaders, instructions }),
      untrusted: fastifyHeaders.filter((name) => !trustHeaders.includes(name))
    }))
  }

  /** Returns whether a request comes from a peer that its listener trusts. */
  isTrusted(request: IncomingMessage): boolean {
    return isPeerTrusted(this.#rulesOf(request), request)
  }

  /** Returns the headers that are accepted from a request's peer; null if the peer is not trusted. */
  trustedHeadersOf(request: IncomingMessage): TrustedHeaders | null {
    const rules = this.#rulesOf(request)
    return isPeerTrusted(rules, request) ? rules.trustedHeaders : null
  }

  /** Returns the client's address before the router runs: the same as `request.ip` later. '' at a Unix socket. */
  addressOf(request: IncomingMessage): string {
    const peer = unmapped(request.socket.remoteAddress) ?? ''
    if (!this.#trustsSome) return peer
    const rules = this.#rulesOf(request)
    const value = request.headers['x-forwarded-for']
    if (value === undefined || rules.untrusted.includes('x-forwarded-for') || !isPeerTrusted(rules, request))
      return peer
    const entries = String(value).split(',').slice(-mostHops)
    let address = peer
    for (let at = entries.length - 1; at >= 0; at--) {
      const entry = canonicalAddress(entries[at]!.trim())
      if (entry === '') continue
      address = entry
      if (!rules.isTrusted(entry)) break
    }
    return address
  }

  /**
   * Removes the forwarding headers that Fastify must not use. Call it before any code reads `request.ip`, `host` or
   * `protocol`. Fastify trusts the peers of all listeners, so with several listeners, headers that the request's own
   * listener does not trust must be removed.
   */
  removeUntrusted(request: IncomingMessage): void {
    normalizeForwardedFor(request)
    if (!this.#trustsSome) return
    const rules = this.#rulesOf(request)
    const { isTrusted, untrusted } = rules
    const { headers } = request
    if (this.#isSingle) {
      for (const name of untrusted) if (name !== 'x-forwarded-for') delete headers[name]
      return
    }
    const isFromTrusted = isPeerTrusted(rules, request)
    for (const name of isFromTrusted ? untrusted : fastifyHeaders) delete headers[name]
    if (isFromTrusted) trimForwardedFor(request, isTrusted)
  }
}

function isPeerTrusted({ isTrusted, trustsAll }: Rules, { socket }: IncomingMessage): boolean {
  return trustsAll || isTrusted(socket.remoteAddress ?? '')
}

/** Returns Fastify's `trustProxy`: trusts the peers of all listeners that trust X-Forwarded-For. */
export function trustedHops({
  listeners
}: Pick<Config, 'listeners'>): ((address: string | undefined, hop: number) => boolean) | false {
  const believing = listeners.filter(({ trustHeaders }) => trustHeaders.includes('x-forwarded-for'))
  const ranges = (listeners.length === 1 ? believing : listeners).flatMap(({ trustProxy }) => trustProxy)
  if (ranges.length === 0) return false
  const isTrusted = trustedPeers([...new Set(ranges)])
  const trustsUnix = listeners.some(({ path, trustProxy }) => path !== undefined && trustProxy.includes('unix'))
  return (address: string | undefined, hop: number) => {
    if (address === undefined) return hop === 0 && trustsUnix
    return hop < mostHops && isTrusted(address)
  }
}
