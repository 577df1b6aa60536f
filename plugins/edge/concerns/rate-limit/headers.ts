/** Response headers with the state of rate limits. */
import type { FastifyReply } from 'fastify'
import type { Quota } from './algorithms.ts'
import type { AnyLimit, LimitOptions } from './options.ts'
import { isCeiling } from './options.ts'
import { rest } from './store.ts'

export type HeaderStyle = NonNullable<LimitOptions['headers']>

/** State of a limit after a request. */
export interface Shown {
  readonly rule: { readonly quota: Quota; readonly headers: HeaderStyle; readonly policy: string }
  readonly remaining: number
  /** Milliseconds until the window ends, or the bucket is full. */
  readonly reset: number
}

export const seconds = (ms: number): number => Math.ceil(rest(ms) / 1000)

/** Name of a limit in the fields of the IETF draft. */
export const policyName = ({ name, max, window }: Pick<LimitOptions, 'name' | 'max' | 'window'>): string =>
  name ?? `${max}-in-${seconds(window)}s`

/** Sets the headers for one limit of a request. Where there is room for one limit only, the tightest is kept. */
export function setHeaders(reply: FastifyReply, state: Shown): void {
  const { headers } = state.rule
  if (headers === 'ietf') addToLists(reply, state)
  else if (headers !== 'none') setSeparate(reply, headers === 'separate' ? 'ratelimit' : 'x-ratelimit', state)
}

/** Fields of drafts 00 to 06, which have room for one limit: that with the fewest units left. */
function setSeparate(reply: FastifyReply, prefix: string, { rule, remaining, reset }: Shown): void {
  const before = reply.getHeader(`${prefix}-remaining`)
  if (before !== undefined && Number(before) <= remaining) return
  reply.header(`${prefix}-limit`, rule.quota.burst)
  reply.header(`${prefix}-remaining`, remaining)
  reply.header(`${prefix}-reset`, seconds(reset))
}

/** Fields of draft-ietf-httpapi-ratelimit-headers since 08: lists with an item for each limit. */
function addToLists(reply: FastifyReply, { rule: { quota, policy }, remaining, reset }: Shown): void {
  append(reply, 'ratelimit-policy', `"${policy}";q=${quota.burst};w=${seconds(quota.window)}`)
  append(reply, 'ratelimit', `"${policy}";r=${remaining};t=${seconds(reset)}`)
}

function append(reply: FastifyReply, name: string, item: string): void {
  const before = reply.getHeader(name)
  reply.header(name, before === undefined ? item : `${before}, ${item}`)
}

/** Returns the header fields of limits with a description. */
export function headerFacts(limits: readonly AnyLimit[]): Record<string, string> {
  const styles = new Set(limits.flatMap((limit) => (isCeiling(limit) ? [] : (limit.headers ?? 'separate'))))
  const facts: Record<string, string> = {}
  for (const [style, prefix] of [
    ['separate', 'RateLimit'],
    ['x-ratelimit', 'X-RateLimit']
  ] as const) {
    if (!styles.has(style)) continue
    facts[`${prefix}-Limit`] = 'Requests that the limit allows.'
    facts[`${prefix}-Remaining`] = 'Requests that are left.'
    facts[`${prefix}-Reset`] = 'Seconds until the limit is renewed.'
  }
  if (styles.has('ietf')) {
    facts['RateLimit-Policy'] = 'The limits, as in draft-ietf-httpapi-ratelimit-headers.'
    facts.RateLimit = 'Requests that are left of each limit.'
  }
  return facts
}
