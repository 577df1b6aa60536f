/** Rules for the cookies that the service gets. */
import type { FastifyRequest } from 'fastify'
import { addUpstreamHeader, looksEncoded } from '../../bridge/upstream-headers.ts'
import { nominated } from '../../protocol/headers.ts'
import type { FieldTest } from '../../templates/client-fields.ts'
import type { Scope, Text, TextPlace } from '../../templates/values.ts'
import { compileText, textOfField } from '../../templates/values.ts'
import type { RequestCookies } from './options.ts'

/** Characters of a value (RFC 6265, 4.1.1), which every server reads unchanged. */
const plain = /^[!#-+\--:<-[\]-~]*$/

/** The place of a cookie's value. What it cannot have is percent-encoded. */
const inCookie: TextPlace = {
  value: (value, isField) => {
    if (value === undefined || value === null) return undefined
    const text = typeof value === 'object' ? JSON.stringify(value) : String(value)
    if (plain.test(text) && (isField || !looksEncoded(text))) return text
    return encodeURIComponent((isField ? textOfField(text) : text).toWellFormed())
  },
  literal: (text) => text
}

/** Returns whether a text can stand in a cookie. */
export const isPlain = (text: string): boolean => plain.test(text)

type Compiled = readonly (readonly [name: string, text: Text])[]

const compiled = (values: RequestCookies['set']): Compiled =>
  Object.entries(values ?? {}).map(([name, text]) => [name, compileText(text, inCookie)])

/**
 * Returns the function that changes the cookies of one request. The client's fields stay as they are, and one field of the
 * gateway replaces them. `isBridged`: the bridge forwards the client's fields; otherwise the plugin sees the changed ones.
 */
export function requestRules(
  rules: RequestCookies,
  isBridged: boolean,
  isUncounted: FieldTest
): (request: FastifyRequest) => void {
  const only = rules.only === undefined ? null : new Set(rules.only)
  const [set, add] = [compiled(rules.set), compiled(rules.add)]
  const removed = new Set(rules.remove)
  const replaced = new Set(set.map(([name]) => name))
  const isDropped = (name: string) => removed.has(name) || only?.has(name) === false
  const renames = new Map(Object.entries(rules.rename ?? {}))
  /** Some servers separate cookies by blanks or commas, too: a removed cookie in the value of another one is sent on purpose. */
  const hides = (name: string, text: string): boolean =>
    removed.size + replaced.size > 0 &&
    /[\s,]/.test(text) &&
    text.split(/[\s,]+/).some((part, index) => {
      const [each = ''] = part.split('=', 1)
      return (index > 0 || each !== name) && (removed.has(each) || replaced.has(each))
    })

  return (request) => {
    const scope: Scope = { request, isUncounted, response: null }
    const valuesOf = (values: Compiled) => values.map(([name, text]) => [name, text(scope)] as const)
    const [own, added] = [valuesOf(set), valuesOf(add)]
    const given = pairsOf(request).filter(({ name, text }) => !isDropped(name) && !hides(name, text))
    const names = new Set(given.map(({ name }) => name))
    const moved = new Set([...renames].flatMap(([from, to]) => (names.has(from) ? [to] : [])))
    const pairs = given.flatMap(({ name, text }) => {
      const to = renames.get(name) ?? name
      if (replaced.has(to) || (to === name && moved.has(name))) return []
      return [{ name: to, text: to === name ? text : `${to}=${text.slice(text.indexOf('=') + 1)}` }]
    })
    const kept = new Set(pairs.map(({ name }) => name))
    for (const [name, value] of own) if (value !== undefined) pairs.push({ name, text: `${name}=${value}` })
    for (const [name, value] of added) {
      if (value !== undefined && !kept.has(name) && !replaced.has(name)) pairs.push({ name, text: `${name}=${value}` })
    }
    replace(request, pairs.map(({ text }) => text).join('; '), isBridged)
  }
}

/** Returns the cookies that would reach the service, as they were sent. */
function pairsOf({ raw, removedHeaders }: FastifyRequest): { name: string; text: string }[] {
  const { cookie, connection } = raw.headers
  if (cookie === undefined || removedHeaders?.has('cookie') || nominated(connection)?.has('cookie')) return []
  return cookie.split(';').flatMap((pair) => {
    const text = pair.trim()
    return text === '' ? [] : [{ name: text.split('=', 1)[0]!.trim(), text }]
  })
}

function replace(request: FastifyRequest, cookie: string, isBridged: boolean): void {
  const { headers } = request.raw
  if (headers.cookie === undefined && cookie === '') return
  request.removedHeaders ??= new Set()
  request.removedHeaders.add('cookie')
  if (!isBridged) {
    if (cookie === '') Reflect.deleteProperty(headers, 'cookie')
    else headers.cookie = cookie
  } else if (cookie !== '') addUpstreamHeader(request, 'cookie', cookie)
}
