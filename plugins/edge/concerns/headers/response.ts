/** Rules for the headers of responses: those of the service, and those that the gateway and plugins have set on the reply. */
import type { IncomingHttpHeaders } from 'node:http'
import type { FastifyReply, FastifyRequest } from 'fastify'
import type { Scope } from '../../templates/values.ts'
import type { HeaderRules } from './options.ts'
import { compiled, evaluated } from './request.ts'

/** Headers of a service that `only` keeps: they describe the body. */
const kept: ReadonlySet<string> = new Set([
  'content-type', 'content-encoding', 'content-length', 'content-range', 'trailer', 'transfer-encoding', 'connection'
]) // biome-ignore format: a list

type Values = string | number | string[] | undefined

/** Values on the reply before the rules changed them. */
export type Before = Map<string, Values>

const listOf = (...values: Values[]): string[] =>
  values.flatMap((value) => (value === undefined ? [] : [value].flat().map(String)))

/** Headers of a service: all of them, to which templates refer, and those that are left by `only` and other concerns. */
interface Given {
  readonly original: IncomingHttpHeaders
  readonly passed: IncomingHttpHeaders
}

export interface ResponseRules {
  /** Returns the headers of a service that `only` keeps; the given ones if it keeps all. */
  kept(headers: IncomingHttpHeaders): IncomingHttpHeaders
  /**
   * Changes the headers of one response. Those of the service are copied. New values are set on the reply, which wins over the
   * service. It records in `before` what it changes on the reply.
   */
  changed(
    request: FastifyRequest,
    reply: FastifyReply,
    given: Given,
    status: number,
    before: Before
  ): IncomingHttpHeaders
}

export function responseRules(rules: HeaderRules): ResponseRules {
  const only = rules.only === undefined ? null : new Set(rules.only.map((name) => name.toLowerCase()))
  const removed = (rules.remove ?? []).map((name) => name.toLowerCase())
  const renames = Object.entries(rules.rename ?? {}).map((names) => names.map((name) => name.toLowerCase()))
  const [set, add, append] = [compiled(rules.set), compiled(rules.add), compiled(rules.append)]

  const keptByOnly = (headers: IncomingHttpHeaders): IncomingHttpHeaders =>
    only === null
      ? headers
      : Object.fromEntries(Object.entries(headers).filter(([name]) => only.has(name) || kept.has(name)))

  const changed: ResponseRules['changed'] = (request, reply, { passed, original }, status, before) => {
    const fields = { ...passed }
    const valueIn = (own: IncomingHttpHeaders, name: string): Values =>
      name === 'set-cookie' || name === 'vary'
        ? nonEmpty(listOf(own[name], reply.getHeader(name)))
        : (reply.getHeader(name) ?? own[name])
    const valueNow = (name: string) => valueIn(fields, name)
    const write = (name: string, value: Values): void => {
      if (!before.has(name)) before.set(name, reply.getHeader(name))
      Reflect.deleteProperty(fields, name)
      reply.removeHeader(name)
      if (value !== undefined) reply.header(name, value)
    }
    const scope: Scope = {
      request,
      isUncounted: null,
      response: { status, header: (name) => valueIn(original, name) }
    }
    const replaced = evaluated(set, scope)
    const [added, appended] = [evaluated(add, scope), evaluated(append, scope)]
    for (const name of removed) write(name, undefined)
    for (const [from, to] of renames as [string, string][]) {
      const value = valueNow(from)
      if (value === undefined) continue
      write(from, undefined)
      write(to, value)
    }
    for (const [name, values] of replaced) write(name, single(values))
    for (const [name, values] of added) if (valueNow(name) === undefined) write(name, single(values))
    for (const [name, values] of appended) {
      if (values.length > 0) write(name, single([...listOf(valueNow(name)), ...values]))
    }
    return fields
  }
  return { kept: keptByOnly, changed }
}

const nonEmpty = (values: string[]): string[] | undefined => (values.length === 0 ? undefined : values)

/** Returns one value as a text, and several as a list, for which a header is repeated. */
const single = (values: readonly string[]): string | string[] | undefined =>
  values.length < 2 ? values[0] : [...values]

/** Restores the headers of the reply, because another response replaces the one that was changed. */
export function restore(reply: FastifyReply, before: Before): void {
  for (const [name, value] of before) {
    reply.removeHeader(name)
    if (value !== undefined) reply.header(name, value)
  }
  before.clear()
}
