import { parseDuration } from '../../config/units.ts'
import type { SourceStatus } from './core/types.ts'

export interface ReadyOptions {
  /** Longest wait, as `10s` or in milliseconds; false for no limit. Default: 10 s. */
  readonly timeout?: string | number | false
  /** Ends the wait, too. */
  readonly signal?: AbortSignal
}

/** A service as far as the wait concerns it. */
interface Discovered {
  readonly name: string
  readonly ready: Promise<void>
  readonly snapshot: object | null
  readonly source: SourceStatus
}

const defaultMs = 10_000

/** Discovery has had no result for some services in time. */
export class NotReadyError extends Error {
  override readonly name = 'NotReadyError'
  readonly code = 'JW_NOT_READY'
  /** Names of the services without a result. */
  readonly services: readonly string[]

  constructor(waited: string, services: readonly Discovered[]) {
    const each = services.map(({ name, source: { error } }) => (error === null ? name : `${name} (${error})`))
    super(`mesh.ready: no result of discovery ${waited} for ${each.join(', ')}`)
    this.services = services.map(({ name }) => name)
  }
}

function timeoutOf(timeout: string | number): number {
  const ms = typeof timeout === 'string' ? parseDuration(timeout) : timeout
  if (ms === null || !(ms >= 0 && ms < 2 ** 31)) {
    throw new TypeError(
      `mesh.ready: timeout must be a duration such as "10s" or false, found ${JSON.stringify(timeout)}`
    )
  }
  return ms
}

/**
 * Resolves when discovery has had a result for each service, even an empty one. The timer keeps the process alive, which
 * the connections of discovery do not.
 * @throws {NotReadyError} after the timeout.
 */
export async function allReady(
  services: readonly Discovered[],
  { timeout = defaultMs, signal }: ReadyOptions,
  closed: AbortSignal
): Promise<void> {
  signal?.throwIfAborted()
  const ms = timeout === false ? null : timeoutOf(timeout)
  const end = signal === undefined ? closed : AbortSignal.any([closed, signal])
  const waiting = () => services.filter(({ snapshot }) => snapshot === null)
  let timer: NodeJS.Timeout | undefined
  let onEnd = () => {}
  try {
    await new Promise<void>((resolve, reject) => {
      onEnd = () => reject(end.reason)
      if (end.aborted) return onEnd()
      end.addEventListener('abort', onEnd, { once: true })
      if (ms !== null) timer = setTimeout(() => reject(new NotReadyError(`within ${ms} ms`, waiting())), ms)
      Promise.all(services.map(({ ready }) => ready)).then(() => resolve(), reject)
    })
  } finally {
    clearTimeout(timer)
    end.removeEventListener('abort', onEnd)
  }
}
