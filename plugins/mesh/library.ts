import { didYouMean } from '../../config/nearest.ts'
import { headerPairs, withMissing } from '../http-syntax.ts'
import type { Meter } from '../meter.ts'
import { MeshError } from './core/errors.ts'
import type { DispatchHandler, DispatchOptions } from './core/types.ts'
import type { MeshConfig, MeshOptions } from './mesh.ts'
import { Mesh } from './mesh.ts'

/** A meter that is closed with its mesh. */
export interface ClosingMeter extends Meter {
  close(): void
}

/**
 * Returns headers for a call, such as `traceparent`. It runs in the async context of the caller, once per call, before the
 * request is sent.
 */
export type CallHeaders = (call: DispatchOptions) => DispatchOptions['headers']

export interface LibraryOptions extends Omit<MeshOptions, 'meter'> {
  readonly meter?: Meter | ClosingMeter
  /** Headers for each call. Those that the caller has set take precedence. */
  readonly headers?: CallHeaders
}

/** Headers that differ in each request although the requests are the same. */
const perRequestHeaders = ['traceparent', 'tracestate', 'baggage', 'x-request-id']

const ofTls = 'TLS to its instances is a setting of the service'

/** The mesh of a program of its own, without a gateway. */
export class LibraryMesh extends Mesh {
  readonly #names: readonly string[]
  readonly #headers: CallHeaders | null
  readonly #meter: Meter | ClosingMeter | undefined

  constructor(config: MeshConfig, { headers, ...options }: LibraryOptions = {}) {
    super(config, { perRequestHeaders, ...options })
    this.#names = Object.keys(config.services)
    this.#headers = headers ?? null
    this.#meter = options.meter
  }

  override dispatch(opts: DispatchOptions, handler: DispatchHandler): boolean {
    const more = headerPairs(this.#headers?.(opts))
    return super.dispatch(more.length === 0 ? opts : { ...opts, headers: withMissing(opts.headers, more) }, handler)
  }

  /** The message tells the mistake: the calls come from the program itself, not from its clients. */
  protected override unknownService(name: string): MeshError {
    const error = new MeshError('JW_NO_SERVICE', name)
    const [, scheme, host, port] = /^(https?):\/\/(.*?)(?:\.mesh)?(:\d+)?$/.exec(name) ?? []
    if (host === undefined) error.message += didYouMean(name, this.#names)
    else if (this.#names.includes(host)) {
      const reason = port === undefined ? '.mesh is missing' : `without ${port}`
      error.message += `; call it by http://${host}.mesh (${scheme === 'https' ? ofTls : reason})`
    } else error.message += `; the origin of a service is http://NAME.mesh, and NAME one of ${this.#names.join(', ')}`
    return error
  }

  override async shutdown(graceMs?: number): Promise<void> {
    await super.shutdown(graceMs)
    this.#closeMeter()
  }

  protected override async abort(error: Error | null): Promise<void> {
    await super.abort(error)
    this.#closeMeter()
  }

  #closeMeter(): void {
    if (this.#meter !== undefined && 'close' in this.#meter) this.#meter.close()
  }
}
