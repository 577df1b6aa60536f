import type { IncomingHttpHeaders } from 'node:http'
import { headerPairs } from '../http-syntax.ts'
import type { SeamError, SeamReason } from '../seam.ts'
import { callerHeader, callHeader, errorHeader } from '../seam-headers.ts'
import type { MeshConcern } from './concern.ts'
import { ForwardingHandler } from './core/handlers/forwarding-handler.ts'
import type { Layer } from './core/layer.ts'
import type { DispatchController, DispatchHandler, DispatchOptions } from './core/types.ts'
import { isBorrowing } from './http/borrowing.ts'

declare module '../../config/schema.ts' {
  interface MeshPolicy {
    /** Name of the call for the sidecar that runs the mesh half of this gateway; the loader sets it. */
    handOver?: string
  }
}

const own: ReadonlySet<string> = new Set([callHeader, callerHeader])

/**
 * Hands a call over to the sidecar that has the same configuration: adds the name of the call and the caller to the request,
 * and turns the sidecar's responses to errors of its mesh into these errors, so that the edge treats them as its own mesh's.
 */
export const handOver: Layer = (service, { handOver: name }) => {
  if (name === undefined) return null
  return (dispatch) => (opts, handler) => {
    const headers: string[] = []
    const given = headerPairs(opts.headers, true)
    let hasHost = false
    for (let i = 0; i < given.length; i += 2) {
      const field = given[i]!
      if (own.has(field)) continue
      hasHost ||= field === 'host'
      headers.push(field, given[i + 1]!)
    }
    headers.push(callHeader, name, callerHeader, callerText(opts, hasHost))
    return dispatch({ ...opts, headers }, new HandOverHandler(handler, service.name))
  }
}

/**
 * Returns the caller as a query string. `host`: the request has a `Host`; else the instance's is wanted. `traced`: the call's
 * trace is recorded.
 */
function callerText({ caller, trace }: DispatchOptions, hasHost: boolean): string {
  const fields = new URLSearchParams()
  if (caller !== undefined) {
    fields.set('ip', caller.ip)
    if (caller.consumer !== null) fields.set('consumer', caller.consumer.id)
    if (caller.trusted) fields.set('trusted', '1')
    if (caller.protocol !== undefined) fields.set('protocol', caller.protocol)
  }
  if (hasHost) fields.set('host', '1')
  if (trace !== undefined) fields.set('traced', '1')
  return fields.toString()
}

/** An error of the mesh in the sidecar. */
class HandedError extends Error implements SeamError {
  override readonly name = 'HandedError'
  readonly code: string
  readonly retryAfterMs: number | undefined
  readonly reason: SeamReason | undefined

  constructor(service: string, text: string) {
    const fields = new URLSearchParams(text)
    const code = fields.get('code') ?? 'JW_UPSTREAM_MALFORMED'
    super(`${service}: ${code} in the sidecar, whose log has the cause`)
    this.code = code
    const retryAfter = fields.get('retryAfter')
    this.retryAfterMs = retryAfter === null ? undefined : Number(retryAfter)
    this.reason = (fields.get('reason') as SeamReason | null) ?? undefined
  }
}

class HandOverHandler extends ForwardingHandler {
  readonly #service: string
  #error: HandedError | null = null

  constructor(next: DispatchHandler, service: string) {
    super(next)
    this.#service = service
    this.borrows = isBorrowing(next) ? HandOverHandler.prototype.onResponseData : undefined
  }

  override onResponseStart(
    controller: DispatchController,
    status: number,
    headers: IncomingHttpHeaders,
    text?: string
  ): void {
    // An error is a final response.
    const error = status < 200 ? undefined : headers[errorHeader]
    if (error === undefined) super.onResponseStart(controller, status, headers, text)
    else this.#error = new HandedError(this.#service, String(error))
  }

  override onResponseData(controller: DispatchController, chunk: Buffer): void {
    // The edge writes its own body.
    if (this.#error === null) super.onResponseData(controller, chunk)
  }

  override onResponseEnd(controller: DispatchController, trailers: IncomingHttpHeaders): void {
    if (this.#error === null) super.onResponseEnd(controller, trailers)
    else super.onResponseError(controller, this.#error)
  }

  override onResponseError(controller: DispatchController, error: Error): void {
    super.onResponseError(controller, this.#error ?? error)
  }
}

export default { name: 'hand-over', layer: handOver } satisfies MeshConcern
