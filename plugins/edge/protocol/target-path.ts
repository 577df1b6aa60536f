import type { RouteConfig } from '../../../config/schema.ts'

const slash = 47
const question = 63

/**
 * Returns the function by which a route changes the request target; null if it passes the target on byte for byte. The
 * matched prefix is taken off by counting its segments, since the client may have written it in other bytes
 * (`/%61pi//orders`).
 */
export function targetPath({ match, path }: RouteConfig): ((target: string) => string) | null {
  if (path?.strip !== undefined) return replacePrefix(path.strip, '')
  if (path?.rewrite !== undefined && typeof match.path === 'string')
    return replacePrefix(match.path, path.rewrite.prefix)
  if (path?.rewrite !== undefined && typeof match.path !== 'string')
    return replacePrefix(match.path.exact, path.rewrite.prefix)
  return null
}

/** A path as it is sent: with escapes for all that a request line cannot hold, those that it has left as they are. */
export function encodePath(path: string): string {
  return encodeURI(path.toWellFormed()).replace(/%25([\da-f]{2})/gi, '%$1')
}

function replacePrefix(prefix: string, replacement: string): (target: string) => string {
  const segments = prefix.split('/').filter((segment) => segment !== '').length
  const head = encodePath(replacement.endsWith('/') ? replacement.slice(0, -1) : replacement)
  return (target) => {
    const rest = target.slice(endOfSegments(target, segments))
    // An empty path is `/`, with or without a query.
    return rest.charCodeAt(0) === slash ||
      (rest === '' && head !== '') ||
      (head !== '' && rest.charCodeAt(0) === question)
      ? head + rest
      : `${head}/${rest}`
  }
}

/** Returns the end of the first `count` segments of the target. */
function endOfSegments(target: string, count: number): number {
  let at = 0
  for (let segment = 0; segment < count; segment++) {
    while (target.charCodeAt(at) === slash) at++
    while (at < target.length && target.charCodeAt(at) !== slash && target.charCodeAt(at) !== question) at++
  }
  // The rest must not begin with `//`, as a reference to another host does.
  while (target.charCodeAt(at) === slash && target.charCodeAt(at + 1) === slash) at++
  return at
}

/** By hand: `/\\/+$/` begins anew at each of 15,000 slashes. */
export function withoutEndSlashes(path: string): string {
  let end = path.length
  while (end > 0 && path.charCodeAt(end - 1) === 0x2f) end--
  return path.slice(0, end)
}
