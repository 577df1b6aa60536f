/** Paths of rules, compared with the decoded segments of a request's path, in each way that a service may read them. */
import type { Folding, PathReadings, ReadPath } from '../../../../config/path-reading.ts'
import { fold } from '../../../../config/path-reading.ts'
import type { RulePath } from './options.ts'

/** Segments; null stands for any one. */
export interface PathPattern {
  readonly parts: readonly (string | null)[]
  readonly end: 'whole' | 'prefix' | 'below'
}

export const segmentsOf = (text: string): string[] => text.split('/').filter((segment) => segment !== '')

export function pathPattern(path: RulePath): PathPattern {
  if (typeof path !== 'string') return { parts: segmentsOf(path.exact), end: 'whole' }
  const segments = segmentsOf(path)
  const isBelow = segments.at(-1) === '*'
  const parts = (isBelow ? segments.slice(0, -1) : segments).map((part) => (part.startsWith(':') ? null : part))
  return { parts, end: isBelow ? 'below' : parts.includes(null) ? 'whole' : 'prefix' }
}

export function matches({ parts, end }: PathPattern, segments: readonly string[]): boolean {
  const more = segments.length - parts.length
  if (end === 'whole' ? more !== 0 : more < (end === 'below' ? 1 : 0)) return false
  return parts.every((part, index) => part === null || part === segments[index])
}

/** Returns whether a pattern has all paths of another one. */
export function covers(outer: PathPattern, inner: PathPattern): boolean {
  const more = inner.parts.length - outer.parts.length
  if (outer.end === 'whole' && (inner.end !== 'whole' || more !== 0)) return false
  if (more < 0 || (outer.end === 'below' && more === 0 && inner.end !== 'below')) return false
  return outer.parts.every((part, index) => part === null || part === inner.parts[index])
}

/** Returns the fault of a path; null if there is none. */
export function pathFault(path: RulePath): string | null {
  const text = typeof path === 'string' ? path : path.exact
  if (/[%?#\\;]|\/\/|\/\.{1,2}(\/|$)/.test(text)) {
    return 'a path is compared decoded: it has no "//", "%", "?", "#", ";", backslash, "." or ".." segment'
  }
  if (typeof path !== 'string') return null
  const segments = segmentsOf(path)
  if (segments.slice(0, -1).includes('*')) return '"*" may only be the last segment; write ":name" for one segment'
  const odd = segments.find((segment) => segment !== '*' && /\*|.:|^:$|[{}]/.test(segment))
  return odd === undefined ? null : `"${odd}" is neither a text nor ":name"; write "*" for all that is below a path`
}

/** Segments of a path in one reading, and the index of the patterns to compare them with. */
export interface Reading {
  readonly level: 0 | 1
  readonly segments: readonly string[]
}

const exactly: Folding = { case: false, dot: false }

/**
 * Readings of paths by `listen.paths`. At level 0 spellings differ unless they are read alike by configuration, at level 1
 * only if all services distinguish them.
 */
export class Readings {
  readonly foldings: readonly [Folding, Folding]
  readonly #isFoldedAlike: boolean

  /** `texts`: segments of all patterns. */
  constructor(paths: PathReadings, texts: readonly string[]) {
    this.foldings = [
      { case: paths.case === 'ignore', dot: paths.trailingDot === 'ignore' },
      { case: paths.case !== 'distinct', dot: paths.trailingDot !== 'distinct' }
    ]
    this.#isFoldedAlike = texts.every((text) => fold(text, this.foldings[1]) === fold(text, exactly))
  }

  of({ plain, segments, others }: ReadPath): Reading[] {
    // Most paths have one spelling.
    if (plain !== null && this.#isFoldedAlike) return [{ level: 0, segments }]
    const folded = (level: 0 | 1, read: readonly string[]): Reading => {
      return { level, segments: read.map((segment) => fold(segment, this.foldings[level])) }
    }
    return [folded(0, segments), folded(1, segments), ...others.map((other) => folded(1, other))]
  }
}
