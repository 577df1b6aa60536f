/** The base path of a service: `/v1` of `http://orders:8080/v1`. It is added to the paths of calls, and removed from locations. */
import type { IncomingHttpHeaders } from 'node:http'

/** Returns a path below the base path. A path that is no absolute path is returned as it is, so that the call fails by it. */
export function belowBase(base: string, path: string): string {
  return path.startsWith('/') ? base + path : path
}

/** Scheme and authority, path, and the rest of a reference (RFC 3986, appendix B). */
const reference = /^((?:https?:)?\/\/[^/?#]*)?([^?#]*)(.*)$/is

/**
 * Returns a `Location` or `Content-Location` without the base path. Unchanged are references to other hosts than `hosts`, and
 * paths outside of the base path. `hosts` are in lower case, each with its port as in the URL of the service.
 */
function withoutBase(value: string, base: string, hosts: readonly string[]): string {
  const [, origin = '', path = '', rest = ''] = reference.exec(value) ?? []
  if (origin !== '') {
    const named = withoutDefaultPort(origin.toLowerCase())
    const isOwn = hosts.some((host) => {
      const scheme = named.slice(0, named.indexOf('//') + 2)
      return withoutDefaultPort(scheme + host) === named
    })
    if (!isOwn) return value
  }
  if (path !== base && !path.startsWith(`${base}/`)) return value
  const inner = path.slice(base.length) || '/'
  // Browsers take `//host` and `/\host`, also with a tab between, for another host. `/.//host` is a path.
  return (origin === '' && /^\/[/\\\t]/.test(inner) ? '/.' : origin) + inner + rest
}

function withoutDefaultPort(origin: string): string {
  return origin.replace(/^(http:\/\/.*):80$|^(https:\/\/.*):443$/, '$1$2')
}

const names: ReadonlySet<string> = new Set(['location', 'content-location'])

/**
 * Returns the headers of a response with locations without the base path. `raw` are the same headers as name, value, name,
 * value, which clients such as `fetch` read: they are changed in place. `hosts` returns the names of the service.
 */
export function relocated(
  headers: IncomingHttpHeaders,
  raw: unknown,
  base: string,
  hosts: () => readonly string[]
): IncomingHttpHeaders {
  const { location, 'content-location': content } = headers
  if (location === undefined && content === undefined) return headers
  const own = hosts()
  const change = (value: string) => withoutBase(value, base, own)
  if (Array.isArray(raw)) {
    for (let i = 0; i + 1 < raw.length; i += 2) {
      if (names.has(String(raw[i]).toLowerCase())) raw[i + 1] = change(String(raw[i + 1]))
    }
  }
  return {
    ...headers,
    ...(typeof location === 'string' && { location: change(location) }),
    ...(typeof content === 'string' && { 'content-location': change(content) })
  }
}

/** Hosts of one header that are compared. */
const mostHosts = 16

/** Returns the hosts by which a service may name itself: those of the request, and that of the instance. */
export function hostsOf(headers: readonly string[], instance: string | null): string[] {
  const hosts = instance === null ? [] : [new URL(instance).host]
  for (let i = 0; i + 1 < headers.length; i += 2) {
    if (!/^(host|x-forwarded-host)$/i.test(headers[i]!)) continue
    // Proxies may have made a list.
    for (const host of headers[i + 1]!.split(',', mostHosts)) hosts.push(host.trim().toLowerCase())
  }
  return hosts
}
