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
export function believedHeaders({ listen, instructions }: Pick<Config, 'listen' | 'instructions'>): Believed {
  const names = new Set<string>([...listen.trustHeaders, ...instructions.believed])
  return { names, passedOn: [...passedOnHeaders, ...instructions.headers].filter((name) => names.has(name)) }
}

/**
 * Returns a function that removes from a request what Fastify would believe of a trusted peer against the configuration:
 * its `request.host` and `request.protocol` go by these headers. Null where there is nothing to remove.
 */
export function removeDoubted({
  trustProxy,
  trustHeaders
}: Config['listen']): ((request: IncomingMessage) => void) | null {
  const doubted = (['x-forwarded-host', 'x-forwarded-proto'] as const).filter((name) => !trustHeaders.includes(name))
  if (trustProxy.length === 0 || doubted.length === 0) return null
  return ({ headers }) => {
    for (const name of doubted) delete headers[name]
  }
}

/** Returns the test whether a peer's forwarding headers are believed; `ranges` are addresses or CIDR ranges. */
export function trustedPeers(ranges: readonly string[]): (address: string) => boolean {
  if (ranges.length === 0) return () => false
  const list = new BlockList()
  for (const range of ranges) {
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
  const address = unmapped(socket.remoteAddress ?? '')
  const scheme = (socket as { encrypted?: boolean }).encrypted === true ? 'https' : 'http'
  const authority = (given[':authority'] as string | undefined) ?? given.host ?? ''
  if (believed === null) {
    headers.push('x-forwarded-for', address, 'x-forwarded-proto', scheme, 'x-forwarded-host', authority)
    headers.push('x-forwarded-port', String(socket.localPort ?? ''))
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
  const port = told('x-forwarded-port') ?? (proto === undefined ? String(socket.localPort ?? '') : undefined)
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
