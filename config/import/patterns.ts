/** Paths of other gateways, as those of `match.path`. */
import { linearGroups } from '../linear-regexp.ts'
import type { Settings } from './yaml-text.ts'

/** Classes of regular expressions that patterns spell out. */
const classes: readonly (readonly [RegExp, string])[] = [
  [/\\d/g, '[0-9]'],
  [/\\w/g, '[A-Za-z0-9_]'],
  [/\\([./-])/g, '$1']
]

const spelled = (expression: string): string =>
  classes.reduce((text, [each, meaning]) => text.replace(each, meaning), expression)

/** Expressions for any one segment. */
const anySegment = /^(?:\[\^\/\][+]|\.\+|\[A-Za-z0-9_\]\+)$/

/**
 * Returns a path pattern for a regular expression, with a parameter for each of its groups: `^/users/(?<id>\d+)$` is
 * `/users/:id(^[0-9]+$)`. What has no pattern becomes the prefix of its literal beginning, and `report` gets the reason.
 */
export function patternOf(expression: string, report: (text: string) => void): string | Settings {
  const bare = expression.replace(/^\^/, '')
  const isWhole = bare.endsWith('$')
  let groups = 0
  const pattern = spelled(bare.replace(/\$$/, '')).replace(
    /\((?:\?P?<(\w+)>)?([^()]+)\)/g,
    (_, name: string | undefined, inner: string) => {
      groups++
      const parameter = `:${name ?? `p${groups}`}`
      return anySegment.test(inner) ? parameter : `${parameter}(^${inner}$)`
    }
  )
  const plain = pattern.replace(/:\w+(?:\(\^[^()]*\$\))?/g, '')
  if (/^\/[\w/.~-]*$/.test(plain) && !plain.includes('..')) {
    if (!isWhole) return pattern.includes(':') ? `${pattern.replace(/\/$/, '')}/*` : `${pattern}*`
    return pattern.includes(':') ? pattern : { exact: pattern }
  }
  const literal = /^[\w/~-]*/.exec(bare)![0] || '/'
  report(`path ${expression}: write a pattern; ${literal}* is wider`)
  return `${literal}*`
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
