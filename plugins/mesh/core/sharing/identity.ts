import { lowerCasePairs } from '../request-fields.ts'
import type { DispatchOptions } from '../types.ts'

/**
 * Headers on which responses do not depend: identifiers of one request, written by tracing libraries, and connection
 * headers. All others distinguish requests. A list of distinguishing headers would never be complete: a service may
 * authenticate by `X-Api-Key`, choose the tenant by `X-Tenant` or the layout by `User-Agent`, and need not list them in
 * `Vary`. `baggage` is missing because it carries application data.
 */
const harmless = [
  'connection', 'keep-alive', 'proxy-connection',
  'traceparent', 'tracestate', 'b3', 'x-b3-traceid', 'x-b3-spanid', 'x-b3-parentspanid', 'x-b3-sampled',
  'uber-trace-id', 'x-amzn-trace-id', 'x-cloud-trace-context', 'x-request-id', 'x-correlation-id'
] // biome-ignore format: a list

/** Headers that cannot be excluded: credentials, the resource, a part of it, and conditions. */
const essential = new Set([
  'host', 'authorization', 'proxy-authorization', 'cookie', 'range', 'if-match', 'if-none-match',
  'if-modified-since', 'if-unmodified-since', 'if-range'
]) // biome-ignore format: a list

/** Headers by which frameworks turn a GET into another method. Such a request is not safe and is never shared. */
const methodOverrides = new Set(['x-http-method-override', 'x-http-method', 'x-method-override'])

interface IdentityOptions {
  /** Headers that distinguish requests although they are on the list of harmless ones. */
  readonly headers?: readonly string[]
  /** Headers to ignore besides the list of harmless ones. */
  readonly excludeHeaders: readonly string[]
  /** Headers with a new value for each request: the gateway's own request id. */
  readonly perRequest?: readonly string[]
}

export interface Identity {
  /** Names in lower case. */
  readonly ignored: ReadonlySet<string>
  /**
   * Returns the same text for requests that may share a response, whatever their method; null for a request that must
   * not share one.
   */
  readonly of: (opts: DispatchOptions) => string | null
}

/**
 * Builds the comparison of requests: they are identical if target, consumer and all headers but the ignored ones are.
 */
export function identityOf({ headers = [], excludeHeaders, perRequest = [] }: IdentityOptions): Identity {
  const lower = (names: readonly string[]) => names.map((name) => name.toLowerCase())
  const ignored = new Set([...harmless, ...lower(perRequest), ...lower(excludeHeaders)])
  for (const name of [...essential, ...lower(headers)]) ignored.delete(name)

  return {
    ignored,
    of(opts) {
      const { path, caller, variant } = opts
      if (!isPlainGet(opts)) return null
      // Trust distinguishes requests, because only trusted callers may request faults.
      let text = `${caller?.trusted === true}${encode(variant)}${encode(path)}${encode(caller?.consumer?.id)}`
      const pairs = lowerCasePairs(opts)
      for (let i = 0; i < pairs.length; i += 2) {
        const name = pairs[i]!
        if (methodOverrides.has(name)) return null
        if (!ignored.has(name)) text += encode(name) + encode(pairs[i + 1])
      }
      return text
    }
  }
}

/** Encodes a value with its length, so that two values never look like one: `;2:ab`, and `;` for none. */
export function encode(text: string | undefined): string {
  return text === undefined ? ';' : `;${text.length}:${text}`
}

function isPlainGet({ method, upgrade, query, body }: DispatchOptions): boolean {
  if ((method !== 'GET' && method !== 'HEAD') || upgrade || query) return false
  return body === null || body === undefined
}

/** Returns whether the request identifies its caller. The response may then be meant for that caller only. */
export function isPersonal(opts: DispatchOptions): boolean {
  if (opts.caller?.consumer) return true
  const pairs = lowerCasePairs(opts)
  for (let i = 0; i < pairs.length; i += 2) if (pairs[i] === 'authorization' || pairs[i] === 'cookie') return true
  return false
}
