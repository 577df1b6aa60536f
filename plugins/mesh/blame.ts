import { classify } from './errors.ts'
import type { DispatchController } from './types.ts'

/** How a failure tells against the service. */
export type Blame = 'error' | 'timeout'

/** The pool of an instance that left; silence in a stream, which may have nothing to say; the time of some other call. */
const blameless = new Set(['UND_ERR_CLOSED', 'UND_ERR_DESTROYED', 'UND_ERR_BODY_TIMEOUT', 'JW_CALL_TIMEOUT'])
/** Answers that are none, which `classify` does not know. */
const malformed = /^(HPE_|UND_ERR_RES_|UND_ERR_HEADERS_OVERFLOW|ERR_HTTP2_)/

/**
 * Whether a failure is the service's: not that of a caller who left or whose request broke off, of a hedge that lost,
 * or a refusal of ours. Breaker, outlier detection and latencies all go by this. `elapsedMs` is how long the service
 * had, `timeoutMs` what the whole call has.
 */
export function blame(
  error: Error & { code?: string },
  { aborted, over, reason }: DispatchController & { readonly over: boolean },
  elapsedMs: number,
  timeoutMs: number
): Blame | null {
  if (aborted) {
    // Where the call's time is up before the attempt's, an instance that never answers would never be blamed; one that
    // a retry or a queue has left with little of it has not had a fair share.
    const expired = (reason as typeof error | null)?.code === 'JW_CALL_TIMEOUT'
    return expired && elapsedMs >= timeoutMs / 2 ? 'timeout' : null
  }
  const { code = '' } = error
  if (over || blameless.has(code)) return null
  const failure = classify(error, false)
  if (failure === 'timeout') return 'timeout'
  return failure !== 'other' || error.name === 'HTTPParserError' || malformed.test(code) ? 'error' : null
}
