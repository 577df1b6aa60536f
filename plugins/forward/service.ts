/** A service without the mesh: its addresses, and the agent that calls them. */
import { readFileSync } from 'node:fs'
import type { Dispatcher } from 'undici'
import type { ForwardPolicy } from '../../config/schema/forward.ts'
import type { ServiceConfig } from '../../config/schema.ts'
import { belowBase, hostsOf, relocated } from '../base-path.ts'
import { fieldOf, headerPairs, withValue } from '../http-syntax.ts'
import type { ServiceStatus } from '../seam.ts'
import type { SpanRecorder } from '../spans.ts'
import { AttemptSpan, isSampled, parseTraceparent, traceparentOf } from '../spans.ts'
import { agentClass, buildConnector, failCall } from '../undici.ts'
import type { CallPolicy, Relocate } from './call.ts'
import { ForwardCall } from './call.ts'
import { ForwardError } from './errors.ts'
import type { Metrics } from './metrics.ts'
import { outcomeOf } from './metrics.ts'

/** Time for which an address is called only if there is no other, after no connection to it could be made. */
const restMs = 1000

/** Time after which an idle connection is closed, unless the service sends one (`Keep-Alive: timeout`). */
const keepAliveMs = 4000

const none: Readonly<Record<string, string>> = {}

interface Address {
  readonly origin: string
  active: number
  /** Time until which the address is a last resort, on the service's clock. */
  restsUntilMs: number
  /** Code of the last failure to connect; null after a connection. */
  failure: string | null
}

/** Addresses and settings of a service, and the contents of its PEM files. */
interface ForwardedConfig {
  readonly name: string
  readonly kind: 'sidecar' | 'instances'
  readonly origins: readonly string[]
  /** `Host` of all requests; null for that of the request. */
  readonly host: string | null
  /** Path before that of every call; empty if there is none. */
  readonly basePath: string
  readonly policy: ForwardPolicy
  readonly pem: Readonly<Record<string, string>>
}

/** Returns the addresses and settings of a service. Throws an error that names the service if a PEM file cannot be read. */
export function forwardedConfig({ name, sidecar, instances, basePath = '', forward }: ServiceConfig): ForwardedConfig {
  const policy = forward!
  const shared = sidecar === undefined && instances === undefined ? policy.sidecar : undefined
  const urls = instances?.map((instance) => (typeof instance === 'string' ? instance : instance.url))
  const template = policy.host ?? (shared === undefined ? null : '{service}')
  return {
    name,
    kind: urls === undefined ? 'sidecar' : 'instances',
    origins: (urls ?? [sidecar ?? shared!]).map((url) => new URL(url).origin),
    host: template?.replaceAll('{service}', name) ?? null,
    basePath,
    policy,
    pem: pemOf(name, policy)
  }
}

function pemOf(name: string, { tls = {} }: ForwardPolicy): Record<string, string> {
  const { serverName: _name, ...files } = tls
  const read = ([key, file]: [string, string]): [string, string] => {
    try {
      return [key, readFileSync(file, 'utf8')]
    } catch (cause) {
      throw new Error(`service ${name}: forward.tls.${key}: ${(cause as Error).message}`, { cause })
    }
  }
  return Object.fromEntries(Object.entries(files).map(read))
}

/** Returns a connector whose server name is that of the settings or the address, and never the client's `Host`. */
function connectorOf({ policy, pem }: ForwardedConfig): ReturnType<typeof buildConnector> {
  const { serverName } = policy.tls ?? {}
  const connect = buildConnector({
    allowH2: false,
    timeout: policy.connectTimeout,
    ...pem,
    ...(serverName !== undefined && { servername: serverName })
  })
  return ({ servername: _ofCall, ...options }, done) => connect(options, done)
}

export class ForwardedService {
  readonly config: ForwardedConfig
  readonly ready = Promise.resolve()
  active = 0
  readonly #addresses: readonly Address[]
  readonly #agent: Dispatcher
  readonly #metrics: Metrics
  readonly #now: () => number
  readonly #startedAt = new Date().toISOString()
  #next = 0

  constructor(config: ForwardedConfig, metrics: Metrics, now: () => number) {
    this.config = config
    this.#now = now
    this.#metrics = metrics
    this.#addresses = config.origins.map((origin) => ({ origin, active: 0, restsUntilMs: 0, failure: null }))
    const { policy } = config
    const Agent = agentClass()
    this.#agent = new Agent({
      allowH2: false,
      connections: null,
      pipelining: 1,
      maxHeaderSize: policy.maxHeaderSize,
      keepAliveTimeout: keepAliveMs,
      connect: connectorOf(config)
    })
  }

  get instances(): readonly string[] {
    return this.config.origins
  }

  dispatch(
    given: Dispatcher.DispatchOptions,
    handler: Dispatcher.DispatchHandler,
    spanRecorder: SpanRecorder | null
  ): boolean {
    const { name, host, basePath, policy } = this.config
    if (this.active >= policy.maxRequests) {
      this.#metrics.count('overloaded')
      failCall(handler, new ForwardError('JW_OVERLOADED', name, { reason: 'overload_requests' }))
      return true
    }
    const own = { ...policy, ...(given.mesh as Partial<CallPolicy> | undefined) }
    const address = this.#pick()
    const { span, opts } = traced(spanRecorder, given, name, address.origin)
    const headers = headersOf(opts, host)
    const relocate = basePath === '' ? null : removing(basePath, headers, address.origin)
    const startedMs = this.#now()
    this.active++
    address.active++
    const call = new ForwardCall(name, address.origin, handler, own, relocate, (outcome) => {
      this.active--
      address.active--
      span?.end(outcome)
      this.#metrics.count(outcomeOf(outcome, call.wasAborted))
      this.#metrics.observe((this.#now() - startedMs) / 1000)
      if (call.sent) address.failure = null
      else if (outcome instanceof Error && !call.wasAborted) this.#rest(address, outcome)
    })
    if (!call.begin()) return true
    const request = {
      ...opts,
      origin: address.origin,
      // By default, undici derives it from `Host`, and connects anew whenever it changes.
      servername: name,
      headers,
      ...(basePath !== '' && { path: belowBase(basePath, opts.path) }),
      headersTimeout: 0,
      bodyTimeout: own.idleTimeout === false ? 0 : own.idleTimeout
    }
    return this.#agent.dispatch(request, call)
  }

  /** Returns the addresses in turn, without those to which no connection could be made lately. */
  #pick(): Address {
    const addresses = this.#addresses
    const { length } = addresses
    const first = this.#next++ % length
    if (length === 1) return addresses[0]!
    const nowMs = this.#now()
    for (let i = 0; i < length; i++) {
      const address = addresses[(first + i) % length]!
      if (address.restsUntilMs <= nowMs) return address
    }
    return addresses[first]!
  }

  #rest(address: Address, { code, name }: Error & { code?: unknown }): void {
    address.restsUntilMs = this.#now() + restMs
    address.failure = typeof code === 'string' ? code : name
  }

  /** The source of the addresses, which never changes. */
  get source() {
    return { kind: this.config.kind, confirmedAt: this.#startedAt, error: null }
  }

  /** Returns the state of the service for the admin API. */
  status(): ServiceStatus {
    const nowMs = this.#now()
    return {
      name: this.config.name,
      source: this.source,
      active: this.active,
      panic: false,
      concerns: {},
      instances: this.#addresses.map(({ origin, active, restsUntilMs, failure }) => ({
        id: origin,
        origin,
        weight: 1,
        active,
        available: restsUntilMs <= nowMs,
        obstacles: restsUntilMs <= nowMs ? none : { connect: `no connection (${failure})` },
        concerns: {}
      }))
    }
  }

  /** Waits for the calls in flight, then closes the connections. After the grace period, the calls are aborted. */
  async end(graceMs: number): Promise<void> {
    const timer = setTimeout(() => void this.#agent.destroy(), graceMs)
    await this.#agent.close().catch(() => {})
    clearTimeout(timer)
  }
}

/** Begins the span of a call whose caller has one, and tells the service of it. */
function traced(spanRecorder: SpanRecorder | null, opts: Dispatcher.DispatchOptions, service: string, origin: string) {
  const { trace, method, path } = opts
  if (spanRecorder === null || trace === undefined) return { span: null, opts }
  const pairs = headerPairs(opts.headers)
  const parent = parseTraceparent(fieldOf(pairs, 'traceparent')) ?? trace
  if (!isSampled(parent)) return { span: null, opts }
  const span = new AttemptSpan(spanRecorder, parent, { method, path, service, origin, resends: 0 })
  return { span, opts: { ...opts, headers: withValue(pairs, 'traceparent', traceparentOf(span)) } }
}

/** Returns the function that removes a base path from the locations in a response. */
function removing(basePath: string, headers: Dispatcher.DispatchOptions['headers'], origin: string): Relocate {
  const hosts = () => hostsOf(headerPairs(headers), origin)
  return (fields, raw) => relocated(fields, raw, basePath, hosts)
}

/** Returns the headers of a request with the `Host` of the service, and without `Trailer`: undici sends no trailers. */
function headersOf(
  { headers, trailers }: Dispatcher.DispatchOptions,
  host: string | null
): Dispatcher.DispatchOptions['headers'] {
  if (host === null && trailers === undefined) return headers
  const pairs = headerPairs(headers)
  const others = pairs.filter((_, index) => {
    const name = pairs[index - (index % 2)]!.toLowerCase()
    return name !== 'trailer' && (host === null || name !== 'host')
  })
  return host === null ? others : ['host', host, ...others]
}
