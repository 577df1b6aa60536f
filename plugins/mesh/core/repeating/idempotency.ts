import type { RetryOptions } from '../../../../config/schema.ts'
import { headerOf } from '../request-facts.ts'
import type { DispatchOptions } from '../types.ts'

/**
 * Returns a function that tells whether a request may be sent twice: by its method, or because it has an
 * `Idempotency-Key` (draft-ietf-httpapi-idempotency-key-header).
 */
export function idempotency({
  methods,
  idempotencyKey
}: Pick<RetryOptions, 'methods' | 'idempotencyKey'>): (opts: DispatchOptions) => boolean {
  const set = new Set<string>(methods)
  if (!idempotencyKey) return ({ method }) => set.has(method)
  return (opts) => set.has(opts.method) || Boolean(headerOf(opts, 'idempotency-key'))
}
