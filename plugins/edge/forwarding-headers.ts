import type { IncomingMessage } from 'node:http'
import { BlockList, isIP, isIPv6 } from 'node:net'
import { forwardedFor, unmapped } from './client-address.ts'
import { commaItems, withoutEndSlashes } from './scanning.ts'

/** What this gateway says anew of each request. */
const rewritten = [
  'x-forwarded-for', 'x-forwarded-proto', 'x-forwarded-host', 'x-forwarded-port', 'x-forwarded-prefix', 'forwarded'
] // biome-ignore format: a list
/** What services and frameworks believe besides; this gateway has nothing to say of it. */
const kept = [
  'x-forwarded-server',
  'x-forwarded-scheme',
  'x-forwarded-ssl',
  'x-real-ip',
  'x-original-url',
  'x-rewrite-url',
  // By which a mesh is told to inject faults: another gateway behind this one takes us for a trusted peer.
  'x-jingwei-fault-delay',
  'x-jingwei-fault-abort',
  'x-jingwei-fault-bandwidth'
]

/** Headers by which proxies tell who called and for what; believed from trusted peers only. */
export const forwardingHeaders = [...rewritten, ...kept]

/** Whether a peer's forwarding headers are believed; `ranges` are addresses or CIDR ranges. */
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

/** Appends what this gateway says of the caller; a trusted peer's word on the original request stands. */
export function appendForwarding(headers: string[], request: IncomingMessage, trusted: boolean): void {
  const { socket, headers: given } = request
  const address = unmapped(socket.remoteAddress ?? '')
  const scheme = (socket as { encrypted?: boolean }).encrypted === true ? 'https' : 'http'
  const authority = (given[':authority'] as string | undefined) ?? given.host ?? ''
  if (!trusted) {
    headers.push('x-forwarded-for', address, 'x-forwarded-proto', scheme, 'x-forwarded-host', authority)
    headers.push('x-forwarded-port', String(socket.localPort ?? ''))
    return
  }
  const earlier = forwardedFor(request)
  const proto = text(given['x-forwarded-proto'])
  headers.push(
    'x-forwarded-for', earlier === undefined ? address : `${earlier}, ${address}`,
    'x-forwarded-proto', proto ?? scheme,
    'x-forwarded-host', text(given['x-forwarded-host']) ?? authority
  ) // biome-ignore format: pairs
  // The port of this hop says nothing of one where another scheme was spoken.
  const port = text(given['x-forwarded-port']) ?? (proto === undefined ? String(socket.localPort ?? '') : undefined)
  if (port !== undefined) headers.push('x-forwarded-port', port)
  for (const name of kept) {
    const value = text(given[name])
    if (value !== undefined) headers.push(name, value)
  }
  // RFC 7239 is kept up where a proxy before us began it; X-Forwarded-* is what most services read.
  const forwarded = text(given.forwarded)
  if (forwarded !== undefined) {
    const node = address.includes(':') ? `"[${address}]"` : address
    headers.push('forwarded', `${forwarded}, for=${node};proto=${scheme}`)
  }
}

/**
 * What was taken off the path so far, by a trusted peer and then by this gateway's route, as one path: of two header
 * lines, or a list, some frameworks read the first and some the last. Null if nothing was.
 */
export function prefixSoFar(own: string | null, request: IncomingMessage, trusted: boolean): string | null {
  const earlier = trusted ? text(request.headers['x-forwarded-prefix']) : undefined
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
