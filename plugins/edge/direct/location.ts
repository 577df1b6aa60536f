/** The target of a redirect, `routes[].redirect`. */
import createError from '@fastify/error'
import { hostKey } from '../../../config/host-name.ts'
import type { PathPattern } from '../../../config/path-pattern.ts'
import type { PathReadings } from '../../../config/path-reading.ts'
import { redirectTarget } from '../../../config/redirect-target.ts'
import type { RouteConfig } from '../../../config/schema.ts'
import { targetPath } from '../protocol/target-path.ts'

export const RedirectLoop = createError('JW_REDIRECT_LOOP', 'The redirect leads to the URL of the request itself', 508)
const NoHost = createError('JW_BAD_HOST', 'Host or :authority is missing, or is not a host and port', 400)

/** The URL of a request as the client sees it. */
export interface ClientTarget {
  /** Path and query. */
  readonly url: string
  /** `Host` or `:authority`. */
  readonly host: string
  readonly scheme: 'http' | 'https'
}

export interface Redirection {
  readonly location: string
  /** True if the target is the URL of the request. */
  readonly isLoop: boolean
}

/**
 * Returns the function that makes `Location` for requests to a route. Its host is the one in the configuration or, normalised,
 * that of the request; nothing else that the client sends can become a host.
 */
export function redirection(
  route: RouteConfig,
  pattern: PathPattern,
  paths: PathReadings
): (target: ClientTarget) => Redirection {
  const { to, scheme, port, query: keeps } = route.redirect!
  const target = to === undefined ? null : redirectTarget(to)
  const path = target?.path ?? null
  const changed = path === null ? route.path : { ...kept(route.path), rewrite: { path } }
  const rewrite = targetPath({ ...(changed && { path: changed }) }, pattern, paths)
  return (request) => {
    const { url } = request
    const at = url.indexOf('?')
    const [ownPath, ownQuery] = at === -1 ? [url, ''] : [url.slice(0, at), url.slice(at + 1)]
    const queries = [target?.query ?? '', keeps === 'keep' ? ownQuery : ''].filter((each) => each !== '')
    const query = queries.length === 0 ? '' : `?${encoded(queries.join('&'))}`
    const local = `${localPath(rewrite === null ? ownPath : rewrite(ownPath))}${query}`
    const origin = target?.origin ?? (scheme === undefined ? null : originOf(scheme, request.host, port))
    const isSame = local === url && (origin === null || origin === originOf(request.scheme, request.host))
    return { location: `${origin ?? ''}${local}${target?.fragment ?? ''}`, isLoop: isSame }
  }
}

/** Returns the settings of a path that do not change it. */
const kept = ({ encodedSlash, parameters }: RouteConfig['path'] = {}) => ({
  ...(encodedSlash && { encodedSlash }),
  ...(parameters && { parameters })
})

const standardPorts = { http: 80, https: 443 }

/** Returns an origin at the host of a request. Without `port`, that of the host if it has the scheme of the request. */
function originOf(scheme: 'http' | 'https', authority: string, port?: number): string {
  const name = hostKey(authority)
  if (!/^(?:[\w~.-]+|\[[\da-f:.]+\])$/.test(name)) throw new NoHost()
  const number = port ?? standardPorts[scheme]
  return `${scheme}://${name}${number === standardPorts[scheme] ? '' : `:${number}`}`
}

/** Returns a path that no client reads as the host of another server: it begins with one slash, and has no backslash. */
export function localPath(path: string): string {
  let at = 0
  while (path[at] === '/' || path[at] === '\\') at++
  return `/${encoded(path.slice(at)).replaceAll('\\', '%5C')}`
}

/** Encodes characters that a header field cannot have. */
function encoded(text: string): string {
  return /[^!-~]/.test(text) ? text.replace(/[^!-~]+/g, (part) => encodeURIComponent(part.toWellFormed())) : text
}
