import { join } from 'node:path'
import type { PathPattern } from '../../../config/path-pattern.ts'
import type { Listen, RouteConfig } from '../../../config/schema.ts'
import { targetPath } from '../protocol/target-path.ts'
import { fixedText } from './fixed.ts'
import { redirection } from './location.ts'

/** A request to explain. */
interface Asked {
  readonly method: string
  readonly path: string
  readonly host: string
  readonly listen: Listen
}

/** Returns what the gateway itself responds to a request, for `explain`; null for routes with services. */
export function directlyFrom(
  route: RouteConfig,
  pattern: PathPattern,
  { method, path, host, listen }: Asked
): string | null {
  if (route.response !== undefined) return fixedText(route.response)
  if ((route.files ?? route.portal) !== undefined && method !== 'GET' && method !== 'HEAD')
    return `405, since only GET and HEAD read ${route.files === undefined ? 'a portal' : 'files'}`
  if (route.portal !== undefined) return `portal of ${Object.keys(route.portal.services).join(', ')}`
  if (route.files !== undefined) {
    const changed = targetPath(route, pattern, listen.paths)?.(path) ?? path
    return `file ${join(route.files.root, changed.split('?', 1)[0]!)}`
  }
  if (route.redirect === undefined) return null
  const scheme = listen.tls === undefined && listen.connect === undefined ? 'http' : 'https'
  const { location, isLoop } = redirection(route, pattern, listen.paths)({ url: path, host: host || 'HOST', scheme })
  return isLoop
    ? '508, a redirect to the URL of the request itself'
    : `redirect ${route.redirect.status} to ${location}`
}
