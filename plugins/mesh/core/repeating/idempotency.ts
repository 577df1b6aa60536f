import { headerOf } from '../request-facts.ts'
import type { DispatchOptions } from '../types.ts'

/** Requests that may be sent twice, as the policy says. */
interface Repeatable {
  readonly methods: readonly string[]
  readonly idempotencyKey: boolean
}

/**
 * Returns a function that tells whether a request may be sent twice: by its method, or because it has an
 * `Idempotency-Key` (draft-ietf-httpapi-idempotency-key-header).
 */
export function idempotency({ methods, idempotencyKey }: Repeatable): (opts: DispatchOptions) => boolean {
  const set = new Set<string>(methods)
  if (!idempotencyKey) return ({ method }) => set.has(method)
  return (opts) => set.has(opts.method) || Boolean(headerOf(opts, 'idempotency-key'))
}
