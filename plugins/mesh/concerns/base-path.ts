/** Calls below the base path of a service, `http://orders:8080/v1`. */
import type { IncomingHttpHeaders } from 'node:http'
import { belowBase, hostsOf, relocated } from '../../base-path.ts'
import type { MeshConcern } from '../concern.ts'
import { ForwardingHandler } from '../core/handlers/forwarding-handler.ts'
import type { Layer } from '../core/layer.ts'
import { lowerCasePairs } from '../core/request-fields.ts'
import type { DispatchController, DispatchHandler, DispatchOptions } from '../core/types.ts'

/** Adds the base path to the path of a call, and removes it from `Location` and `Content-Location` of the response. */
export const basePath: Layer = ({ config: { basePath: base } }) => {
  if (base === undefined) return null
  return (dispatch) => (opts, handler) =>
    dispatch({ ...opts, path: belowBase(base, opts.path) }, new Relocating(handler, base, opts))
}

class Relocating extends ForwardingHandler {
  readonly #base: string
  readonly #opts: DispatchOptions

  constructor(next: DispatchHandler, base: string, opts: DispatchOptions) {
    super(next)
    this.#base = base
    this.#opts = opts
  }

  override onResponseStart(
    controller: DispatchController,
    status: number,
    headers: IncomingHttpHeaders,
    text?: string
  ): void {
    const hosts = () => hostsOf(lowerCasePairs(this.#opts), this.#opts.call!.instance)
    super.onResponseStart(controller, status, relocated(headers, controller.rawHeaders, this.#base, hosts), text)
  }
}

export default { name: 'base-path', layer: basePath } satisfies MeshConcern
