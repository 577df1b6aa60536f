/** The raw response path of a route with a body encoder, such as a compressor. */
import type { IncomingHttpHeaders } from 'node:http'
import type { Dispatcher } from 'undici'
import type { BodyEncoder, EncodeResponse } from './body-encoder.ts'
import { RawResponse } from './raw-response.ts'

type Controller = Dispatcher.DispatchController

/** Controls the encoder in place of the service: the client's pace is that of the encoder's output. */
class EncoderController implements Controller {
  readonly #service: Controller
  readonly #encoder: BodyEncoder

  constructor(service: Controller, encoder: BodyEncoder) {
    this.#service = service
    this.#encoder = encoder
  }

  get aborted(): boolean {
    return this.#service.aborted
  }

  get paused(): boolean {
    return this.#service.paused
  }

  get reason(): Error | null {
    return this.#service.reason
  }

  pause(): void {
    this.#encoder.pause()
  }

  resume(): void {
    this.#encoder.resume()
  }

  abort(reason: Error): void {
    this.#encoder.destroy()
    this.#service.abort(reason)
  }
}

/** Writes one response of a service to the client, encoded or as it is. */
export class EncodedResponse extends RawResponse {
  override readonly borrows = EncodedResponse.prototype.onResponseData
  #encoder: BodyEncoder | null = null

  protected override begin(status: number, given: IncomingHttpHeaders, text: string): void {
    const { request, reply } = this
    const encode = request.routeOptions.config.encodeResponse as EncodeResponse
    const encoded = encode(request, reply, status, given)
    if (encoded === null || encoded.start === null) {
      super.begin(status, encoded?.headers ?? given, text)
      return
    }
    const service = this.controller!
    const encoder = encoded.start({
      data: (chunk) => this.gone === null && super.onResponseData(service, chunk),
      drain: () => service.resume(),
      end: () => this.gone === null && super.complete(),
      fail: (error) => this.#fail(service, error)
    })
    try {
      super.begin(status, encoded.headers, text)
    } catch (error) {
      encoder.destroy()
      throw error
    }
    this.#encoder = encoder
    this.controller = new EncoderController(service, encoder)
  }

  override onResponseData(controller: Controller, chunk: Buffer): void {
    const encoder = this.#encoder
    if (encoder === null) super.onResponseData(controller, chunk)
    // A copy: the memory of the chunk is reused, and the encoder reads it later.
    else if (this.gone === null && !encoder.write(Buffer.from(chunk))) controller.pause()
  }

  protected override complete(): void {
    if (this.#encoder === null) super.complete()
    else this.#encoder.end()
  }

  /** Ends the exchange. Once the service has ended its response, nothing else ends that of the client. */
  override fail(reason: Error): void {
    const isEncoding = this.#encoder !== null && this.isOver && this.gone === null
    super.fail(reason)
    if (isEncoding) this.#reset(reason)
  }

  #fail(service: Controller, error: Error): void {
    if (this.gone !== null) return
    this.request.log.error({ err: error }, 'response cannot be encoded: connection reset')
    service.abort(error)
    this.#reset(error)
  }

  #reset(error: Error): void {
    if (this.gone !== null) return
    this.abortResponse(error)
    this.gone = error
  }

  protected override abortResponse(error: Error): void {
    this.#encoder?.destroy()
    super.abortResponse(error)
  }
}
