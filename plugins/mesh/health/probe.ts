import { ConnectionError, classify } from '../core/errors.ts'
import { isOneOf } from '../core/statuses.ts'
import type { DispatchController, DispatchHandler } from '../core/types.ts'
import type { Open } from '../http/pool.ts'
import { Pool } from '../http/pool.ts'
import type { HealthCheckOptions } from './options.ts'

/**
 * Checks one address once. `done` gets null or the failure, and whether it is a shortage of this process, which is not
 * attributed to the instance. Returns a function that cancels the check; `done` is then not called.
 */
export type Probe = (done: (failure: string | null, isLocal?: boolean) => void) => () => void

/** Most bytes of a response that are read; the status decides. */
const mostBytes = 64 * 1024

/**
 * Builds a probe that uses a new connection each time: it shows that the instance accepts connections, and a full pool
 * does not make the instance look unhealthy.
 */
export function probeOf(origin: string, options: HealthCheckOptions, open: Open, stalledMs = () => 0): Probe {
  const check = options.type === 'tcp' ? tcp(open) : http(origin, options, open)
  const name = options.type === 'tcp' ? 'TCP check' : `GET ${options.path}`
  return (done) => {
    let over = false
    let close: (() => void) | null = null
    const end = () => {
      over = true
      clearTimeout(timer)
      close?.()
    }
    const finish = (failure: string | null, isLocal = false) => {
      if (over) return
      end()
      done(failure, isLocal)
    }
    const stalledBeforeMs = stalledMs()
    // If the event loop was blocked, the response may have arrived unread, so read first. The request may also have
    // been sent too late; then the lack of a response is ignored.
    const expired = () => {
      const wasBlocked = stalledMs() > stalledBeforeMs
      setImmediate(() => finish(`${name}: no response within ${options.timeout} ms`, wasBlocked))
    }
    const timer = setTimeout(expired, options.timeout).unref()
    try {
      close = check(finish)
      if (over) close()
    } catch (error) {
      finish(describe(error as Error))
    }
    return end
  }
}

type Check = (finish: (failure: string | null, isLocal?: boolean) => void) => () => void

function tcp(open: Open): Check {
  return (finish) => {
    const socket = open((error, connected) => {
      connected?.destroy()
      if (error === null) finish(null)
      else finish(describe(error), classify(error, false) === 'local')
    }, undefined)
    return () => socket?.destroy()
  }
}

function http(origin: string, { path, host, statuses }: HealthCheckOptions, open: Open): Check {
  const expected = isOneOf(statuses)
  const headers = { 'user-agent': 'jingwei-health-check', ...(host !== undefined && { host }) }
  return (finish) => {
    const pool = new Pool({ host: new URL(origin).host, connections: 1, direct: false, open, onWait: () => undefined })
    pool.dispatch(
      { path, method: 'GET', headers, reset: true },
      new ResponseHandler((status, error) => {
        if (error !== null) {
          const failure = status === 0 ? describe(error) : `GET ${path}: ${describe(error)}`
          finish(failure, classify(error, false) === 'local')
        } else finish(expected(status) ? null : `GET ${path} responded with ${status}`)
      })
    )
    return () => pool.destroy()
  }
}

class ResponseHandler implements DispatchHandler {
  readonly #done: (status: number, error: Error | null) => void
  #status = 0
  #bytes = 0

  constructor(done: (status: number, error: Error | null) => void) {
    this.#done = done
  }

  onRequestStart(): void {}

  onResponseStart(_controller: DispatchController, status: number): void {
    this.#status = status
  }

  onResponseData(_controller: DispatchController, chunk: Buffer): void {
    this.#bytes += chunk.length
    if (this.#bytes > mostBytes) this.#done(this.#status, null)
  }

  onResponseEnd(): void {
    this.#done(this.#status, null)
  }

  onResponseError(_controller: DispatchController, error: Error): void {
    this.#done(this.#status, error)
  }
}

const words: Readonly<Record<string, string>> = {
  ECONNREFUSED: 'connection refused',
  ECONNRESET: 'connection reset',
  EHOSTUNREACH: 'host unreachable',
  ENETUNREACH: 'network unreachable',
  ENOTFOUND: 'host name not found',
  ETIMEDOUT: 'connection timed out',
  UND_ERR_CONNECT_TIMEOUT: 'connection timed out',
  UND_ERR_SOCKET: 'connection closed before the end of the response'
}

/** Describes the original network error, which is more specific than its translation to a code of the mesh. */
function describe(error: Error): string {
  const cause = (error instanceof ConnectionError ? error.cause : error) as Error & { code?: string }
  return words[cause.code ?? ''] ?? cause.message.slice(0, 200)
}
