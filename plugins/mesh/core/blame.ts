import { classify } from './errors.ts'
import type { DispatchController } from './types.ts'

/** Kind of a failure that is the service's. */
export type Blame = 'error' | 'timeout'

/**
 * Not the instance's fault: it was removed from the service; its stream had nothing to send for the idle timeout; the
 * deadline of another call has passed.
 */
const blameless = new Set(['JW_INSTANCE_REMOVED', 'JW_UPSTREAM_TIMEOUT', 'JW_CALL_TIMEOUT'])

/**
 * Returns whether a failure is the service's. Not its own: a caller that left or whose request broke off, a hedge that
 * lost, a refusal of ours, a resource that this process has run out of, an exception of a handler. The circuit, outlier
 * detection and latencies go by this. `elapsedMs` is how long the service had, `timeoutMs` how long the whole call has.
 */
export function blame(
  error: Error & { code?: string },
  { aborted, over, reason }: DispatchController & { readonly over: boolean },
  elapsedMs: number,
  timeoutMs: number
): Blame | null {
  if (aborted) {
    // An instance that never responds would never be blamed if the call times out before the attempt does. One that a
    // retry or a queue has left with little of that time is not to blame.
    const expired = (reason as typeof error | null)?.code === 'JW_CALL_TIMEOUT'
    return expired && elapsedMs >= timeoutMs / 2 ? 'timeout' : null
  }
  const { code = '' } = error
  if (over || blameless.has(code)) return null
  const failure = classify(error, false)
  if (failure === 'timeout') return 'timeout'
  return failure === 'other' || failure === 'local' ? null : 'error'
}
