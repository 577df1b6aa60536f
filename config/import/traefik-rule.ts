/** Rules of Traefik's routers, such as ``Host(`a.example`) && (PathPrefix(`/x`) || Path(`/y`))``. */
import { ImportFault } from './foreign.ts'

/** A matcher with its arguments; `isNot` for `!Host(…)`. */
export interface Matcher {
  readonly name: string
  readonly args: readonly string[]
  readonly isNot: boolean
}

/** Alternatives, in each of which all matchers hold. */
export type Alternatives = readonly (readonly Matcher[])[]

/** Deepest nesting of parentheses and `!`. */
const deepest = 200

/** Most alternatives of a rule, which `&&` multiplies. */
const mostAlternatives = 200

const token = /\s*(?:(&&|\|\||!|\(|\))|(\w+)\(\s*((?:(?:`[^`]*`|"[^"]*"|'[^']*')\s*(?:,\s*)?)*)\))/y

/** An operator, a parenthesis or a matcher. */
export type Token = string | Matcher

/** Throws {ImportFault} for a rule that Traefik would not accept. */
export function alternativesOf(rule: string): Alternatives {
  const tokens: Token[] = []
  token.lastIndex = 0
  while (token.lastIndex < rule.trimEnd().length) {
    const at = token.lastIndex
    const found = token.exec(rule)
    if (found === null)
      throw new ImportFault(`rule ${rule}: cannot be read from "${rule.slice(at, at + 30).trim()}" on`)
    const [, operator, name, args = ''] = found
    const texts = [...args.matchAll(/`([^`]*)`|"([^"]*)"|'([^']*)'/g)].map(([, a, b, c]) => a ?? b ?? c ?? '')
    tokens.push(operator ?? { name: name!, args: texts, isNot: false })
  }
  return alternativesIn(tokens, rule)
}

/** Returns the alternatives of an expression with `&&`, `||`, `!` and parentheses. Throws {ImportFault} for a malformed one. */
export function alternativesIn(tokens: readonly Token[], rule: string): Alternatives {
  let at = 0
  let depth = 0
  const take = (wanted: string) => tokens[at] === wanted && ++at > 0

  function either(): Alternatives {
    let all = both()
    while (take('||')) all = [...all, ...both()]
    return all
  }

  function both(): Alternatives {
    let all = single()
    while (take('&&')) {
      const others = single()
      if (all.length * others.length > mostAlternatives) throw new ImportFault(`rule ${rule}: too many alternatives`)
      all = all.flatMap((each) => others.map((other) => [...each, ...other]))
    }
    return all
  }

  function single(): Alternatives {
    if (++depth > deepest) throw new ImportFault(`rule ${rule.slice(0, 60)}…: too many parentheses`)
    const found = nested()
    depth--
    return found
  }

  function nested(): Alternatives {
    if (take('!')) {
      const [only = [], ...more] = single()
      const [matcher, ...others] = only
      if (more.length > 0 || others.length > 0) throw new ImportFault(`rule ${rule}: "!" before several matchers`)
      return [[{ ...matcher!, isNot: !matcher!.isNot }]]
    }
    if (take('(')) {
      const inner = either()
      if (!take(')')) throw new ImportFault(`rule ${rule}: ")" is missing`)
      return inner
    }
    const matcher = tokens[at++]
    if (typeof matcher !== 'object') throw new ImportFault(`rule ${rule}: a matcher is missing`)
    return [[matcher]]
  }

  const all = either()
  if (at < tokens.length) throw new ImportFault(`rule ${rule}: "${String(tokens[at])}" is not expected`)
  return all
}
