import { classify } from './errors.ts'
import type { DispatchController } from './types.ts'

/** Kind of a failure that is attributed to the service. */
type Blame = 'error' | 'timeout'

/**
 * Failures that are not the instance's fault: it was removed from the service; its stream sent nothing for the idle
 * timeout; the deadline of another call has passed.
 */
const blameless = new Set(['JW_INSTANCE_REMOVED', 'JW_UPSTREAM_TIMEOUT', 'JW_CALL_TIMEOUT'])

/**
 * Returns the kind of a failure that is the service's fault, or null. Not its fault are: a caller that disconnected or
 * whose request body failed, a hedge that lost, a refusal by the gateway, a resource shortage of this process, an
 * exception in a handler. Circuit breaker, outlier detection and latencies use this. `elapsedMs` is the time that the
 * service had, `timeoutMs` the timeout of the whole call.
 */
export function blame(
  error: Error & { code?: string },
  { aborted, over, reason }: DispatchController & { readonly over: boolean },
  elapsedMs: number,
  timeoutMs: number
): Blame | null {
  if (aborted) {
    // A timeout of the whole call counts, else an instance that never responds would never fail if `timeout` is not
    // longer than `attemptTimeout`. It does not count if a queue or earlier attempts used up most of the time.
    const expired = (reason as typeof error | null)?.code === 'JW_CALL_TIMEOUT'
    return expired && elapsedMs >= timeoutMs / 2 ? 'timeout' : null
  }
  const { code = '' } = error
  if (over || blameless.has(code)) return null
  const failure = classify(error, false)
  if (failure === 'timeout') return 'timeout'
  return failure === 'other' || failure === 'local' ? null : 'error'
}
