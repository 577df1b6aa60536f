/**
 * Requests as the cache sees them: as the service gets them, after all concerns. Two requests share a response only if they
 * are equal in all that the service sees, but for a list of harmless headers. A list of dangerous ones would never be complete: a
 * service may read the host from `X-Forwarded-Server`, the path from `X-Original-URL` or the tenant from `X-Tenant`.
 */
import { hash } from 'node:crypto'
import type { FastifyRequest } from 'fastify'
import type { Dispatcher } from 'undici'
import type { RouteConfig } from '../../../../config/schema.ts'
import { claimsOf } from '../../claims.ts'
import type { Directives } from './directives.ts'
import { directivesOf } from './directives.ts'
import type { CacheOptions } from './options.ts'
import { digestedQuery } from './query.ts'
import type { SplitKey } from './split.ts'
import { splitKey } from './split.ts'

/**
 * Headers on which responses depend only as `Vary` says: those by which clients negotiate (RFC 9110, 12.5) and describe
 * themselves, the conditions and directives that the cache obeys, fields of the connection, and identifiers of tracing.
 */
const harmless = [
  'accept', 'accept-charset', 'accept-encoding', 'accept-language', 'user-agent', 'referer', 'from', 'dnt', 'sec-gpc', 'save-data',
  'priority', 'upgrade-insecure-requests', 'date', 'te', 'connection', 'content-length', 'max-forwards', 'via',
  'cache-control', 'pragma', 'range', 'if-range', 'if-match', 'if-none-match', 'if-modified-since', 'if-unmodified-since',
  'sec-fetch-dest', 'sec-fetch-mode', 'sec-fetch-site', 'sec-fetch-user', 'sec-purpose',
  'sec-ch-ua', 'sec-ch-ua-arch', 'sec-ch-ua-bitness', 'sec-ch-ua-full-version', 'sec-ch-ua-full-version-list', 'sec-ch-ua-mobile',
  'sec-ch-ua-model', 'sec-ch-ua-platform', 'sec-ch-ua-platform-version', 'sec-ch-ua-wow64', 'sec-ch-prefers-color-scheme',
  'x-forwarded-for', 'x-real-ip', 'x-request-id', 'x-correlation-id',
  'traceparent', 'tracestate', 'baggage', 'b3', 'x-b3-traceid', 'x-b3-spanid', 'x-b3-parentspanid', 'x-b3-sampled', 'x-b3-flags',
  'uber-trace-id', 'x-amzn-trace-id', 'x-cloud-trace-context', 'sentry-trace'
] // biome-ignore format: a list

/** Headers that identify callers, on which the rules for credentials decide. */
const credentials: ReadonlySet<string> = new Set(['authorization', 'cookie'])

/** Headers by which frameworks turn a GET into another method. Such a request is never answered from the cache. */
const methodOverrides: ReadonlySet<string> = new Set(['x-http-method-override', 'x-http-method', 'x-method-override'])

/** A GET or HEAD request that the cache may answer. */
export interface Asked {
  readonly opts: Dispatcher.DispatchOptions
  readonly isHead: boolean
  /** Header section for the service, by name in lower case; several values are joined. */
  readonly headers: ReadonlyMap<string, string>
  /** Names of the headers whose values are a part of both keys. */
  readonly keyed: ReadonlySet<string>
  readonly directives: Directives
  /** URI as the service sees it, for invalidation: a digest. */
  readonly resource: string
  /** Path and query, as the client and as the service see them, for purges. */
  readonly url: string
  readonly path: string
  readonly host: string
  /** Key of responses that are the same for all callers. */
  readonly publicKey: string
  /** Key of other responses. */
  readonly ownKey: string
  /** True if the request identifies its caller, and the options give callers no responses of their own. */
  readonly isPersonal: boolean
}

/** Rules by which the requests of a route are read. */
export class Reader {
  readonly #ignored: ReadonlySet<string>
  readonly #scope: string
  readonly #path: (path: string) => string
  readonly #byConsumer: boolean
  readonly #obeys: boolean
  readonly #split: SplitKey

  /** `perRequest`: headers to which the gateway gives a new value for each request. */
  constructor(options: CacheOptions, route: RouteConfig, perRequest: readonly string[]) {
    const { key = {}, requestDirectives } = options
    const lower = (names: readonly string[] = []) => names.map((name) => name.toLowerCase())
    const ignored = new Set([...harmless, ...lower(perRequest), ...lower(key.ignoreHeaders)])
    this.#split = splitKey(route)
    for (const name of [...lower(key.headers), ...this.#split.headers, ...credentials]) ignored.delete(name)
    this.#ignored = ignored
    // A reload that changes these begins anew.
    this.#scope = digest(JSON.stringify([route.name, route.service, route.mesh, options]))
    this.#path = digestedQuery(key)
    this.#byConsumer = key.consumer === true
    this.#obeys = requestDirectives !== 'ignore'
  }

  /** Reads a request; null if the cache must not answer it. */
  read(opts: Dispatcher.DispatchOptions): Asked | null {
    const request = opts.request as FastifyRequest
    const { method, path, body } = opts
    const pairs = opts.headers as readonly string[]
    if ((method !== 'GET' && method !== 'HEAD') || body !== null || opts.upgrade) return null
    const headers = new Map<string, string>()
    const own = pairs.length - (request.upstreamHeaders?.length ?? 0)
    const distinguishing = new Set<string>()
    let ofCaller = ''
    let isPersonal = request.consumer !== null || isKnown(claimsOf(request))
    for (let at = 0; at < pairs.length; at += 2) {
      const name = pairs[at]!.toLowerCase()
      const value = pairs[at + 1]!
      const before = headers.get(name)
      headers.set(name, before === undefined ? value : `${before}, ${value}`)
      if (methodOverrides.has(name)) return null
      if (credentials.has(name)) isPersonal = true
      // Headers of concerns may be made from the client's, so they are in both keys; options may take one out of the public key.
      if (at >= own || credentials.has(name)) ofCaller += encode(name) + encode(value)
      if (!credentials.has(name) && !this.#ignored.has(name)) distinguishing.add(name)
    }
    let text = encode(this.#scope) + encode(this.#path(path)) + this.#split.values(request).map(encode).join('')
    // Sorted, because clients send them in any order.
    for (const name of [...distinguishing].sort()) text += encode(name) + encode(comparable(name, headers.get(name)!))
    if (headers.has('if-match') || headers.has('if-unmodified-since')) return null
    const publicKey = digest(text)
    const caller = this.#byConsumer && isPersonal ? encode(request.consumer?.id ?? '') : ''
    return {
      opts,
      isHead: method === 'HEAD',
      headers,
      keyed: distinguishing,
      directives: this.#obeys ? requestDirectives(headers) : onlyIfCached(headers),
      resource: resourceOf(request, headers, path),
      url: request.raw.url!,
      path,
      host: hostOf(headers),
      publicKey,
      ownKey: ofCaller === '' && caller === '' ? publicKey : digest(`${text}|${caller}${ofCaller}`),
      isPersonal: isPersonal && !(this.#byConsumer && request.consumer !== null)
    }
  }
}

const isKnown = (claims: unknown) => claims !== null && claims !== undefined

/** Returns the host that the service sees, or that it may learn from the gateway. */
const hostOf = (headers: ReadonlyMap<string, string>): string =>
  (headers.get('x-forwarded-host') ?? headers.get('host') ?? '').toLowerCase()

/** Returns the digest of a URI, as the service sees it. */
export function resourceOf(request: FastifyRequest, headers: ReadonlyMap<string, string>, path: string): string {
  return digest(encode(request.protocol) + encode(hostOf(headers)) + encode(path))
}

/** `Pragma: no-cache` counts where there is no Cache-Control (RFC 9111, 5.4). */
function requestDirectives(headers: ReadonlyMap<string, string>): Directives {
  const value = headers.get('cache-control')
  if (value === undefined && headers.get('pragma')?.toLowerCase().includes('no-cache')) return noCache
  return directivesOf(value)
}

const noCache: Directives = new Map([['no-cache', null]])

function onlyIfCached(headers: ReadonlyMap<string, string>): Directives {
  const directives = directivesOf(headers.get('cache-control'))
  return new Map(directives.has('only-if-cached') ? [['only-if-cached', null]] : [])
}

function comparable(name: string, value: string): string {
  if (name === 'host' || name === 'x-forwarded-host') return value.toLowerCase()
  return name === 'forwarded' ? withoutClients(value) : normalized(name, value)
}

/** Headers in whose values case makes no difference (RFC 9110, 8.3.2, 8.4.1 and 8.5.1). */
const caseless: ReadonlySet<string> = new Set(['accept-charset', 'accept-encoding', 'accept-language'])

/** Removes what makes no difference (RFC 9111, 4.1): spaces around the commas of a list, and case where it has no meaning. */
export function normalized(name: string, value: string): string {
  const text = caseless.has(name) ? value.toLowerCase() : value
  return text.includes(',') && !text.includes('"') ? text.split(',').map((each) => each.trim()).join(',') : text // biome-ignore format: one line
}

/** Returns the parameters of `Forwarded` that locate the resource; the others identify clients and proxies. */
const withoutClients = (value: string): string =>
  value
    .split(/[;,]/)
    .filter((each) => !/^\s*(?:for|by)=/i.test(each))
    .join(';')

export const digest = (text: string): string => hash('sha256', text, 'base64url')

/** Encodes a value with its length, so that two values never look like one. */
export const encode = (text: string): string => `;${text.length}:${text}`
