/**
 * Lists of origins, as in `edge.cors.origin`: exact ones, wildcards (`https://*.example.com`, `http://localhost:*`) and regular
 * expressions (`/^https:\/\/pr-\d+\.example\.com$/`).
 *
 * Browsers send an origin in one spelling (RFC 6454, 6.2): lower case, no path, no default port. A value in another
 * spelling would never match, so it is a fault.
 */
import { linearRegExp } from '../../../config/linear-regexp.ts'

/** Longest `Origin` that is compared: host names have at most 253 characters. */
const longestOrigin = 300

/** Tests whether an `Origin` header's value is allowed. */
export type OriginTest = (origin: string) => boolean

/** Returns the fault of an origin, and what to write instead; null if it has none. */
export function originFault(text: string): string | null {
  if (text === '*' || text === 'null') return null
  if (text.startsWith('/')) return regExpFault(text)
  if (/^[~^(]|\\|\$$/.test(text)) {
    const expression = text.replace(/^[~*]*\^?|\$$/g, '')
    return `a regular expression is written between slashes, for the whole origin: "/^${expression}$/"`
  }
  const [, scheme, host = '', port, rest] =
    /^(?:([A-Za-z][A-Za-z0-9+.-]*):\/\/)?([^/?#:[\]]*|\[[^\]]*\])(:[^/?#]*)?(.*)$/.exec(text) ?? []
  if (host === '' || /[\s@,]/.test(text))
    return `"${text}" is not an origin: scheme, host and port, as https://app.example.com`
  if (scheme === undefined) return `an origin has a scheme: write "https://${host}${port ?? ''}"`
  if (rest !== '') return `an origin has no path: write "${scheme}://${host}${port ?? ''}"`
  if (port !== undefined && !/^:(\*|\d{1,5})$/.test(port)) return `"${port}" is not a port: a number, or "*" for any`
  const wildcard = wildcardFault(host)
  if (wildcard !== null) return wildcard
  const canonical = spelling(scheme, host, port)
  if (canonical === null) return `"${host}" is not a host`
  return canonical === text ? null : `browsers send "${canonical}": write that`
}

/** Compiles origins that have no fault; the returned test takes linear time. */
export function originTest(origins: string | readonly string[]): OriginTest {
  const list = [origins].flat()
  if (list.includes('*')) return () => true
  const isPattern = (text: string) => text.startsWith('/') || text.includes('*')
  const exact = new Set(list.filter((text) => !isPattern(text)))
  const patterns = list.filter(isPattern).map(compiled)
  return (origin) => exact.has(origin) || (origin.length <= longestOrigin && patterns.some((test) => test(origin)))
}

function compiled(text: string): OriginTest {
  if (text.startsWith('/')) return linearRegExp(bodyOf(text))
  const escaped = text.replace(/[\\^$.|?+()[\]{}]/g, '\\$&')
  return linearRegExp(`^${escaped.replace(/:\*$/, '(:\\d{1,5})?').replace('*', '[a-z0-9.-]+')}$`)
}

const bodyOf = (text: string) => text.slice(1, -1)

function regExpFault(text: string): string | null {
  if (text.length < 2 || !text.endsWith('/')) return 'a regular expression is written /^…$/, without flags'
  try {
    linearRegExp(bodyOf(text))
    return null
  } catch (error) {
    return `not a regular expression that is supported here: ${(error as Error).message}`
  }
}

/** Returns the fault of a wildcard, such as allowing names that others could register; null if it has none. */
function wildcardFault(host: string): string | null {
  const stars = host.split('*').length - 1
  if (stars === 0) return null
  const [label = '', ...parents] = host.split('.')
  if (stars > 1 || !label.includes('*')) return 'a "*" may stand once, in the first label of the host, or for the port'
  if (parents.length === 0) return `"${host}" would allow hosts of anybody: write "*" for all origins`
  if (label !== '*' && parents.length < 2) {
    return `"${host}" would allow hosts of others, such as ${host.replace('*', 'evil')}: write "*.${host.replace('*', '')}"`
  }
  return null
}

/** Returns the origin as a browser sends it; null if the host is invalid. */
function spelling(scheme: string, host: string, port: string | undefined): string | null {
  const known = /^https?$/i.test(scheme)
  // A URL cannot have wildcards: replace them by a label and a port while parsing.
  const [star, any] = ['wildcard0', ':1']
  try {
    const url = new URL(`${known ? scheme : 'https'}://${host.replace('*', star)}${port === ':*' ? any : (port ?? '')}`)
    const hostname = url.hostname.replace(star, '*')
    const shown = port === ':*' ? ':*' : known || port === undefined ? (url.port === '' ? '' : `:${url.port}`) : port
    return `${scheme.toLowerCase()}://${hostname}${shown}`
  } catch {
    return null
  }
}
