/**
 * Conditions of a route besides host, path and method: request headers, query parameters, cookies and the client's address.
 * Repeated values, and those of spellings that services read alike, must all meet a condition, so that a request meets it in
 * the reading of every service.
 */
import type { IncomingHttpHeaders } from 'node:http'
import { AddressSet, parseAddress, parseRange } from '../plugins/address-ranges.ts'
import { canonicalName } from './header-names.ts'
import { linearRegExp } from './linear-regexp.ts'
import type { RouteMatch } from './schema.ts'

/** Kinds of conditions that are named values. */
export const valueKinds = ['headers', 'query', 'cookies'] as const

type Kind = (typeof valueKinds)[number] | 'addresses'
export type ValueCondition = NonNullable<RouteMatch['headers']>[string]

/** A request, as conditions read it. */
interface Source {
  readonly headers: IncomingHttpHeaders
  /** Request target. */
  readonly url: string
  /** Address of the client; needed only if a route has a condition for it. */
  readonly address: string
}

/** Characters that services read as a dash; HTTP/2 has pseudo-headers with a colon. */
const odd = /[^a-z0-9:-]/
const isAlike = (a: string, b: string) => a.length === b.length && canonicalName(a) === canonicalName(b)

/** Facts about one request, computed on first use. */
export class Facts {
  readonly address: string
  readonly #source: Source
  #query: URLSearchParams | undefined
  #cookies: Map<string, string[]> | undefined
  /** True if the request has a header that services may read as another one, such as `x_role`. */
  #hasOdd: boolean | undefined
  /** Results by the key of the condition: a request that matches no route is searched for with each method. */
  readonly #met = new Map<string, boolean>()

  constructor(source: Source) {
    this.#source = source
    this.address = source.address
  }

  meets(condition: Condition): boolean {
    let isMet = this.#met.get(condition.key)
    if (isMet === undefined) {
      isMet = condition.isMet(this)
      this.#met.set(condition.key, isMet)
    }
    return isMet
  }

  /** Returns the values of a header, parameter or cookie; none if the request does not have it. */
  values(kind: (typeof valueKinds)[number], name: string): readonly string[] {
    if (kind === 'query') return this.query.getAll(name)
    if (kind === 'cookies') return this.cookies.get(name) ?? []
    const { headers } = this.#source
    this.#hasOdd ??= Object.keys(headers).some((each) => odd.test(each))
    const isPlain = !this.#hasOdd && !odd.test(name)
    const names = isPlain ? [name] : Object.keys(headers).filter((each) => isAlike(each, name))
    // Node joins the values of a repeated header. Its object also inherits, such as `constructor`.
    return names.flatMap((each) => (Object.hasOwn(headers, each) ? String(headers[each]) : []))
  }

  get query(): URLSearchParams {
    const { url } = this.#source
    const mark = url.indexOf('?')
    this.#query ??= new URLSearchParams(mark === -1 ? '' : url.slice(mark + 1))
    return this.#query
  }

  /** Values as services read them: without quotes, otherwise as sent. */
  get cookies(): ReadonlyMap<string, readonly string[]> {
    if (this.#cookies !== undefined) return this.#cookies
    this.#cookies = new Map()
    for (const pair of (this.#source.headers.cookie ?? '').split(';')) {
      const equals = pair.indexOf('=')
      if (equals === -1) continue
      const name = pair.slice(0, equals).trim()
      const text = pair.slice(equals + 1).trim()
      const value = text.length > 1 && text.startsWith('"') && text.endsWith('"') ? text.slice(1, -1) : text
      const known = this.#cookies.get(name)
      if (known === undefined) this.#cookies.set(name, [value])
      else known.push(value)
    }
    return this.#cookies
  }
}

export interface Condition {
  readonly kind: Kind
  /** Equal for equal conditions. */
  readonly key: string
  readonly isExact: boolean
  readonly isMet: (facts: Facts) => boolean
}

/** The conditions of a route. */
export interface Conditions {
  /** Lower-case names of headers with an exact value, sorted: routes with these are found by a lookup. */
  readonly names: readonly string[]
  /** Their values, as one text. */
  readonly values: string
  /** The other conditions, sorted by their keys. */
  readonly others: readonly Condition[]
}

/** Compiles the conditions of a match whose regular expressions are valid. */
export function conditionsOf(match: Omit<RouteMatch, 'path'>): Conditions {
  const headers = lowerCase(match.headers).sort(([a], [b]) => (a < b ? -1 : 1))
  const exact = headers.filter((each): each is [string, string] => typeof each[1] === 'string')
  const others = [
    ...headers.filter(([, wanted]) => typeof wanted !== 'string').map(([name, wanted]) => of('headers', name, wanted)),
    ...Object.entries(match.query ?? {}).map(([name, wanted]) => of('query', name, wanted)),
    ...Object.entries(match.cookies ?? {}).map(([name, wanted]) => of('cookies', name, wanted)),
    ...(match.addresses === undefined ? [] : [ofAddress(match.addresses)])
  ]
  return {
    names: exact.map(([name]) => name),
    // Header values cannot contain line feeds, so the joined text is unambiguous.
    values: exact.map(([, value]) => value).join('\n'),
    others: others.sort((a, b) => (a.key < b.key ? -1 : 1))
  }
}

/** Returns header conditions with lower-case names. */
export const lowerCase = (headers: RouteMatch['headers']): [string, ValueCondition][] =>
  Object.entries(headers ?? {}).map(([name, wanted]) => [name.toLowerCase(), wanted])

function of(kind: (typeof valueKinds)[number], name: string, wanted: ValueCondition): Condition {
  const fits = testOf(wanted)
  const key = JSON.stringify([kind, name, wanted])
  return { kind, key, isExact: typeof wanted === 'string', isMet: (facts) => fits(facts.values(kind, name)) }
}

function testOf(wanted: ValueCondition): (values: readonly string[]) => boolean {
  if (typeof wanted === 'string') return (values) => values.length > 0 && values.every((value) => value === wanted)
  const { regex, present = true } = wanted
  if (regex === undefined) return (values) => values.length > 0 === present
  const test = linearRegExp(regex)
  return (values) => values.length > 0 && values.every(test)
}

function ofAddress(ranges: readonly string[]): Condition {
  const set = new AddressSet(ranges.map(parseRange))
  const key = JSON.stringify(['addresses', [...ranges].sort()])
  const isMet = ({ address }: Facts) => {
    const parsed = parseAddress(address)
    return parsed !== null && set.has(parsed)
  }
  return { kind: 'addresses', key, isExact: false, isMet }
}

/** Lists the conditions of a match for people, without values, which may be secrets: `x-beta:***`, `?debug`, `cookie ring:***`. */
export function conditionTexts(match: RouteMatch): string[] {
  const { addresses, listeners } = match
  const prefix = { headers: '', query: '?', cookies: 'cookie ' }
  const shown = (name: string, wanted: ValueCondition) => {
    if (typeof wanted === 'string' || wanted.regex !== undefined) return `${name}:***`
    return wanted.present === false ? `no ${name}` : name
  }
  return [
    ...valueKinds.flatMap((kind) =>
      Object.entries(match[kind] ?? {}).map(([name, wanted]) => shown(`${prefix[kind]}${name}`, wanted))
    ),
    ...(addresses === undefined ? [] : [`from ${addresses.join(',')}`]),
    ...(listeners === undefined ? [] : [`on ${listeners.join(',')}`])
  ]
}
