import type { RouteConfig } from '../../../config/schema.ts'

const slash = 47
const question = 63

/**
 * Returns the function by which a route changes the request target; null if the route passes the target on unchanged. The
 * matched prefix is stripped by counting its segments, since the client may have spelled it differently (`/%61pi//orders`).
 */
export function targetPath({ match, path }: RouteConfig): ((target: string) => string) | null {
  if (path?.strip !== undefined) return replacePrefix(path.strip, '')
  if (path?.rewrite !== undefined && typeof match.path === 'string')
    return replacePrefix(match.path, path.rewrite.prefix)
  if (path?.rewrite !== undefined && typeof match.path !== 'string')
    return replacePrefix(match.path.exact, path.rewrite.prefix)
  return null
}

/** Returns a path with percent-encoding for characters that a request line cannot have; existing escapes are kept. */
export function encodePath(path: string): string {
  return encodeURI(path.toWellFormed()).replace(/%25([\da-f]{2})/gi, '%$1')
}

function replacePrefix(prefix: string, replacement: string): (target: string) => string {
  const segments = prefix.split('/').filter((segment) => segment !== '').length
  const head = encodePath(replacement.endsWith('/') ? replacement.slice(0, -1) : replacement)
  return (target) => {
    const rest = target.slice(endOfSegments(target, segments))
    // An empty path becomes `/`, with or without a query.
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
  // The rest must not begin with `//`, which would be a reference to another host.
  while (target.charCodeAt(at) === slash && target.charCodeAt(at + 1) === slash) at++
  return at
}

/** Removes trailing slashes. Without a regular expression: `/\\/+$/` takes quadratic time for 15,000 slashes. */
export function withoutEndSlashes(path: string): string {
  let end = path.length
  while (end > 0 && path.charCodeAt(end - 1) === 0x2f) end--
  return path.slice(0, end)
}
