import type { IncomingHttpHeaders } from 'node:http'
import type { Duplex } from 'node:stream'
import { MeshError } from '../errors.ts'
import { ForwardingHandler } from '../handler.ts'
import type { Layer } from '../layer.ts'
import type { DispatchController, DispatchHandler, Endpoint } from '../types.ts'

/** Chooses the instance of each attempt from the newest snapshot and counts the attempt as its load. */
export const select: Layer = (service) => (dispatch) => (opts, handler) => {
  const call = opts.call!
  const balancer = service.snapshot?.balancer
  // Where every instance was tried, one of them again is better than none.
  const instance = balancer?.pick(call.tried) ?? balancer?.pick(null)
  if (!instance) {
    handler.onResponseError?.(call, new MeshError('JW_NO_INSTANCE', service.name))
    return true
  }
  call.attempts++
  call.selected = instance
  const load = new LoadHandler(handler, instance.endpoint)
  try {
    return dispatch({ ...opts, origin: instance.origin }, load)
  } catch (error) {
    // An interceptor threw: to this attempt, that is how it ended.
    load.onResponseError(call, error as Error)
    return true
  }
}

class LoadHandler extends ForwardingHandler {
  readonly #endpoint: Endpoint
  #counted = true

  constructor(next: DispatchHandler, endpoint: Endpoint) {
    super(next)
    this.#endpoint = endpoint
    endpoint.active++
  }

  #release(): void {
    if (this.#counted) this.#endpoint.active--
    this.#counted = false
  }

  // An upgraded connection is the socket's business: it does not end here.
  override onRequestUpgrade(
    controller: DispatchController,
    status: number,
    headers: IncomingHttpHeaders,
    socket: Duplex
  ): void {
    socket.once('close', () => this.#release())
    this.next.onRequestUpgrade?.(controller, status, headers, socket)
  }

  override onResponseEnd(controller: DispatchController, trailers: IncomingHttpHeaders): void {
    this.#release()
    this.next.onResponseEnd?.(controller, trailers)
  }

  override onResponseError(controller: DispatchController, error: Error): void {
    this.#release()
    this.next.onResponseError?.(controller, error)
  }
}
