/**
 * undici's diagnostics channels (`undici:request:create` …), by which APM agents and OpenTelemetry's undici
 * instrumentation observe HTTP clients. This client publishes to them as undici's own does, each attempt as a request.
 * Without subscribers this costs one check of the channels per request.
 */
import { channel } from 'node:diagnostics_channel'
import type { Socket } from 'node:net'
import { lowerCasePairs } from '../core/request-fields.ts'
import type { DispatchOptions } from '../core/types.ts'
import type { RequestHead } from './request-head.ts'
import { headerLines } from './request-head.ts'

const create = channel('undici:request:create')
const sendHeaders = channel('undici:client:sendHeaders')
const bodyChunkSent = channel('undici:request:bodyChunkSent')
const bodySent = channel('undici:request:bodySent')
const headers = channel('undici:request:headers')
const bodyChunkReceived = channel('undici:request:bodyChunkReceived')
const trailers = channel('undici:request:trailers')
const error = channel('undici:request:error')
const ofRequests = [create, sendHeaders, bodyChunkSent, bodySent, headers, bodyChunkReceived, trailers, error]

const beforeConnect = channel('undici:client:beforeConnect')
const connected = channel('undici:client:connected')
const connectError = channel('undici:client:connectError')

/**
 * Returns whether the creation of requests is observed. Subscribers create a span there, as a child of the current one.
 */
export function isCreationObserved(): boolean {
  return create.hasSubscribers
}

/** Publishes the creation of a request, and returns the object for subscribers; null if there are none. */
export function observed(opts: DispatchOptions, head: RequestHead): ObservedRequest | null {
  for (const each of ofRequests) if (each.hasSubscribers) return new ObservedRequest(opts, head)
  return null
}

/** Part of undici's `Request` that subscribers may read: its documented fields, and those that instrumentations use. */
export class ObservedRequest {
  readonly origin: DispatchOptions['origin']
  readonly method: string
  readonly path: string
  /** Headers as name, value, name, value, without those that frame the message. */
  readonly headers: string[] = []
  host: string | null = null
  contentLength: number | null = null
  contentType: string | null = null
  readonly body: DispatchOptions['body']
  readonly upgrade: string | null
  completed = false
  aborted = false
  /** Lines of the headers that subscribers have added. */
  #added = ''
  /** Names, in lower case, of added headers that replace the caller's. */
  #replaced: Set<string> | null = null

  constructor(opts: DispatchOptions, head: RequestHead) {
    this.origin = opts.origin
    this.method = opts.method
    this.path = head.target
    this.body = opts.body
    this.upgrade = typeof opts.upgrade === 'string' ? opts.upgrade : null
    this.contentLength = head.length
    const pairs = lowerCasePairs(opts)
    for (let i = 0; i < pairs.length; i += 2) {
      const [name, value] = [pairs[i]!, pairs[i + 1]!]
      if (name === 'host') this.host = value
      else if (name !== 'content-length' && name !== 'connection') this.headers.push(name, value)
      if (name === 'content-type') this.contentType = value
    }
    const { asyncContext } = opts
    const publish = () => create.publish({ request: this })
    // Use the call's async context: a retry begins in that of the event that ended the previous attempt.
    if (create.hasSubscribers) asyncContext === undefined ? publish() : asyncContext.runInAsyncScope(publish)
  }

  /**
   * Sets a header before the request is sent, such as `traceparent`. Unlike undici's method it replaces the caller's
   * header: requests of a gateway usually have the client's `traceparent`, and a service that gets two must ignore
   * both. Throws undici's `InvalidArgumentError`.
   */
  addHeader(name: string, value: string | readonly string[]): this {
    this.#added += headerLines(name, value)
    const lower = name.toLowerCase()
    for (let i = this.headers.length - 2; i >= 0; i -= 2) {
      if (this.headers[i] !== lower) continue
      this.headers.splice(i, 2)
      this.#replaced ??= new Set()
      this.#replaced.add(lower)
    }
    for (const each of [value].flat()) this.headers.push(name, each)
    return this
  }

  /** Returns the header section with the headers that subscribers have set. */
  extended(head: RequestHead): RequestHead {
    if (this.#added === '') return head
    const replaced = this.#replaced
    if (replaced === null) return { ...head, text: head.text + this.#added }
    const isKept = (line: string) => !replaced.has(line.slice(0, line.indexOf(':')).toLowerCase())
    return { ...head, text: head.text.split('\r\n').filter(isKept).join('\r\n') + this.#added }
  }

  sending({ text }: RequestHead, socket: Socket): void {
    if (sendHeaders.hasSubscribers) sendHeaders.publish({ request: this, headers: text, socket })
  }

  chunkSent(chunk: Uint8Array): void {
    // Copy, because the memory may be freed and a subscriber may keep the chunk.
    if (bodyChunkSent.hasSubscribers) bodyChunkSent.publish({ request: this, chunk: Buffer.from(chunk) })
  }

  bodySent(): void {
    if (bodySent.hasSubscribers) bodySent.publish({ request: this })
  }

  responded(statusCode: number, fields: readonly string[], statusText: string): void {
    if (!headers.hasSubscribers) return
    headers.publish({ request: this, response: { statusCode, headers: asBuffers(fields), statusText } })
  }

  chunkReceived(chunk: Uint8Array): void {
    // Copy, because the next bytes may be read into the same memory.
    if (bodyChunkReceived.hasSubscribers) bodyChunkReceived.publish({ request: this, chunk: Buffer.from(chunk) })
  }

  ended(fields: readonly string[]): void {
    this.completed = true
    if (trailers.hasSubscribers) trailers.publish({ request: this, trailers: asBuffers(fields) })
  }

  failed(reason: Error): void {
    if (error.hasSubscribers) error.publish({ request: this, error: reason })
    this.aborted = true
  }
}

/** Converts fields to buffers, the shape in which undici publishes them. */
function asBuffers(fields: readonly string[]): Buffer[] {
  return fields.map((text) => Buffer.from(text, 'latin1'))
}

interface ConnectParams {
  readonly host: string
  readonly hostname: string
  readonly protocol: string
  readonly port: string
  readonly servername: string | null
  readonly version: 'h1'
}

/** Publishes the events of establishing a connection. */
export class ObservedConnect {
  readonly #message: { readonly connectParams: ConnectParams; readonly connector: unknown }

  /** Returns null if there are no subscribers. */
  static begin(params: Omit<ConnectParams, 'version'>, connector: unknown): ObservedConnect | null {
    if (!beforeConnect.hasSubscribers && !connected.hasSubscribers && !connectError.hasSubscribers) return null
    return new ObservedConnect({ ...params, version: 'h1' }, connector)
  }

  private constructor(connectParams: ConnectParams, connector: unknown) {
    this.#message = { connectParams, connector }
    if (beforeConnect.hasSubscribers) beforeConnect.publish(this.#message)
  }

  ended(failure: Error | null, socket: Socket | null): void {
    if (failure !== null) connectError.publish({ ...this.#message, error: failure, socket })
    else connected.publish({ ...this.#message, socket })
  }
}
