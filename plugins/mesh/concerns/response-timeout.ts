import type { IncomingHttpHeaders } from 'node:http'
import type { Key } from '../../../config/concern.ts'
import { everyLevel } from '../../../config/concern.ts'
import { Duration, orOff } from '../../../config/schema/kit.ts'
import type { Timer, Timers } from '../../clock.ts'
import { systemTimers } from '../../clock.ts'
import type { MeshConcern } from '../concern.ts'
import { MeshError } from '../core/errors.ts'
import { ForwardingHandler } from '../core/handlers/forwarding-handler.ts'
import type { Layer } from '../core/layer.ts'
import type { DispatchController, DispatchHandler } from '../core/types.ts'

/**
 * Limits the time of a response, from its header section to its end. The idle timeout does not end a response that
 * sends a byte now and then. A timeout is not attributed to the instance: some services stream for as long as their
 * client reads.
 */
export const responseTimeout: Layer = (service, { responseTimeout: timeoutMs = false }, { timers = systemTimers }) => {
  if (timeoutMs === false) return null
  return (dispatch) => (opts, handler) =>
    dispatch(opts, new ResponseTimeoutHandler(handler, timeoutMs, service.name, timers))
}

class ResponseTimeoutHandler extends ForwardingHandler {
  readonly #timeoutMs: number
  readonly #service: string
  readonly #timers: Timers
  #timer: Timer | undefined

  constructor(next: DispatchHandler, timeoutMs: number, service: string, timers: Timers) {
    super(next)
    this.#timeoutMs = timeoutMs
    this.#service = service
    this.#timers = timers
  }

  override onResponseStart(
    controller: DispatchController,
    status: number,
    headers: IncomingHttpHeaders,
    text?: string
  ): void {
    if (status >= 200) {
      const expire = () => controller.abort(new MeshError('JW_RESPONSE_TIMEOUT', this.#service))
      this.#timer = this.#timers.setTimeout(expire, this.#timeoutMs)
    }
    this.next.onResponseStart?.(controller, status, headers, text)
  }

  override onResponseEnd(controller: DispatchController, trailers: IncomingHttpHeaders): void {
    this.#timers.clearTimeout(this.#timer)
    this.next.onResponseEnd?.(controller, trailers)
  }

  override onResponseError(controller: DispatchController, error: Error): void {
    this.#timers.clearTimeout(this.#timer)
    this.next.onResponseError?.(controller, error)
  }
}

declare module '../../../config/schema.ts' {
  interface MeshPolicy {
    /** Duration in milliseconds. */
    responseTimeout?: number | false
  }
}

const responseTimeoutKey: Key = {
  name: 'responseTimeout',
  options: orOff(
    Duration(
      'Longest time for a whole response, from its headers to its end; does not apply to WebSockets. Unset, only pauses are limited, by `idleTimeout`.'
    )
  ),
  levels: everyLevel
}

export default { name: 'response-timeout', keys: [responseTimeoutKey], layer: responseTimeout } satisfies MeshConcern
