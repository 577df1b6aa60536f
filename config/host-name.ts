/** Normalisation of host names, for comparison. */
import { domainToASCII } from 'node:url'

/** Maximum length of a DNS name. A longer `Host` matches no wildcard, which bounds the cost of its labels. */
export const MAX_NAME = 253

/** Normalises a host: lower case, without port and trailing dot; IPv6 addresses in their canonical form. */
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
 * Returns the key of a host in a configuration, without a leading `*.`: of a name, which may be internationalised, or of an
 * IPv6 address in brackets. Null if it is neither.
 */
export function writtenHostKey(host: string): string | null {
  const wildcard = host.startsWith('*.')
  const name = wildcard ? host.slice(2) : host
  if (name.startsWith('[')) return wildcard || !URL.canParse(`http://${name}/`) ? null : ipv6Key(name)
  const ascii = beyondAscii.test(name) ? domainToASCII(name) : name
  return hostName.test(ascii) ? hostKey(ascii) : null
}

/** Returns the key of a host or wildcard; a wildcard keeps its `*.`. Null if it is neither. */
export function patternKey(host: string): string | null {
  const key = writtenHostKey(host)
  return key !== null && host.startsWith('*.') ? `*.${key}` : key
}

/** Returns whether two hosts or wildcards, as keys, have a host in common. A wildcard matches all hosts below it. */
export function hostsOverlap(a: string, b: string): boolean {
  const holds = (wildcard: string, host: string) => wildcard.startsWith('*.') && host.endsWith(wildcard.slice(1))
  return a === b || holds(a, b) || holds(b, a)
}

const beyondAscii = /[^\0-\x7f]/
const hostName = /^[\w.-]+$/
