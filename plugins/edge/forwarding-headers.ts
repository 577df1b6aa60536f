import type { IncomingMessage } from 'node:http'
import { BlockList, isIP, isIPv6 } from 'node:net'

/** Headers by which proxies tell who called; believed from trusted peers only. */
export const forwardingHeaders = [
  'x-forwarded-for',
  'x-forwarded-proto',
  'x-forwarded-host',
  'x-forwarded-port',
  'x-forwarded-prefix',
  'x-real-ip',
  'forwarded'
]

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
    const plain = address.startsWith('::ffff:') ? address.slice(7) : address
    return isIP(plain) !== 0 && list.check(plain, isIPv6(plain) ? 'ipv6' : 'ipv4')
  }
}

/** Appends what this gateway says of the caller; a trusted peer's word on the original request stands. */
export function appendForwarding(headers: string[], request: IncomingMessage, trusted: boolean): void {
  const { socket, headers: given } = request
  const address = plainAddress(socket.remoteAddress ?? '')
  const secure = 'encrypted' in socket
  const authority = (given[':authority'] as string | undefined) ?? given.host ?? ''
  const earlier = trusted ? text(given['x-forwarded-for']) : undefined
  headers.push(
    'x-forwarded-for', earlier === undefined ? address : `${earlier}, ${address}`,
    'x-forwarded-proto', (trusted && text(given['x-forwarded-proto'])) || (secure ? 'https' : 'http'),
    'x-forwarded-host', (trusted && text(given['x-forwarded-host'])) || authority,
    'x-forwarded-port', (trusted && text(given['x-forwarded-port'])) || String(socket.localPort ?? '')
  ) // biome-ignore format: pairs
  const forwarded = trusted ? text(given.forwarded) : undefined
  // RFC 7239 is kept up where a proxy before us began it; X-Forwarded-* is what most services read.
  if (forwarded !== undefined) {
    const node = address.includes(':') ? `"[${address}]"` : address
    headers.push('forwarded', `${forwarded}, for=${node};proto=${secure ? 'https' : 'http'}`)
  }
}

function plainAddress(address: string): string {
  return address.startsWith('::ffff:') ? address.slice(7) : address
}

function text(value: string | string[] | undefined): string | undefined {
  return Array.isArray(value) ? value.join(', ') : value
}
