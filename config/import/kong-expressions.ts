/** Routes of Kong's router with the flavor `expressions`: `http.path ^= "/a" && http.method == "GET"`. */
import { ImportFault } from './foreign.ts'
import type { Converted } from './traefik-match.ts'
import { matchOf, merged } from './traefik-match.ts'
import type { Matcher, Token } from './traefik-rule.ts'
import { alternativesIn } from './traefik-rule.ts'

const predicate =
  /\s*((?:any\(|lower\()*)\s*([a-z][\w.*]*)\s*(\)*)\s*(==|!=|\^=|=\^|~|>=|<=|>|<|in\b|not\s+in\b|contains\b)\s*(r#"(?:[^"]|"(?!#))*"#|"(?:\\.|[^"\\])*"|[\w.:/]+)/y

const operator = /\s*(&&|\|\||!(?!=)|\(|\))/y

/** Returns the text of a literal. */
function textOf(literal: string): string {
  if (literal.startsWith('r#')) return literal.slice(3, -2)
  return literal.startsWith('"') ? literal.slice(1, -1).replace(/\\(.)/g, '$1') : literal
}

/** Returns the matcher of a comparison; one with its text as the name if there is none, which is not converted. */
function matcherOf(field: string, comparison: string, text: string): Matcher {
  const of = (name: string, ...args: string[]): Matcher => ({ name, args, isNot: false })
  const [, kind, name = ''] = /^http\.(headers|queries)\.(\w+)$/.exec(field) ?? []
  const isEqual = comparison === '=='
  const isRegex = comparison === '~'
  if (kind === 'headers' && isEqual) return of('Header', name.replaceAll('_', '-'), text)
  if (kind === 'headers' && isRegex) return of('HeaderRegexp', name.replaceAll('_', '-'), text)
  if (kind === 'queries' && isEqual) return of('Query', name, text)
  if (kind === 'queries' && isRegex) return of('QueryRegexp', name, text)
  if (field === 'http.path' && isEqual) return of('Path', text)
  if (field === 'http.path' && comparison === '^=') return of('PathPrefix', text)
  if (field === 'http.path' && isRegex) return of('PathRegexp', text)
  if (field === 'http.method' && isEqual) return of('Method', text)
  if (field === 'http.host' && isEqual) return of('Host', text)
  if (field === 'http.host' && comparison === '=^' && /^\.[\w.-]+$/.test(text)) return of('Host', `*${text}`)
  if (field === 'http.host' && isRegex) return of('HostRegexp', text)
  if (field === 'net.src.ip' && (isEqual || comparison === 'in')) return of('ClientIP', text)
  if (field === 'net.protocol' && isEqual) return of('Protocol', text)
  return of(`${field} ${comparison} ${text}`)
}

/** Returns the matches of an expression. Throws {ImportFault} for a malformed one. */
export function matchesOfExpression(expression: string): Converted[] {
  const tokens: Token[] = []
  let at = 0
  while (at < expression.trimEnd().length) {
    predicate.lastIndex = at
    operator.lastIndex = at
    const found = operator.exec(expression)
    const [whole, , field = '', , comparison = '', literal = ''] =
      found === null ? (predicate.exec(expression) ?? []) : []
    if (found !== null) tokens.push(found[1]!)
    else if (whole === undefined) {
      const rest = expression.slice(at, at + 30).trim()
      throw new ImportFault(`expression ${expression}: cannot be read from "${rest}" on`)
    } else tokens.push(matcherOf(field, comparison.replace(/\s+/g, ' '), textOf(literal)))
    at = found === null ? predicate.lastIndex : operator.lastIndex
  }
  return merged(
    alternativesIn(tokens, expression).map((matchers) => {
      // Both protocols are served; a route for one of them is decided upon as a whole.
      const others = matchers.filter(({ name, isNot }) => name !== 'Protocol' || isNot)
      return matchOf(others)
    })
  )
}

/** Returns the protocols that an expression names. */
export const protocolsIn = (expression: string): string[] =>
  [...expression.matchAll(/net\.protocol\s*==\s*"(\w+)"/g)].map(([, name]) => name!)
