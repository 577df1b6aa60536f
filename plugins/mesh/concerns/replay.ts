import type { IncomingHttpHeaders } from 'node:http'
import type { MeshConcern } from '../concern.ts'
import { ForwardingHandler } from '../core/handlers/forwarding-handler.ts'
import type { Layer } from '../core/layer.ts'
import type { Repeats } from '../core/repeating/repeats.ts'
import type { ReplayBody } from '../core/repeating/replay-body.ts'
import { isStreamed, keptBody, usuallyKept } from '../core/repeating/replay-body.ts'
import type { Service } from '../core/service.ts'
import type { DispatchController, DispatchHandler, Interceptor } from '../core/types.ts'

/**
 * Keeps a streamed request body that may be sent again, while it streams to the first attempt. `concerns` returns how
 * concerns send requests again.
 */
function replayFor(concerns: () => readonly Repeats[]): Layer {
  return (service, policy) =>
    layerOf(
      service,
      concerns().flatMap((repeats) => repeats(policy) ?? [])
    )
}

function layerOf(service: Service, repeating: readonly NonNullable<ReturnType<Repeats>>[]): Interceptor | null {
  const most = repeating.find(({ maxBody }) => maxBody !== null)?.maxBody ?? usuallyKept
  if (repeating.length === 0 || most === 0) return null
  return (dispatch) => (opts, handler) => {
    const { body } = opts
    if (!isStreamed(body) || !repeating.some(({ mayRepeat }) => mayRepeat(opts))) return dispatch(opts, handler)
    const kept = keptBody(opts, most, service)
    if (kept === null) return dispatch(opts, handler)
    const call = opts.call!
    call.whenOver(() => kept.close())
    kept.once('error', (error: Error) => call.abort(error))
    return dispatch({ ...opts, body: kept as never }, new ReplayHandler(handler, kept))
  }
}

/** Once an answer has gone to the caller, no attempt follows. */
class ReplayHandler extends ForwardingHandler {
  readonly #body: ReplayBody

  constructor(next: DispatchHandler, body: ReplayBody) {
    super(next)
    this.#body = body
  }

  override onResponseStart(
    controller: DispatchController,
    status: number,
    headers: IncomingHttpHeaders,
    text?: string
  ): void {
    if (status >= 200) this.#body.seal()
    this.next.onResponseStart?.(controller, status, headers, text)
  }
}

export const replay = (concerns: () => readonly Repeats[]): MeshConcern => ({
  name: 'replay',
  layer: replayFor(concerns)
})
