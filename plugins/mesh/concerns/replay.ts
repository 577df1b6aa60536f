import type { IncomingHttpHeaders } from 'node:http'
import type { MeshConcern } from '../concern.ts'
import { ForwardingHandler } from '../core/handlers/forwarding-handler.ts'
import type { Layer } from '../core/layer.ts'
import type { Repeating } from '../core/repeating/repeats.ts'
import type { ReplayBody } from '../core/repeating/replay-body.ts'
import { defaultBufferBytes, isStreamed, replayableBody } from '../core/repeating/replay-body.ts'
import type { DispatchController, DispatchHandler, DispatchOptions } from '../core/types.ts'

/** Buffers a streamed request body that an inner concern may send again, while it streams to the first attempt. */
const replay: Layer = (service, policy, context) => {
  const repeating = context.repeats().flatMap((repeats) => repeats(policy, service, context) ?? [])
  const limits = repeating.flatMap(({ maxBody }) => maxBody ?? [])
  const usual = limits.length === 0 ? defaultBufferBytes : Math.max(...limits)
  if (repeating.length === 0 || usual === 0) return null
  return (dispatch) => (opts, handler) => {
    if (!isStreamed(opts.body)) return dispatch(opts, handler)
    const most = bufferBytesOf(repeating, opts, usual)
    const kept = most === 0 ? null : replayableBody(opts, most, service)
    if (kept === null) return dispatch(opts, handler)
    const call = opts.call!
    call.whenOver(() => kept.close())
    kept.once('error', (error: Error) => call.abort(error))
    return dispatch({ ...opts, body: kept as never }, new ReplayHandler(handler, kept))
  }
}

/** Returns how many bytes of a request's body to buffer: the most that a concern which may send it again asks for. */
function bufferBytesOf(repeating: readonly Repeating[], opts: DispatchOptions, usual: number): number {
  let most = -1
  let isRepeatable = false
  for (const { maxBody, mayRepeat } of repeating) {
    if (!mayRepeat(opts)) continue
    isRepeatable = true
    if (maxBody !== null && maxBody > most) most = maxBody
  }
  if (!isRepeatable) return 0
  return most === -1 ? usual : most
}

/** Stops buffering when a response has gone to the caller: no attempt follows. */
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
