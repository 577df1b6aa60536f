/** Parses the path of a route's `match` into static segments, parameters, and the kind of its end. */
import type { ReadPath } from './path-reading.ts'
import type { Piece } from './regex-cost.ts'
import type { RouteMatch } from './schema.ts'

/** A segment of a pattern. */
export type Part =
  | { readonly kind: 'text'; readonly text: string }
  | { readonly kind: 'any'; readonly name: string }
  /** `fixed`: number of characters of static text. */
  | {
      readonly kind: 'regex'
      readonly regex: RegExp
      readonly names: readonly string[]
      readonly fixed: number
      readonly pieces: readonly Piece[]
    }

export interface PathPattern {
  /** The path as written in the file. In an exact path, colons are doubled, which stands for literal colons. */
  readonly text: string
  readonly parts: readonly Part[]
  /**
   * whole: only this path. prefix: this path and all below. below: only paths below it. partial: the last part is a text
   * with which the rest of the path must begin.
   */
  readonly end: 'whole' | 'prefix' | 'below' | 'partial'
  /** True if the path is whole and ends with a slash. */
  readonly trailingSlash: boolean
  /** Length of a prefix without parameters; null for other patterns. */
  readonly length: number | null
  /** Prefix of the server under which the gateway is registered. The pattern is for what follows it. */
  readonly mount?: string
}

/** Returns the part of a request target that a pattern is for: without the prefix under which the gateway is registered. */
export function belowMount({ mount = '' }: PathPattern, target: string): string {
  if (mount === '') return target
  const rest = target.slice(mount.length)
  return rest.startsWith('/') ? rest : `/${rest}`
}

export const isPattern = (text: string) => /[:*]/.test(text)

/** One path of a match. */
export type WrittenPath = string | { readonly exact: string }

/** Returns the paths of a match. */
export const pathsOf = (path: RouteMatch['path']): readonly WrittenPath[] => (Array.isArray(path) ? path : [path])

/** Returns the patterns of a match: one for each path, two for a path whose last parameter is optional. */
export const pathPatterns = (path: RouteMatch['path']): PathPattern[] => pathsOf(path).flatMap(patternsOf)

/** Returns the patterns of one path. */
export function patternsOf(path: WrittenPath): PathPattern[] {
  if (typeof path !== 'string') return [plain(path.exact, 'whole')]
  if (!isPattern(path)) return [plain(path, 'prefix')]
  const optional = /^(.*)\/:([^/()]*)\?(\/?)$/s.exec(path)
  if (optional === null) return [parse(path, path)]
  const [, before = '', name = '', slash = ''] = optional
  return [parse(`${before}/:${name}${slash}`, path), parse(`${before}${slash}` || '/', path)]
}

function plain(text: string, end: 'whole' | 'prefix'): PathPattern {
  const parts = text.split('/').filter((segment) => segment !== '')
  return {
    text: end === 'whole' ? text.replaceAll(':', '::') : text,
    parts: parts.map((part) => ({ kind: 'text', text: part })),
    end,
    trailingSlash: end === 'whole' && parts.length > 0 && text.endsWith('/'),
    length: end === 'whole' ? null : parts.reduce((sum, part) => sum + part.length + 1, 0)
  }
}

function parse(path: string, text: string): PathPattern {
  const segments = segmentsOf(path)
  const last = segments.at(-1) ?? ''
  const parts = (those: readonly string[]) => those.filter((segment) => segment !== '').map(partOf)
  const rest = { text, trailingSlash: false, length: null }
  if (last === '*') return { ...rest, parts: parts(segments.slice(0, -1)), end: 'below' }
  if (last.endsWith('*') && !/(?<!:):(?!:)/.test(last)) {
    const start: Part = { kind: 'text', text: last.slice(0, -1).replaceAll('::', ':') }
    return { ...rest, parts: [...parts(segments.slice(0, -1)), start], end: 'partial' }
  }
  return { ...rest, parts: parts(segments), end: 'whole', trailingSlash: last === '' && segments.length > 2 }
}

/** Splits a pattern at slashes, except those within a regular expression. */
function segmentsOf(text: string): string[] {
  const segments: string[] = []
  let start = 0
  let depth = 0
  for (let at = 0; at < text.length; at++) {
    const char = text[at]
    if (char === '\\') at++
    else if (char === '(') depth++
    else if (char === ')') depth--
    else if (char === '/' && depth <= 0) {
      segments.push(text.slice(start, at))
      start = at + 1
    }
  }
  return [...segments, text.slice(start)]
}

/** Parses one segment like find-my-way: `:name`, `:name(regex)`, static text between them, `::` for a colon. */
function partOf(segment: string): Part {
  const names: string[] = []
  const pieces: Piece[] = []
  let source = ''
  let fixed = 0
  let separator = ''
  let bounded = true
  let at = 0
  const takeText = () => {
    let text = ''
    while (at < segment.length) {
      if (segment[at] === ':') {
        if (segment[at + 1] !== ':') break
        at++
      }
      text += segment[at++]
    }
    fixed += text.length
    if (text === '') return
    pieces.push({ kind: 'text', text })
    separator = text
    source += RegExp.escape(text)
  }
  takeText()
  if (at >= segment.length) return { kind: 'text', text: separator }
  while (at < segment.length) {
    const from = ++at
    while (at < segment.length && !'(-.'.includes(segment[at] ?? '')) at++
    names.push(segment.slice(from, at))
    if (segment[at] === '(') {
      const end = closingOf(segment, at)
      const expression = segment
        .slice(at + 1, end)
        .replace(/^\^/, '')
        .replace(/\$$/, '')
      pieces.push({ kind: 'expression', source: expression })
      source += `(${withoutGroups(expression)})`
      at = end + 1
      bounded = true
    } else {
      // A second parameter never contains the separator before it, so that a text has only one reading.
      const until = RegExp.escape(separator)
      pieces.push({ kind: 'any', but: bounded ? '' : (separator[0] ?? '') })
      source += bounded ? '(.+?)' : `(${until}|(?:(?!${until}).)+)`
      bounded = false
    }
    takeText()
  }
  const [name = ''] = names
  if (source === '(.+?)') return { kind: 'any', name }
  return { kind: 'regex', regex: new RegExp(`^${source}$`), names, fixed, pieces }
}

/** Makes the groups of an expression non-capturing, since the values of parameters are found by group number. */
function withoutGroups(expression: string): string {
  let text = ''
  let inClass = false
  for (let at = 0; at < expression.length; at++) {
    const char = expression[at] ?? ''
    if (char === '\\') {
      text += char + (expression[++at] ?? '')
      continue
    }
    if (char === '[') inClass = true
    if (char === ']') inClass = false
    text += char === '(' && !inClass && expression[at + 1] !== '?' ? '(?:' : char
  }
  return text
}

function closingOf(text: string, open: number): number {
  let depth = 0
  for (let at = open; at < text.length; at++) {
    if (text[at] === '\\') at++
    else if (text[at] === '(') depth++
    else if (text[at] === ')' && --depth === 0) return at
  }
  return text.length
}

/** Returns the names of a pattern's parameters, in order. */
export function paramNames({ parts, end }: PathPattern): string[] {
  const names = parts.flatMap((part) => (part.kind === 'text' ? [] : part.kind === 'any' ? [part.name] : part.names))
  return end === 'whole' ? names : [...names, '*']
}

/** Returns the values of a pattern's parameters in a matching path. */
export function paramValues({ parts, end }: PathPattern, { segments, trailingSlash }: ReadPath): string[] {
  const values: string[] = []
  parts.forEach((part, at) => {
    const segment = segments[at] ?? ''
    if (part.kind === 'any') values.push(segment)
    if (part.kind !== 'regex') return
    const found = part.regex.exec(segment) ?? new RegExp(part.regex, 'i').exec(segment)
    for (let group = 1; group <= part.names.length; group++) values.push(found?.[group] ?? '')
  })
  if (end === 'whole') return values
  const last = parts.at(-1)
  const isPartial = end === 'partial' && last?.kind === 'text'
  const rest = segments.slice(isPartial ? parts.length - 1 : parts.length).join('/')
  const slash = trailingSlash && rest !== '' ? '/' : ''
  return [...values, `${isPartial ? rest.slice(last.text.length) : rest}${slash}`]
}

/** Returns whether every path of pattern `b` is one of pattern `a`. May miss it for regular expressions. */
export function covers(a: PathPattern, b: PathPattern): boolean {
  const whole = ({ parts, end }: PathPattern) => (end === 'partial' ? parts.length - 1 : parts.length)
  const count = whole(a)
  const all = whole(b)
  if (all < count || !a.parts.slice(0, count).every((part, at) => coversPart(part, b.parts[at]!))) return false
  if (a.end === 'prefix') return true
  if (a.end === 'whole') return b.end === 'whole' && all === count && a.trailingSlash === b.trailingSlash
  if (a.end === 'below') return all > count || b.end === 'below' || b.end === 'partial'
  const [start, next] = [a.parts[count], b.parts[count]]
  return start?.kind === 'text' && next?.kind === 'text' && next.text.startsWith(start.text)
}

function coversPart(a: Part, b: Part): boolean {
  if (a.kind === 'any') return true
  if (a.kind === 'text') return b.kind === 'text' && a.text === b.text
  return b.kind === 'regex' ? a.regex.source === b.regex.source : b.kind === 'text' && a.regex.test(b.text)
}
