import { headerOf } from '../request-fields.ts'
import type { DispatchOptions } from '../types.ts'

/** Options of a policy for requests that may be sent twice. */
interface Repeatable {
  readonly methods: readonly string[]
  readonly idempotencyKey: boolean
}

/**
 * Returns a predicate for requests that may be sent twice: by their method, or because they have an `Idempotency-Key`
 * (draft-ietf-httpapi-idempotency-key-header).
 */
export function idempotency({ methods, idempotencyKey }: Repeatable): (opts: DispatchOptions) => boolean {
  const set = new Set<string>(methods)
  if (!idempotencyKey) return ({ method }) => set.has(method)
  return (opts) => set.has(opts.method) || Boolean(headerOf(opts, 'idempotency-key'))
}
