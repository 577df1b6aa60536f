/**
 * One spelling for a client's address. Proxies write it in several: with the port of its connection (Azure's gateways,
 * HAProxy), IPv6 in brackets, in capitals or with its zeros, IPv4 as IPv4-mapped IPv6. A rate limit, a hash or a log
 * that took the text as it came would see another client for every connection.
 */
import type { IncomingMessage } from 'node:http'
import { isIPv6, SocketAddress } from 'node:net'
import { unmapped } from '../../http-syntax.ts'

/** Entries of X-Forwarded-For that are looked at, from the right: more trusted proxies in a row there are not. */
export const mostHops = 50

/** Lists of IPv4 addresses, which have one spelling. */
const plainList = /^[\d., ]*$/
const withPort = /^(\d{1,3}(?:\.\d{1,3}){3}):\d{1,5}$/
const bracketed = /^\[([^\]]*)\](?::\d{1,5})?$/

/** X-Forwarded-For as it came, of requests where `settleForwardedFor` changed it. */
const asSent = new WeakMap<IncomingMessage, string>()

/** Returns an address without port, brackets and zone, in its canonical spelling (RFC 5952); other texts as they are. */
export function canonicalAddress(text: string): string {
  const bare = (withPort.exec(text)?.[1] ?? bracketed.exec(text)?.[1]) || text
  if (!bare.includes(':')) return bare
  const [address = ''] = bare.split('%')
  if (!isIPv6(address)) return text
  return unmapped(new SocketAddress({ address, family: 'ipv6' }).address)
}

/** Rewrites X-Forwarded-For for Fastify, whose `request.ip` is an entry of it, trusted or not, as it is written. */
export function settleForwardedFor(request: IncomingMessage): void {
  const value = request.headers['x-forwarded-for']
  if (typeof value !== 'string' || plainList.test(value)) return
  const entries = value.split(',')
  const first = Math.max(0, entries.length - mostHops)
  for (let i = first; i < entries.length; i++) entries[i] = canonicalAddress(entries[i]!.trim())
  asSent.set(request, value)
  request.headers['x-forwarded-for'] = entries.join(', ')
}

/** Cuts off what is left of the first address that is not trusted, from the right: nobody knows who wrote it. */
export function trimForwardedFor(request: IncomingMessage, isTrusted: (address: string) => boolean): void {
  const value = request.headers['x-forwarded-for']
  if (typeof value !== 'string') return
  const entries = value.split(',')
  let first = entries.length - 1
  // Fastify takes no notice of empty entries.
  const isPassed = (entry: string) => entry === '' || isTrusted(entry)
  while (first > 0 && isPassed(entries[first]!.trim())) first--
  if (first === 0) return
  if (!asSent.has(request)) asSent.set(request, value)
  request.headers['x-forwarded-for'] = entries.slice(first).join(',')
}

/** Returns the client's X-Forwarded-For as it came, for the service, which may want the port. */
export function forwardedFor(request: IncomingMessage): string | undefined {
  const value = request.headers['x-forwarded-for']
  if (value === undefined) return undefined
  return asSent.get(request) ?? String(value)
}

/** Text of an address that came in a header is kept up to this length. */
const longestAddress = 45

/**
 * Returns what counts as one client: an IPv4 address, the /64 network of an IPv6 address, since a host may use all
 * addresses of it. Other texts, which a trusted proxy may send, stand for themselves.
 */
export function networkOf(address: string): string {
  const plain = unmapped(address)
  if (!plain.includes(':')) return plain.slice(0, longestAddress)
  const [head = '', tail] = plain.slice(0, longestAddress).split('::')
  const groups = (head || '0').split(':')
  if (tail !== undefined) {
    const after = tail === '' ? 0 : tail.split(':').length
    for (let zeros = 8 - groups.length - after; zeros > 0; zeros--) groups.push('0')
    groups.push(...tail.split(':'))
  }
  return `${groups.slice(0, 4).join(':')}::/64`
}
