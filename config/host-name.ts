/** Hosts as routes compare them. */
import { domainToASCII } from 'node:url'

/** The longest name that DNS allows; a longer Host matches no wildcard, so that its labels cost nothing. */
export const MAX_NAME = 253

/** Lower case, without the port and the dot of an absolute name; IPv6 in its one short form. */
export function hostKey(authority: string): string {
  if (authority.charCodeAt(0) === 91) return ipv6Key(authority.slice(0, authority.indexOf(']') + 1))
  const colon = authority.indexOf(':')
  const name = colon === -1 ? authority : authority.slice(0, colon)
  return (name.endsWith('.') ? name.slice(0, -1) : name).toLowerCase()
}

function ipv6Key(literal: string): string {
  return URL.canParse(`http://${literal}/`) ? new URL(`http://${literal}/`).hostname : literal.toLowerCase()
}

/**
 * The key of a host as a configuration writes it, a leading `*.` aside: a name, also an internationalised one, or an
 * IPv6 address in brackets. Null if it is none.
 */
export function writtenHostKey(host: string): string | null {
  const wildcard = host.startsWith('*.')
  const name = wildcard ? host.slice(2) : host
  if (name.startsWith('[')) return wildcard || !URL.canParse(`http://${name}/`) ? null : ipv6Key(name)
  const ascii = beyondAscii.test(name) ? domainToASCII(name) : name
  return hostName.test(ascii) ? hostKey(ascii) : null
}

/** Returns the key of a host or of a wildcard, which keeps its `*.`; null if it is neither. */
export function patternKey(host: string): string | null {
  const key = writtenHostKey(host)
  return key !== null && host.startsWith('*.') ? `*.${key}` : key
}

const beyondAscii = /[^\0-\x7f]/
const hostName = /^[\w.-]+$/
