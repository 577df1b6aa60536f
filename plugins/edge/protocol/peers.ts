import type { IncomingMessage } from 'node:http'
import type { Config } from '../../../config/schema.ts'
import { listenerNameOf } from '../../listener-of.ts'
import { mostHops, settleForwardedFor, trimForwardedFor } from './client-address.ts'
import type { Believed } from './forwarding-headers.ts'
import { believedHeaders, trustedPeers } from './forwarding-headers.ts'

/** Returns the value for the listener of a request. With one listener, nothing of the request is read. */
export function byListener<T>(
  { listeners }: Pick<Config, 'listeners'>,
  make: (listen: Config['listen']) => T
): (request: IncomingMessage) => T {
  const main = make(listeners[0]!)
  if (listeners.length === 1) return () => main
  const values = new Map(listeners.map((listen, index) => [listen.name, index === 0 ? main : make(listen)]))
  // A request that came to a server of somebody else's has the first listener's.
  return (request) => values.get(listenerNameOf(request) ?? '') ?? main
}

interface Rules {
  readonly isTrusted: (address: string) => boolean
  /** Peers of a Unix socket have no address. */
  readonly trustsAll: boolean
  readonly believed: Believed
  /** Headers that Fastify goes by, and the configuration does not. */
  readonly doubted: readonly string[]
}

/** Headers that Fastify's `request.ip`, `host` and `protocol` go by. */
const fastifys = ['x-forwarded-for', 'x-forwarded-host', 'x-forwarded-proto'] as const

/** Which peers are believed, and what. Each listener has rules of its own. */
export class Peers {
  readonly #rulesOf: (request: IncomingMessage) => Rules
  readonly #isSingle: boolean
  /** False if Fastify believes no peer. */
  readonly #believesSome: boolean

  constructor(config: Pick<Config, 'listeners' | 'instructions'>) {
    const { listeners, instructions } = config
    this.#isSingle = listeners.length === 1
    this.#believesSome = listeners.some(({ trustProxy }) => trustProxy.length > 0)
    this.#rulesOf = byListener(config, ({ path, trustProxy, trustHeaders }) => ({
      isTrusted: trustedPeers(trustProxy),
      trustsAll: path !== undefined && trustProxy.includes('unix'),
      believed: believedHeaders({ trustHeaders, instructions }),
      doubted: fastifys.filter((name) => !trustHeaders.includes(name))
    }))
  }

  /** Returns whether a request comes from a peer that its listener trusts. */
  isTrusted(request: IncomingMessage): boolean {
    return isPeerTrusted(this.#rulesOf(request), request)
  }

  /** Returns the headers that are believed of a request's peer, or null. */
  believed(request: IncomingMessage): Believed | null {
    const rules = this.#rulesOf(request)
    return isPeerTrusted(rules, request) ? rules.believed : null
  }

  /**
   * Leaves of a request's forwarding headers what Fastify may believe. To be called before anything asks for `request.ip`,
   * `host` or `protocol`. Fastify trusts the peers of all listeners alike, so that where there are several, nothing may be
   * left that the request's own listener would not trust.
   */
  settle(request: IncomingMessage): void {
    settleForwardedFor(request)
    if (!this.#believesSome) return
    const rules = this.#rulesOf(request)
    const { isTrusted, doubted } = rules
    const { headers } = request
    if (this.#isSingle) {
      for (const name of doubted) if (name !== 'x-forwarded-for') delete headers[name]
      return
    }
    const believes = isPeerTrusted(rules, request)
    for (const name of believes ? doubted : fastifys) delete headers[name]
    if (believes) trimForwardedFor(request, isTrusted)
  }
}

function isPeerTrusted({ isTrusted, trustsAll }: Rules, { socket }: IncomingMessage): boolean {
  return trustsAll || isTrusted(socket.remoteAddress ?? '')
}

/** Returns what Fastify is told of trusted peers: those of any listener whose X-Forwarded-For is believed. */
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
