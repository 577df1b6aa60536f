import type { IncomingMessage } from 'node:http'
import { BlockList, isIP, isIPv6 } from 'node:net'
import { forwardingHeaders, passedOnHeaders } from '../../../config/header-names.ts'
import type { Config } from '../../../config/schema.ts'
import { commaItems, unmapped } from '../../http-syntax.ts'
import { forwardedFor } from './client-address.ts'
import { withoutEndSlashes } from './target-path.ts'

/** Returns the headers of which no client's copy reaches a service. */
export function unbelievedHeaders({ instructions }: Pick<Config, 'instructions'>): string[] {
  return [...forwardingHeaders, ...instructions.headers]
}

/** Headers that are believed of trusted peers. */
export interface Believed {
  readonly names: ReadonlySet<string>
  /** Those that go on as they are. */
  readonly passedOn: readonly string[]
}

/**
 * Returns the headers that are believed of trusted peers. Trust in a peer is not trust in all that it lets
 * pass: a load balancer that sets X-Forwarded-For may pass on its client's X-Original-URL.
 */
export function believedHeaders({
  trustHeaders,
  instructions
}: Pick<Config['listen'], 'trustHeaders'> & Pick<Config, 'instructions'>): Believed {
  const names = new Set<string>([...trustHeaders, ...instructions.believed])
  return { names, passedOn: [...passedOnHeaders, ...instructions.headers].filter((name) => names.has(name)) }
}

/** Returns the test whether a peer's forwarding headers are believed; `ranges` are addresses or CIDR ranges. */
export function trustedPeers(ranges: readonly string[]): (address: string) => boolean {
  if (ranges.length === 0) return () => false
  const list = new BlockList()
  for (const range of ranges) {
    // Those of a Unix socket have no address.
    if (range === 'unix') continue
    const [address, bits] = range.split('/') as [string, string | undefined]
    const family = isIPv6(address) ? 'ipv6' : 'ipv4'
    if (bits === undefined) list.addAddress(address, family)
    else list.addSubnet(address, Number(bits), family)
  }
  return (address) => {
    const plain = unmapped(address)
    return isIP(plain) !== 0 && list.check(plain, isIPv6(plain) ? 'ipv6' : 'ipv4')
  }
}

/** Appends the forwarding headers for the service. `believed` are those that are kept of a trusted peer; null: none. */
export function appendForwarding(headers: string[], request: IncomingMessage, believed: Believed | null): void {
  const { socket, headers: given } = request
  // A peer of a Unix socket has no address.
  const address = unmapped(socket.remoteAddress) ?? 'unknown'
  const scheme = (socket as { encrypted?: boolean }).encrypted === true ? 'https' : 'http'
  const authority = (given[':authority'] as string | undefined) ?? given.host ?? ''
  if (believed === null) {
    headers.push('x-forwarded-for', address, 'x-forwarded-proto', scheme, 'x-forwarded-host', authority)
    if (socket.localPort !== undefined) headers.push('x-forwarded-port', String(socket.localPort))
    return
  }
  const { names, passedOn } = believed
  const told = (name: string) => (names.has(name) ? text(given[name]) : undefined)
  const earlier = names.has('x-forwarded-for') ? forwardedFor(request) : undefined
  const proto = told('x-forwarded-proto')
  headers.push(
    'x-forwarded-for', earlier === undefined ? address : `${earlier}, ${address}`,
    'x-forwarded-proto', proto ?? scheme,
    'x-forwarded-host', told('x-forwarded-host') ?? authority
  ) // biome-ignore format: pairs
  // The port of this hop says nothing of one where another scheme was spoken.
  const port = told('x-forwarded-port') ?? (proto === undefined ? socket.localPort?.toString() : undefined)
  if (port !== undefined) headers.push('x-forwarded-port', port)
  for (const name of passedOn) {
    const value = text(given[name])
    if (value !== undefined) headers.push(name, value)
  }
  // RFC 7239 is continued where a proxy before this one began it; X-Forwarded-* is what most services read.
  const forwarded = told('forwarded')
  if (forwarded !== undefined) {
    const node = address.includes(':') ? `"[${address}]"` : address
    headers.push('forwarded', `${forwarded}, for=${node};proto=${scheme}`)
  }
}

/**
 * Returns the prefix that was taken off the path so far, by a trusted peer and then by this gateway's route, as one path:
 * of two header lines, or a list, some frameworks read the first and some the last. Null if nothing was taken off.
 */
export function prefixSoFar(own: string | null, request: IncomingMessage, believed: Believed | null): string | null {
  const earlier = believed?.names.has('x-forwarded-prefix') ? text(request.headers['x-forwarded-prefix']) : undefined
  if (earlier === undefined) return own
  if (own === null) return earlier
  const parts = commaItems(earlier, mostPrefixes)
  return parts === null ? own : [...parts, own].map(withoutEndSlashes).join('')
}

/** Prefixes of proxies before this one; a longer list is ignored. */
const mostPrefixes = 16

function text(value: string | string[] | undefined): string | undefined {
  return Array.isArray(value) ? value.join(', ') : value
}
