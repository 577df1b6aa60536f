import type { IncomingHttpHeaders } from 'node:http'
import type { MeshConcern } from '../concern.ts'
import { ForwardingHandler } from '../core/handlers/forwarding-handler.ts'
import type { Layer } from '../core/layer.ts'
import { idempotency } from '../core/repeating/idempotency.ts'
import type { ReplayBody } from '../core/repeating/replay-body.ts'
import { isStreamed, keptBody, usuallyKept } from '../core/repeating/replay-body.ts'
import type { DispatchController, DispatchHandler } from '../core/types.ts'

/** Keeps a streamed request body that may be sent again, while it streams to the first attempt. */
export const replay: Layer = (service, { retry, hedge }) => {
  const most = retry ? retry.maxBody : hedge ? usuallyKept : 0
  if (most === 0) return null
  const hedged = new Set<string>(hedge ? hedge.methods : [])
  const idempotent = retry ? idempotency(retry) : () => false
  return (dispatch) => (opts, handler) => {
    const { body } = opts
    if (!isStreamed(body) || !(idempotent(opts) || hedged.has(opts.method))) return dispatch(opts, handler)
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

export default { name: 'replay', layer: replay } satisfies MeshConcern
