import type { PathPattern } from '../../../config/path-pattern.ts'
import { belowMount, patternsOf } from '../../../config/path-pattern.ts'
import type { PathReadings } from '../../../config/path-reading.ts'
import type { RouteConfig } from '../../../config/schema.ts'
import { Ambiguous, ambiguousPart } from './ambiguous-path.ts'
import { encodePath } from './encode-path.ts'
import { byExpression, byTemplate } from './path-template.ts'

const slash = 47
const question = 63
const percent = 37

/** Changes a request target. Throws JW_AMBIGUOUS_PATH if services could read the changed path in different ways. */
export type Rewrite = (target: string) => string

/** A prefix of the path that a route replaces. */
export interface Replacement {
  /** Returns the end of the prefix in a request target. */
  readonly endIn: (target: string) => number
  /** The prefix; null if it has parameters, so that it differs between requests. */
  readonly outer: string | null
  /** The text in its place. */
  readonly inner: string
}

/** Returns the prefix that a route replaces in paths of a pattern; null if it replaces none. */
export function replacementOf({ path }: Pick<RouteConfig, 'path'>, pattern: PathPattern): Replacement | null {
  const inner = path?.rewrite?.prefix
  const isWhole = path?.strip === true || inner !== undefined
  if (!isWhole && typeof path?.strip !== 'string') return null
  const { parts, end } = isWhole ? pattern : patternsOf(String(path?.strip))[0]!
  const texts = parts.flatMap((part) => (part.kind === 'text' ? [part.text] : []))
  const last = end === 'partial' ? texts.at(-1) : undefined
  const count = last === undefined ? parts.length : parts.length - 1
  const bytes = Buffer.byteLength(last ?? '')
  return {
    endIn: (target) => lastSlash(target, endOfPart(target, endOfSegments(target, count), bytes)),
    outer: texts.length === parts.length ? `/${texts.join('/')}` : null,
    inner: withoutEndSlash(inner ?? '')
  }
}

/**
 * Returns the function by which a route changes the request target; null if the route passes the target on unchanged. The
 * matched prefix is found by counting its segments, since the client may have spelled it differently (`/%61pi//orders`).
 */
export function targetPath(
  route: Pick<RouteConfig, 'path'>,
  pattern: PathPattern,
  paths: PathReadings
): Rewrite | null {
  const { path, regex, to = '' } = route.path?.rewrite ?? {}
  if (path !== undefined)
    return unambiguous(below(pattern, beforeQuery(byTemplate(path, pattern, restIn(pattern)))), route.path)
  if (regex !== undefined) return unambiguous(byExpressionBelow(pattern, byExpression(regex, to, paths)), route.path)
  const replacement = replacementOf(route, pattern)
  if (replacement === null) return null
  const { endIn, inner } = replacement
  const head = encodePath(inner)
  const rewrite = (target: string) => {
    const rest = target.slice(endIn(target))
    const first = rest.charCodeAt(0)
    // An empty path becomes `/`, with or without a query.
    const joins = first === slash || (head !== '' && (rest === '' || first === question || pattern.end === 'partial'))
    return joins ? head + rest : `${head}/${rest}`
  }
  const mounted = below(pattern, rewrite)
  return pattern.end === 'partial' ? unambiguous(mounted, route.path) : mounted
}

/** Applies a change to what follows the prefix under which the gateway is registered; the prefix itself is removed. */
const below = (pattern: PathPattern, rewrite: Rewrite): Rewrite =>
  pattern.mount === undefined ? rewrite : (target) => rewrite(belowMount(pattern, target))

/** As `below`, for an expression. A path that it does not match stays as it is, with the prefix. */
function byExpressionBelow(pattern: PathPattern, replace: (path: string) => string | null): Rewrite {
  return (target) => {
    const query = target.indexOf('?')
    const path = query === -1 ? target : target.slice(0, query)
    const changed = replace(belowMount(pattern, path))
    if (changed === null) return target
    return query === -1 ? changed : changed + target.slice(query)
  }
}

/** Applies a function to the path of a target. */
function beforeQuery(replace: (path: string) => string): Rewrite {
  return (target) => {
    const query = target.indexOf('?')
    return query === -1 ? replace(target) : replace(target.slice(0, query)) + target.slice(query)
  }
}

/** Returns the function that finds the rest of a path after the static text of a pattern, without the slash between them. */
function restIn(pattern: PathPattern): (path: string) => string {
  const { endIn } = replacementOf({ path: { strip: true } }, pattern)!
  return (path) => {
    const rest = path.slice(endIn(path))
    return pattern.end !== 'partial' && rest.startsWith('/') ? rest.slice(1) : rest
  }
}

/** Refuses paths that a change makes ambiguous: without its first letter, `/a../secret` is `/../secret`. */
function unambiguous(rewrite: Rewrite, passes: RouteConfig['path']): Rewrite {
  return (target) => {
    const changed = rewrite(target)
    const query = changed.indexOf('?')
    const found = ambiguousPart(query === -1 ? changed : changed.slice(0, query), passes)
    if (found !== null) throw new Ambiguous(found)
    return changed
  }
}

const withoutEndSlash = (path: string) => (path.endsWith('/') ? path.slice(0, -1) : path)

/** Returns the end of the first `count` segments of the target. */
function endOfSegments(target: string, count: number): number {
  let at = 0
  for (let segment = 0; segment < count; segment++) {
    while (target.charCodeAt(at) === slash) at++
    while (at < target.length && target.charCodeAt(at) !== slash && target.charCodeAt(at) !== question) at++
  }
  return lastSlash(target, at)
}

/** Returns the last of several slashes. The rest must not begin with `//`, which would be a reference to another host. */
function lastSlash(target: string, from: number): number {
  let at = from
  while (target.charCodeAt(at) === slash && target.charCodeAt(at + 1) === slash) at++
  return at
}

/** Returns the end of the first octets of the segment that begins after a slash; an escape is one octet. */
function endOfPart(target: string, before: number, bytes: number): number {
  if (bytes === 0) return before
  let at = before + 1
  for (let octet = 0; octet < bytes; octet++) at += target.charCodeAt(at) === percent ? 3 : 1
  return at
}

/** Removes trailing slashes. Without a regular expression: `/\\/+$/` takes quadratic time for 15,000 slashes. */
export function withoutEndSlashes(path: string): string {
  let end = path.length
  while (end > 0 && path.charCodeAt(end - 1) === 0x2f) end--
  return path.slice(0, end)
}
