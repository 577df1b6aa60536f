/** Paths of other gateways, as those of `match.path`. */
import { linearGroups } from '../linear-regexp.ts'
import { member } from './foreign.ts'
import type { Settings } from './yaml-text.ts'

/** Classes of regular expressions that patterns spell out, with their members. */
const classes: Readonly<Record<string, string>> = { d: '0-9', w: 'A-Za-z0-9_' }

/** Spells out `\d` and `\w`, also within brackets, and escaped characters that need no escape in a path. */
function spelled(expression: string): string {
  let isInBrackets = false
  return expression.replace(/\\(.)|[[\]]/g, (found, escaped?: string) => {
    if (escaped === undefined) isInBrackets = found === '['
    const members = escaped === undefined ? undefined : member(classes, escaped)
    if (members !== undefined) return isInBrackets ? members : `[${members}]`
    return !isInBrackets && /\\[./-]/.test(found) ? escaped! : found
  })
}

/** Splits an expression at the separators that are in no group and no brackets. */
function splitAt(expression: string, separator: string): string[] {
  const parts: string[] = []
  let [depth, start] = [0, 0]
  /** Index of the first member of the brackets, where `]` is a member itself. */
  let member: number | null = null
  for (let at = 0; at < expression.length; at++) {
    const character = expression[at]
    if (character === '\\') at++
    else if (member !== null) {
      if (character === ']' && at > member) member = null
    } else if (character === '[') member = at + (expression[at + 1] === '^' ? 2 : 1)
    else if (character === separator && depth === 0) {
      parts.push(expression.slice(start, at))
      start = at + 1
    } else depth += character === '(' ? 1 : character === ')' ? -1 : 0
  }
  return [...parts, expression.slice(start)]
}

/** Expressions for any one segment. */
const anySegment = /^(?:\[\^\/\][+]|\.\+|\[A-Za-z0-9_\]\+)$/

/** Expressions for the rest of a path. */
const anyRest = /^\(?(?:\?P?<\w+>|\?:)?\.[*+]\)?$/

/** Names of parameters for groups, and for other parts. */
interface Names {
  group(): string
  other(): string
}

/** Returns whether the gateway can use an expression. */
function isExpression(expression: string): boolean {
  try {
    linearGroups(`^(?:${expression})$`)
    return true
  } catch {
    return false
  }
}

/** Returns an expression for one segment as a part of a pattern; null if it has none. */
function partOf(segment: string, names: Names): string | null {
  let isSound = true
  const parameter = (expression: string, name: string) => {
    if (anySegment.test(expression)) return `:${name}`
    // A parameter is one segment.
    isSound &&= isExpression(expression) && splitAt(expression, '/').length === 1
    return `:${name}(^${expression}$)`
  }
  const spelt = spelled(segment)
  if (/^[\w.~-]*$/.test(spelt)) return spelt
  const withGroups = spelt.replace(
    /\((?:\?P?<(\w+)>|(\?:))?([^()?][^()]*)\)(?![?*+{])/g,
    (_, given: string | undefined, isOther: string | undefined, inner: string) =>
      parameter(inner, given ?? (isOther === undefined ? names.group() : names.other()))
  )
  const plain = withGroups.replace(/:\w+(?:\(\^[^()]*\$\))?/g, '')
  if (withGroups !== spelt) return isSound && /^[\w.~-]*$/.test(plain) ? withGroups : null
  if (/[()|]|(?<!\\)\.[*{]|^[?*+{]/.test(spelt)) return null
  const whole = parameter(spelt, names.other())
  return isSound ? whole : null
}

/** Ends of a path that may be absent. */
const optionalEnds = /(?:\/\?|\((?:\?:)?\/\.\*\)\?|\((?:\?:)?\/\|\$\))$/

/**
 * Returns path patterns for a regular expression, with a parameter for each of its groups: `^/users/(?<id>\d+)$` is
 * `/users/:id(^[0-9]+$)`. What has no pattern becomes the prefix of its literal beginning, and `report` gets the reason.
 */
export function patternOf(expression: string, report: (text: string) => void): (string | Settings)[] {
  const bare = expression.replace(/^\^/, '')
  const isWhole = /(?<!\\)\$$/.test(bare)
  const body = isWhole ? bare.slice(0, -1) : bare
  const end = optionalEnds.exec(body)?.[0] ?? ''
  const segments = splitAt(body.slice(0, body.length - end.length), '/')
  const isRest = end === '' && segments.length > 1 && anyRest.test(segments.at(-1)!)
  let [groups, others] = [0, 0]
  const names = { group: () => `p${++groups}`, other: () => `any${++others}` }
  const parts = (isRest ? segments.slice(0, -1) : segments).map((each) => partOf(each, names))
  const pattern = parts.join('/')
  const isPattern = pattern.includes(':')
  if (bare.startsWith('/') && !parts.includes(null) && !pattern.includes('..')) {
    if (isRest) return [`${pattern}/*`]
    if (end === '/?' && isWhole)
      return isPattern ? [pattern, `${pattern}/`] : [{ exact: pattern || '/' }, { exact: `${pattern}/` }]
    if (isWhole && end === '') return [isPattern ? pattern : { exact: pattern }]
    // Another segment may follow, or more of the last one.
    if (parts.at(-1)!.includes(':')) return [pattern, `${pattern}/*`]
    if (end === '' || end === '/?') return [`${pattern}*`]
    return isPattern ? [pattern, `${pattern}/*`] : [pattern || '/']
  }
  const literal = /^[\w/~-]*/.exec(bare)![0] || '/'
  report(`path ${expression}: write a pattern; ${literal}* is wider`)
  return [`${literal}*`]
}

/**
 * Returns the change of a path that removes what one of Kong's paths matches: an expression after `~`, or a prefix. Expressions
 * come first there, then longer prefixes. Null for an expression that is not supported here.
 */
export function strippedBy(paths: readonly string[]): Settings | null {
  const expressions = paths
    .filter((path) => path.startsWith('~'))
    .map((path) =>
      path
        .slice(1)
        .replace(/^\^/, '')
        .replace(/\(\?P?<\w+>/g, '(')
    )
  const prefixes = paths
    .filter((path) => !path.startsWith('~'))
    .map((path) => path.replace(/\/+$/, '').replace(/[.*+?^${}()|[\]\\]/g, '\\$&'))
    .sort((a, b) => b.length - a.length)
  const isWhole = (expression: string) => /(?<!\\)\$$/.test(expression)
  const wholes = expressions.filter(isWhole).map((each) => each.slice(0, -1))
  const begins = [...expressions.filter((each) => !isWhole(each)), ...prefixes]
  const groups =
    [...wholes, ...begins]
      .join('|')
      .replace(/\\./g, '')
      .match(/\((?!\?)/g)?.length ?? 0
  const all = [...wholes, ...(begins.length > 0 ? [`(?:${begins.join('|')})/?(.*)`] : [])]
  const regex = `^(?:${all.join('|')})$`
  try {
    linearGroups(regex)
  } catch {
    return null
  }
  return { rewrite: { regex, to: begins.length > 0 ? `/$${groups + 1}` : '/' } }
}

/** Returns a prefix without a slash at its end. */
export const prefixOf = (path: string): string => path.replace(/\/+$/, '') || '/'

/** Returns one member of a list as it is, and longer lists as lists. */
export const oneOrAll = <T>(list: readonly T[]): T | readonly T[] => (list.length === 1 ? list[0]! : list)

/** Returns a value for a header of which several are accepted. */
export function anyOf(values: readonly string[]): string | Settings {
  const escaped = values.map((text) => text.replace(/[.*+?^${}()|[\]\\]/g, '\\$&'))
  return values.length === 1 ? values[0]! : { regex: `^(?:${escaped.join('|')})$` }
}

/** Returns an expression that is searched anywhere in a text as one for the whole text. */
export function wholeOf(expression: string): string {
  const alternatives = splitAt(expression, '|').map((each) => {
    const [begins, ends] = [each.startsWith('^'), /(?<!\\)\$$/.test(each)]
    const inner = each.slice(begins ? 1 : 0, ends ? -1 : undefined)
    return `${begins ? '' : '.*'}${inner}${ends ? '' : '.*'}`
  })
  return `^${alternatives.length === 1 ? alternatives[0] : `(?:${alternatives.join('|')})`}$`
}

/**
 * Returns `path.rewrite` for a substitution, which other gateways apply to the part of a path that the expression matches. Here
 * an expression is for the whole path, so what follows becomes a group of its own. An expression without `^` that begins with
 * a slash is taken for the beginning of the path, as its authors mean it.
 */
export function rewriteOf(regex: string, replacement: string): Settings {
  const to = replacement.replace(/\$\{(\w+)\}/g, '$$$1')
  const whole = regex.startsWith('/') ? `^${regex}` : regex
  if (whole.endsWith('$')) return { rewrite: { regex: whole, to } }
  if (/\.\*\)?$/.test(whole)) return { rewrite: { regex: `${whole}$`, to } }
  const groups = whole.replace(/\\./g, '').match(/\((?!\?[:=!])/g)?.length ?? 0
  return { rewrite: { regex: `${whole}(.*)$`, to: `${to}$${groups + 1}` } }
}
