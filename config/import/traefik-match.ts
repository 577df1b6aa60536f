/** Rules of Traefik's routers, as conditions of routes. */
import { oneOrAll, patternOf, prefixOf, wholeOf } from './patterns.ts'
import type { Matcher } from './traefik-rule.ts'
import { alternativesOf } from './traefik-rule.ts'
import type { Settings } from './yaml-text.ts'

export interface Converted {
  readonly match: Settings
  /** Matchers that are not converted, so that the route would match more. */
  readonly unknown: readonly string[]
}

/** Returns the routes of a rule. */
export const matchesOf = (rule: string): Converted[] => merged(alternativesOf(rule).map(matchOf))

/** Joins alternatives that differ in their paths, or else their hosts or methods, only. */
export function merged(alternatives: readonly Converted[]): Converted[] {
  let all = alternatives
  for (const key of ['path', 'hosts', 'methods'] as const) {
    const found = new Map<string, Converted>()
    for (const each of all) {
      const { [key]: list, ...others } = each.match
      const id = JSON.stringify([others, each.unknown])
      const before = found.get(id)
      if (before === undefined) found.set(id, { ...each, match: { ...each.match } })
      else if (list !== undefined && before.match[key] !== undefined) {
        const values = [...(before.match[key] as unknown[]), ...(list as unknown[])]
        before.match[key] = [...new Map(values.map((value) => [JSON.stringify(value), value])).values()]
      } else found.set(JSON.stringify([each.match, found.size]), each)
    }
    all = [...found.values()]
  }
  return all.map(({ match, unknown }) => ({
    match: { ...match, path: oneOrAll((match.path as unknown[] | undefined) ?? ['/']) },
    unknown
  }))
}

/** A part of a path or host of version 2 of the rules: `{name}` or `{name:expression}`. */
const template = /\{([A-Za-z_]\w*)(?::((?:[^{}]|\{[^{}]*\})*))?\}/g

const escaped = (text: string) => text.replace(/[.*+?^${}()|[\]\\]/g, '\\$&')

/** Returns a text of version 2 as an expression for the whole of it. */
function expressionOf(text: string, usual: string): string {
  let at = 0
  let expression = ''
  for (const { 0: found, 1: name = '', 2: inner = usual, index } of text.matchAll(template)) {
    expression += `${escaped(text.slice(at, index))}(?<${name}>${inner.replace(/^\(([^()]*)\)$/, '$1').replace(/\((?!\?)/g, '(?:')})`
    at = index + found.length
  }
  return expression + escaped(text.slice(at))
}

const literalHost = /^[a-z0-9-]+(?:\.[a-z0-9-]+)*$/i

/**
 * Returns the hosts of an expression for the whole host: literal ones, alternatives of the first label, or `*.example.com` for
 * any first label. `report` gets the reason if the result is wider; null if it has none.
 */
function hostsOf(expression: string, report: (text: string) => void): string[] | null {
  const whole = /^\^(?<body>.*)\$$/s.exec(expression)?.groups?.body
  if (whole === undefined) return null
  const literal = (text: string) => text.replaceAll('\\.', '.').replaceAll('\\-', '-')
  if (literalHost.test(literal(whole))) return [literal(whole)]
  // An optional first part.
  const [, optional, afterOptional = ''] = /^\((?:\?:)?((?:[^()[\]]|\[[^\]]*\])+\\\.)\)\?(.*)$/s.exec(whole) ?? []
  const rest = optional === undefined ? undefined : hostsOf(`^${afterOptional}$`, report)
  if (optional !== undefined && rest?.length === 1) {
    const below = hostsOf(`^${optional}${afterOptional}$`, report)
    return below === null ? null : [...rest, ...below]
  }
  const dot = whole.indexOf('\\.')
  const [first, others] = [whole.slice(0, dot), whole.slice(dot + 2)]
  if (dot < 1 || !literalHost.test(literal(others))) return null
  const inner = /^\((?:\?P?<\w+>|\?:)?([^()]*)\)$/.exec(first)?.[1] ?? first
  if (/^[a-z0-9-]+(?:\|[a-z0-9-]+)*$/i.test(inner)) return inner.split('|').map((each) => `${each}.${literal(others)}`)
  const wide = `*.${literal(others)}`
  if (!/^\.[+*]$/.test(inner)) report(`HostRegexp(${expression}): ${wide} is wider`)
  return [wide]
}

/** Returns whether a text has parts of version 2. */
const isTemplate = (text: string) => text.search(template) !== -1

/** Returns the paths of `Path` and `PathPrefix`, which had parts with expressions in version 2. */
function pathsOf(text: string, isExact: boolean, report: (text: string) => void): unknown[] {
  if (!isTemplate(text)) return [isExact ? { exact: text } : prefixOf(text)]
  return patternOf(`^${expressionOf(text, '[^/]+')}${isExact ? '$' : ''}`, report)
}

/** Returns the conditions for matchers that all have to hold. */
export function matchOf(matchers: readonly Matcher[]): Converted {
  const match: Settings = {}
  const unknown: string[] = []
  for (const matcher of matchers) {
    const { name, args, isNot } = matcher
    const text = `${isNot ? '!' : ''}${name}(${args.join(', ')})`
    const [first = '', second] = args
    const report = (reason: string) => unknown.push(reason)
    const list = isNot ? null : listOf(matcher, report)
    if (list !== null) {
      const [key, values] = list
      // Two lists would be alternatives.
      if (match[key] !== undefined) unknown.push(text)
      else match[key] = values
      continue
    }
    const condition = (key: string, wanted: string, value: unknown) => {
      const before = (match[key] ?? {}) as Settings
      if (Object.hasOwn(before, wanted)) unknown.push(text)
      else match[key] = { ...before, [wanted]: value }
    }
    if (isNot) unknown.push(text)
    else if (name === 'Header' || name === 'Headers') condition('headers', first.toLowerCase(), second ?? '')
    else if (name === 'HeaderRegexp' || name === 'HeadersRegexp')
      condition('headers', first.toLowerCase(), { regex: wholeOf(second ?? '') })
    else if (name === 'Query') {
      const [key = '', value] = second === undefined ? first.split('=', 2) : [first, second]
      condition('query', key, value === undefined ? { present: true } : value)
    } else if (name === 'QueryRegexp') condition('query', first, { regex: wholeOf(second ?? '') })
    else unknown.push(text)
  }
  return { match, unknown }
}

/** Returns the key and values of a matcher that is a list of alternatives; null for others. */
function listOf({ name, args }: Matcher, report: (text: string) => void): [key: string, values: unknown[]] | null {
  const [first = ''] = args
  if (name === 'Host' || name === 'HostHeader') return ['hosts', [...args]]
  if (name === 'HostRegexp') {
    const found = args.map((text) => hostsOf(args.some(isTemplate) ? `^${expressionOf(text, '[^.]+')}$` : text, report))
    return found.includes(null) ? null : ['hosts', found.flatMap((each) => each!)]
  }
  if (name === 'Path' || name === 'PathPrefix')
    return ['path', args.flatMap((text) => pathsOf(text, name === 'Path', report))]
  if (name === 'PathRegexp') return ['path', pathExpression(first, report)]
  if (name === 'Method') return ['methods', [...args]]
  return name === 'ClientIP' ? ['addresses', [...args]] : null
}

/** Returns the paths of an expression, which matches anywhere in a path unless it begins with `^`. */
function pathExpression(expression: string, report: (text: string) => void): unknown[] {
  if (expression.startsWith('^')) return patternOf(expression, report)
  report(`PathRegexp(${expression}): write a pattern; / is wider`)
  return ['/']
}
