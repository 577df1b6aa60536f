/** Keys of rate limits: the requests with equal keys are counted together. All spellings of one caller are one key. */
import { createHash } from 'node:crypto'
import { createError } from '@fastify/error'
import rateLimit from '@fastify/rate-limit'
import type { FastifyRequest } from 'fastify'
import { FifoMap } from 'toad-cache'
import { canonicalName } from '../../../../config/header-names.ts'
import { hostKey } from '../../../../config/host-name.ts'
import { claimAt, claimsOf } from '../../claims.ts'
import type { RecordRefusal } from '../../concern-refusals.ts'
import { codeOf } from '../../concern-refusals.ts'
import { clientAddressOf } from '../../protocol/client-address.ts'
import type { By, LimitOptions } from './options.ts'
import { sourcesOf } from './options.ts'

const SeveralValues = createError('JW_SEVERAL_VALUES', 'The header %s may be sent only once', 400)

/** Reasons for the access log: the limit that refused. A closed list, documented in plugins/edge/access-log/README.md. */
export const limitReasons = [
  'rate_ip', 'rate_consumer', 'rate_header', 'rate_claim', 'rate_route', 'rate_combination', 'rate_max_per_address',
  'rate_concurrency', 'rate_store'
] as const // biome-ignore format: a list

export type LimitReason = (typeof limitReasons)[number]

/** Length above which keys are hashed: clients must not control the size of stored keys. */
const longestKey = 64

export type KeyOf = (request: FastifyRequest) => string

/** Returns the key of one source; null if the request has none. */
type Find = (request: FastifyRequest) => string | null

/**
 * Returns the function for the key of a request. A source that the request lacks is replaced by its address. Prefixes keep
 * the values of different sources distinct.
 */
export function keyBy({ by, ipv6Prefix }: Pick<LimitOptions, 'by' | 'ipv6Prefix'>): KeyOf {
  const address = addressKey(ipv6Prefix)
  const finds = sourcesOf(by).map((source) => finder(source, address))
  if (finds.length === 1) {
    const find = finds[0]!
    if (find === address) return address
    return (request) => find(request) ?? address(request)
  }
  // Each part with its length: values may contain any separator.
  return (request) =>
    bounded(
      'all of:',
      finds.reduce((key, find) => {
        const part = find(request) ?? address(request)
        return `${key}${part.length}:${part}`
      }, '')
    )
}

/** Returns the key of a request for a limit. If there is none, throws; in shadow mode, records that and returns null. */
export function keyFor(
  { keyOf, isShadow }: { readonly keyOf: KeyOf; readonly isShadow: boolean },
  request: FastifyRequest,
  record: RecordRefusal | null
): string | null {
  try {
    return keyOf(request)
  } catch (error) {
    if (!isShadow) throw error
    record?.(request, codeOf(error as Error))
    return null
  }
}

/** Returns the reason of a refusal: a request without the header, consumer or claim was counted by its address. */
export function reasonOf(by: By, request: FastifyRequest): LimitReason {
  const [source = 'ip', ...others] = sourcesOf(by)
  if (others.length > 0) return 'rate_combination'
  const kind = source.split(':', 1)[0] as 'ip' | 'consumer' | 'header' | 'claim' | 'route'
  return finder(source, () => '')(request) === null ? 'rate_ip' : `rate_${kind}`
}

/** Returns the key of a client address: an IPv6 network counts as one client. */
export function addressKey(ipv6Prefix = 64): KeyOf {
  // Cached, since computing the network of an IPv6 address takes 7 µs.
  const known = new FifoMap<string>(1000)
  return (request) => {
    const ip = clientAddressOf(request)
    let key = known.get(ip)
    if (key === undefined) {
      key = bounded('ip:', rateLimit.normalizeIP(ip, ipv6Prefix))
      known.set(ip, key)
    }
    return key
  }
}

function finder(source: string, address: KeyOf): Find {
  if (source === 'ip') return address
  if (source === 'route') return () => 'route'
  if (source === 'consumer') return ({ consumer }) => (consumer ? bounded('consumer:', consumer.id) : null)
  if (source.startsWith('claim:')) return claimKey(source.slice('claim:'.length))
  return headerKey(source.slice('header:'.length))
}

function claimKey(path: string): Find {
  return (request) => {
    const value = claimAt(claimsOf(request), path)
    if (value === undefined || value === null || value === '') return null
    return bounded('claim:', typeof value === 'object' ? JSON.stringify(value) : String(value))
  }
}

/** Returns the key of the requested host in one spelling. Two hosts, also in `:authority` and `Host`, are refused before. */
const findHost: Find = ({ raw: { headers } }) => {
  const host = hostKey((headers[':authority'] as string | undefined) ?? headers.host ?? '')
  return host ? bounded('header:', host) : null
}

function headerKey(name: string): Find {
  if (name.toLowerCase() === 'host') return findHost
  const findField = fieldFinder(name)
  // RFC 9110, 11.1: the scheme is case-insensitive, and any number of spaces may follow it.
  const isCredentials = canonicalName(name) === 'authorization'
  const normalized = (value: string) =>
    isCredentials ? value.replace(/^(\S+) +/, (_, scheme: string) => `${scheme.toLowerCase()} `) : value
  return ({ raw: { rawHeaders } }) => {
    const at = findField(rawHeaders, 0)
    if (at === -1) return null
    if (findField(rawHeaders, at + 2) !== -1) throw new SeveralValues(name)
    const value = normalized(rawHeaders[at + 1]!)
    return value ? bounded('header:', value) : null
  }
}

/** Returns a function that counts calls between services apart from requests of clients, whose keys stay the same. */
export const perDirection =
  (keyOf: KeyOf): KeyOf =>
  (request) =>
    request.direction === 'east-west' ? `east-west:${keyOf(request)}` : keyOf(request)

/**
 * Returns a function that finds the next field with a name in `rawHeaders`; -1 if there is none. It also finds spellings
 * that a service may read as this header, such as `_` for `-` (CGI): otherwise a client could send another key in each.
 */
function fieldFinder(name: string): (rawHeaders: readonly string[], from: number) => number {
  const wanted = canonicalName(name)
  return (rawHeaders, from) => {
    for (let i = from; i < rawHeaders.length; i += 2) {
      const given = rawHeaders[i]!
      if (given.length === wanted.length && canonicalName(given) === wanted) return i
    }
    return -1
  }
}

const hashMark = 'sha256:'

/** Returns the prefixed value, hashed if it is long, or if it looks like the hash of another. */
function bounded(prefix: string, value: string): string {
  if (value.length <= longestKey && !value.startsWith(hashMark)) return prefix + value
  return `${prefix}${hashMark}${createHash('sha256').update(value).digest('base64url')}`
}
