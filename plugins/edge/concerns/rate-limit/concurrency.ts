/** Limits of requests in flight, on each node. A WebSocket is in flight until it ends. */
import { createError } from '@fastify/error'
import type { FastifyReply, FastifyRequest } from 'fastify'
import type { RecordRefusal } from '../../concern-refusals.ts'
import type { KeyOf, LimitReason } from './keys.ts'
import { keyFor } from './keys.ts'

const Exceeded = createError('JW_CONCURRENCY_LIMITED', 'Too many requests in flight', 429)

export interface Ceiling {
  /** Returns the most requests in flight on this node. */
  readonly most: () => number
  readonly keyOf: KeyOf
  /** Requests in flight by key. A key without any has no entry. */
  readonly inFlight: Map<string, number>
  /** True if the key is known only after authentication. */
  readonly isLate: boolean
  readonly isShadow: boolean
}

/** Counts a request until its response has ended. Returns an error if a key is at its limit. */
export function enter(
  ceilings: readonly Ceiling[],
  request: FastifyRequest,
  reply: FastifyReply,
  record: RecordRefusal
): Error | undefined {
  const entered: { readonly ceiling: Ceiling; readonly key: string }[] = []
  const leave = () => {
    for (const { ceiling, key } of entered.splice(0)) {
      const left = ceiling.inFlight.get(key)! - 1
      if (left === 0) ceiling.inFlight.delete(key)
      else ceiling.inFlight.set(key, left)
    }
  }
  for (const ceiling of ceilings) {
    const key = keyFor(ceiling, request, record)
    if (key === null) continue
    const count = ceiling.inFlight.get(key) ?? 0
    const reason = 'rate_concurrency' satisfies LimitReason
    if (count < ceiling.most()) {
      ceiling.inFlight.set(key, count + 1)
      entered.push({ ceiling, key })
    } else if (ceiling.isShadow) record(request, 'JW_CONCURRENCY_LIMITED', reason)
    else {
      leave()
      reply.header('retry-after', 1)
      request.refusalReason = reason
      return new Exceeded()
    }
  }
  reply.raw.once('close', leave)
  // The response to a WebSocket emits `finish` when its tunnel has ended, and no `close`.
  if (request.raw.headers.upgrade !== undefined) reply.raw.once('finish', leave)
  return undefined
}
