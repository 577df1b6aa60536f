import type { IncomingMessage } from 'node:http'
import { BlockList, isIP, isIPv6 } from 'node:net'
import { forwardingHeaders, passedOnHeaders } from '../../../config/header-names.ts'
import type { Config } from '../../../config/schema.ts'
import { commaItems, unmapped } from '../../http-syntax.ts'
import { forwardedFor } from './client-address.ts'
import { withoutEndSlashes } from './target-path.ts'

/** Returns the headers that are removed from clients' requests: only the gateway or a trusted peer sets them. */
export function forwardingOnlyHeaders({ instructions }: Pick<Config, 'instructions'>): string[] {
  return [...forwardingHeaders, ...instructions.headers]
}

/** Headers that are accepted from trusted peers. */
export interface TrustedHeaders {
  readonly names: ReadonlySet<string>
  /** The headers among them that are passed on unchanged. */
  readonly passedOn: readonly string[]
}

/**
 * Returns the headers that are accepted from trusted peers. A trusted peer is not trusted for every header: a load balancer
 * that sets X-Forwarded-For may pass on an X-Original-URL of its client.
 */
export function trustedHeaders({
  trustHeaders,
  instructions
}: Pick<Config['listen'], 'trustHeaders'> & Pick<Config, 'instructions'>): TrustedHeaders {
  const names = new Set<string>([...trustHeaders, ...instructions.believed])
  return { names, passedOn: [...passedOnHeaders, ...instructions.headers].filter((name) => names.has(name)) }
}

/** Most results that are kept for one list, of addresses up to a length. */
const MOST_KNOWN = 4096
const LONGEST_ADDRESS = 45

/** Returns the test for trusted peers; `ranges` are addresses or CIDR ranges. */
export function trustedPeers(ranges: readonly string[]): (address: string) => boolean {
  if (ranges.length === 0) return () => false
  const list = new BlockList()
  for (const range of ranges) {
    // Peers at a Unix socket have no address.
    if (range === 'unix') continue
    const [address, bits] = range.split('/') as [string, string | undefined]
    const family = isIPv6(address) ? 'ipv6' : 'ipv4'
    if (bits === undefined) list.addAddress(address, family)
    else list.addSubnet(address, Number(bits), family)
  }
  const isListed = (address: string): boolean => {
    const plain = unmapped(address)
    return isIP(plain) !== 0 && list.check(plain, isIPv6(plain) ? 'ipv6' : 'ipv4')
  }
  // Most requests come from few peers, and are asked about twice or more: a BlockList takes 0.4 µs.
  const known = new Map<string, boolean>()
  return (address) => {
    let isTrusted = known.get(address)
    if (isTrusted !== undefined) return isTrusted
    isTrusted = isListed(address)
    // The addresses of X-Forwarded-For may be any texts.
    if (address.length > LONGEST_ADDRESS) return isTrusted
    if (known.size === MOST_KNOWN) known.clear()
    known.set(address, isTrusted)
    return isTrusted
  }
}

/** Appends the forwarding headers for the service. `trusted`: the headers accepted from the peer; null if it is not trusted. */
export function appendForwarding(headers: string[], request: IncomingMessage, trusted: TrustedHeaders | null): void {
  const { socket, headers: given } = request
  // A peer at a Unix socket has no address.
  const address = unmapped(socket.remoteAddress) ?? 'unknown'
  const scheme = (socket as { encrypted?: boolean }).encrypted === true ? 'https' : 'http'
  const authority = (given[':authority'] as string | undefined) ?? given.host ?? ''
  if (trusted === null) {
    headers.push('x-forwarded-for', address, 'x-forwarded-proto', scheme, 'x-forwarded-host', authority)
    if (socket.localPort !== undefined) headers.push('x-forwarded-port', String(socket.localPort))
    return
  }
  const { names, passedOn } = trusted
  const received = (name: string) => (names.has(name) ? text(given[name]) : undefined)
  const earlier = names.has('x-forwarded-for') ? forwardedFor(request) : undefined
  const proto = received('x-forwarded-proto')
  headers.push(
    'x-forwarded-for', earlier === undefined ? address : `${earlier}, ${address}`,
    'x-forwarded-proto', proto ?? scheme,
    'x-forwarded-host', received('x-forwarded-host') ?? authority
  ) // biome-ignore format: pairs
  // With another scheme at the proxy, the port of this connection would be wrong.
  const port = received('x-forwarded-port') ?? (proto === undefined ? socket.localPort?.toString() : undefined)
  if (port !== undefined) headers.push('x-forwarded-port', port)
  for (const name of passedOn) {
    const value = text(given[name])
    if (value !== undefined) headers.push(name, value)
  }
  // `Forwarded` (RFC 7239) is only continued: most services read X-Forwarded-*.
  const forwarded = received('forwarded')
  if (forwarded !== undefined) {
    const node = address.includes(':') ? `"[${address}]"` : address
    headers.push('forwarded', `${forwarded}, for=${node};proto=${scheme}`)
  }
}

/**
 * Returns the prefix that a trusted peer and this gateway's route have stripped, as one path: of two fields, or a list, some
 * frameworks read the first and some the last. Null if no prefix was stripped.
 */
export function strippedPrefix(
  own: string | null,
  request: IncomingMessage,
  trusted: TrustedHeaders | null
): string | null {
  const earlier = trusted?.names.has('x-forwarded-prefix') ? text(request.headers['x-forwarded-prefix']) : undefined
  if (earlier === undefined) return own
  if (own === null) return earlier
  const parts = commaItems(earlier, maxPrefixes)
  return parts === null ? own : [...parts, own].map(withoutEndSlashes).join('')
}

/** Prefixes that earlier proxies may have stripped; a longer list is ignored. */
const maxPrefixes = 16

function text(value: string | string[] | undefined): string | undefined {
  return Array.isArray(value) ? value.join(', ') : value
}
