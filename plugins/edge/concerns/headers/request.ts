/** Rules for the headers that reach the service. */
import type { FastifyRequest } from 'fastify'
import { canonicalName, passedOnHeaders } from '../../../../config/header-names.ts'
import { hopByHop } from '../../../http-syntax.ts'
import { addUpstreamHeader, headerFilter } from '../../bridge/upstream-headers.ts'
import { nominated } from '../../protocol/headers.ts'
import type { FieldTest } from '../../templates/client-fields.ts'
import { inHeader } from '../../templates/headers.ts'
import type { Scope, Text } from '../../templates/values.ts'
import { compileText } from '../../templates/values.ts'
import type { HeaderRules } from './options.ts'
import { entriesOf } from './options.ts'

/** Headers that `only` keeps: they describe or frame the body, or belong to the connection or to a handshake. */
const kept: ReadonlySet<string> = new Set([
  'content-type', 'content-encoding', 'content-length', 'content-range', 'host', 'expect', ...hopByHop
]) // biome-ignore format: a list
const ofHandshake = 'sec-websocket-'

/** Headers that the bridge copies from trusted proxies, apart from the client's other fields. */
const ofProxies: ReadonlySet<string> = new Set(passedOnHeaders)

export type CompiledValues = readonly (readonly [name: string, texts: readonly Text[]])[]

/** Compiles the values of an operation. */
export const compiled = (values: HeaderRules['set']): CompiledValues =>
  entriesOf(values).map(([name, texts]) => [name.toLowerCase(), texts.map((text) => compileText(text, inHeader))])

/** Returns the values that are not missing. */
export function evaluated(values: CompiledValues, scope: Scope): (readonly [name: string, values: string[]])[] {
  return values.map(([name, texts]) => [name, texts.flatMap((text) => text(scope) ?? [])])
}

/**
 * Returns the function that changes the headers of one request. The client's fields are not changed: it adds to those that do
 * not reach the service, and to those that the gateway sends. `isBridged`: the bridge forwards the client's fields; otherwise
 * they are removed from the request that the plugin sees.
 */
export function requestRules(rules: HeaderRules, isBridged: boolean) {
  const only = rules.only === undefined ? null : new Set(rules.only.map((name) => name.toLowerCase()))
  const renames = Object.entries(rules.rename ?? {}).map(
    ([from, to]) => [canonicalName(from), to.toLowerCase()] as const
  )
  const [set, add, append] = [compiled(rules.set), compiled(rules.add), compiled(rules.append)]
  const always = headerFilter([...(rules.remove ?? []), ...renames.map(([from]) => from), ...set.map(([name]) => name)])
  const isKept = (name: string) => only === null || only.has(name) || kept.has(name) || name.startsWith(ofHandshake)
  const [isRemovedBefore, isSetAfter] = [headerFilter(rules.remove), headerFilter(set.map(([name]) => name))]
  const moved = renames.filter(([from, to]) => !isRemovedBefore?.(from) && !isSetAfter?.(to))

  return (request: FastifyRequest, isUncounted: FieldTest): void => {
    const scope: Scope = { request, isUncounted, response: null }
    const { rawHeaders, headers } = request.raw
    // First of all: values may be those of headers that are removed.
    const own = [...evaluated(set, scope)]
    const [added, appended] = [evaluated(add, scope), evaluated(append, scope)]
    const renamed = moved.flatMap(([from, to]) => {
      const values = valuesFor(request, from, isKept, isUncounted)
      return values.length === 0 ? [] : [[to, values] as const]
    })
    const replaced = headerFilter(renamed.map(([name]) => name))
    const isRemoved = (name: string) => always?.(name) === true || replaced?.(name) === true
    const removed = request.removedHeaders ?? new Set()
    for (let i = 0; i < rawHeaders.length; i += 2) {
      const name = rawHeaders[i]!.toLowerCase()
      if (!isRemoved(name) && (name.startsWith(':') || isKept(name))) continue
      removed.add(name)
      if (!isBridged || ofProxies.has(name)) Reflect.deleteProperty(headers, name)
    }
    if (removed.size > 0) request.removedHeaders = removed
    request.isRemovedTrailer = (name) => isRemoved(name) || only?.has(name) === false
    if (request.upstreamHeaders !== null && (always ?? replaced) !== null) {
      request.upstreamHeaders = request.upstreamHeaders.filter(
        (_, index, all) => !isRemoved(all[index - (index % 2)]!.toLowerCase())
      )
    }
    for (const [name, values] of renamed) for (const value of values) addUpstreamHeader(request, name, value)
    for (const [name, values] of own) for (const value of values) addUpstreamHeader(request, name, value)
    for (const [name, values] of added) {
      if (values.length === 0 || isPresent(request, name, isUncounted)) continue
      for (const value of values) addUpstreamHeader(request, name, value)
    }
    for (const [name, values] of appended) for (const value of values) addUpstreamHeader(request, name, value)
  }
}

/** Returns the values of a header for the service, in all spellings that are kept. */
function valuesFor(
  request: FastifyRequest,
  wanted: string,
  isKept: (name: string) => boolean,
  isUncounted: FieldTest
): string[] {
  const { raw, removedHeaders, upstreamHeaders } = request
  const values: string[] = []
  const collect = (fields: readonly string[], isOfClient: boolean) => {
    for (let i = 0; i < fields.length; i += 2) {
      const name = fields[i]!
      if (name.length !== wanted.length || canonicalName(name) !== wanted) continue
      const lower = name.toLowerCase()
      if (isOfClient && (!isKept(lower) || removedHeaders?.has(lower) || isUncounted(name, request))) continue
      values.push(fields[i + 1]!)
    }
  }
  collect(raw.rawHeaders, true)
  collect(upstreamHeaders ?? [], false)
  return values
}

/** Returns whether a header reaches the service, so far. */
function isPresent(request: FastifyRequest, name: string, isUncounted: FieldTest): boolean {
  const { raw, removedHeaders, upstreamHeaders } = request
  if (upstreamHeaders?.some((each, index) => index % 2 === 0 && each.toLowerCase() === name)) return true
  if (raw.headers[name] === undefined || removedHeaders?.has(name) || isUncounted(name, request)) return false
  return nominated(raw.headers.connection)?.has(name) !== true
}
