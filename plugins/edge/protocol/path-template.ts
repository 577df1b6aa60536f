/** Replacement of the whole path of a request: by a path with parameters of the match, or by groups of an expression. */
import { linearGroups } from '../../../config/linear-regexp.ts'
import type { PathPattern } from '../../../config/path-pattern.ts'
import { paramNames, paramValues } from '../../../config/path-pattern.ts'
import type { PathReadings } from '../../../config/path-reading.ts'
import { ENCODED_SLASH, readPath } from '../../../config/path-reading.ts'
import type { TemplatePart } from '../../../config/path-template.ts'
import { substitutionParts, templateParts } from '../../../config/path-template.ts'
import { encodePath } from './encode-path.ts'

type Replace = (path: string) => string

/** Returns the function that replaces a path of a pattern by a template. */
export function byTemplate(template: string, pattern: PathPattern, restIn: Replace): Replace {
  const parts = encoded(templateParts(template))
  const names = paramNames(pattern)
  return (path) => {
    const values = rawValues(path, pattern, restIn)
    return joined(parts, (name) => values[names.indexOf(name)] ?? '')
  }
}

/**
 * Returns the values of a pattern's parameters as the client sent them. A parameter that is a part of a segment is encoded
 * again, since the client may have encoded the characters around it.
 */
function rawValues(path: string, pattern: PathPattern, restIn: Replace): string[] {
  const raw = path.split('/').filter((segment) => segment !== '')
  const read = readPath(path)
  const values = (read === null ? [] : paramValues(pattern, read)).map((value) =>
    encodeURIComponent(value.toWellFormed().replaceAll(ENCODED_SLASH, '/'))
  )
  let index = 0
  for (const [at, part] of pattern.parts.entries()) {
    if (part.kind === 'any') values[index] = raw[at] ?? ''
    index += part.kind === 'text' ? 0 : part.kind === 'any' ? 1 : part.names.length
  }
  if (pattern.end !== 'whole') values[index] = restIn(path)
  return values
}

/**
 * Returns the function that replaces a path which an expression matches; for others it returns null. Spellings that the
 * listener ignores (`listen.paths`) are ignored here as well: the service, too, takes them for the same path.
 */
export function byExpression(regex: string, to: string, paths: PathReadings): (path: string) => string | null {
  const { match } = linearGroups(regex, paths.case === 'ignore')
  const plain = withoutIgnored(paths)
  const parts = encoded(substitutionParts(to))
  return (path) => {
    const text = normalized(path)
    const groups = match(text) ?? (plain === null ? null : match(plain(text)))
    return groups === null ? null : joined(parts, (group) => groups[Number(group) - 1] ?? '')
  }
}

/** Returns the function that removes what the readings ignore at the end of a path and of its segments; null if they ignore nothing there. */
function withoutIgnored({ trailingSlash, trailingDot }: PathReadings): Replace | null {
  if (trailingSlash !== 'ignore' && trailingDot !== 'ignore') return null
  return (path) => {
    const whole = trailingSlash === 'ignore' && path.length > 1 && path.endsWith('/') ? path.slice(0, -1) : path
    return trailingDot === 'ignore' ? whole.split('/').map(trimmedSegment).join('/') : whole
  }
}

/** Removes dots and blanks at the end of an encoded segment. Without a regular expression, which would take quadratic time. */
function trimmedSegment(segment: string): string {
  let end = segment.length
  for (;;) {
    if (segment[end - 1] === '.') end--
    else if (end > 2 && segment.slice(end - 3, end) === '%20') end -= 3
    else break
  }
  return end === 0 ? segment : segment.slice(0, end)
}

const encoded = (parts: readonly TemplatePart[]) =>
  parts.map((part) => ('text' in part ? { text: encodePath(part.text) } : part))

/** Joins parts; two slashes that meet become one. */
function joined(parts: readonly TemplatePart[], valueFor: (name: string) => string): string {
  let text = ''
  for (const part of parts) {
    let next = 'text' in part ? part.text : valueFor(part.name)
    while (text.endsWith('/') && next.startsWith('/')) next = next.slice(1)
    text += next
  }
  return text
}

/** Returns the path in one spelling (RFC 3986, 6.2.2): needless escapes decoded, others in upper case, no empty segments. */
function normalized(path: string): string {
  const single = path.replace(/\/{2,}/g, '/')
  if (!single.includes('%')) return single
  return single.replace(/%([\da-f]{2})/gi, (octet, hex: string) => {
    const character = String.fromCharCode(Number.parseInt(hex, 16))
    return /[\w.~-]/.test(character) ? character : octet.toUpperCase()
  })
}
