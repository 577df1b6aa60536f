import type { IncomingHttpHeaders, IncomingMessage } from 'node:http'

/** Most bytes of a request body that are kept. */
const mostBytes = 64 * 1024 * 1024

/** A request that a scripted service received. */
export class ReceivedRequest {
  readonly service: string
  /** Address of the instance, such as `http://orders-1.test`. */
  readonly instance: string
  readonly method: string
  /** Path without the query. */
  readonly path: string
  readonly query: URLSearchParams
  /** Path and query as they came. */
  readonly url: string
  /** Names in lower case. */
  readonly headers: IncomingHttpHeaders
  /** `[name, value, …]` as they came. */
  readonly rawHeaders: readonly string[]
  /** The body, once all of it is there. */
  bytes: Buffer = Buffer.alloc(0)
  /** The connection was closed before the response had ended. */
  aborted = false

  constructor(service: string, instance: string, { method = '', url = '', headers, rawHeaders }: IncomingMessage) {
    this.service = service
    this.instance = instance
    this.method = method
    this.url = url
    const query = url.indexOf('?')
    this.path = query === -1 ? url : url.slice(0, query)
    this.query = new URLSearchParams(query === -1 ? '' : url.slice(query))
    this.headers = headers
    this.rawHeaders = rawHeaders
  }

  /** The body as text. */
  get body(): string {
    return this.bytes.toString()
  }

  /** Parses the body as JSON. */
  json<T = unknown>(): T {
    return JSON.parse(this.body) as T
  }
}

/** Reads the body of a request that a scripted service receives. */
export async function readBody(request: IncomingMessage, received: ReceivedRequest): Promise<void> {
  const chunks: Buffer[] = []
  let size = 0
  for await (const chunk of request as AsyncIterable<Buffer>) {
    size += chunk.length
    if (size > mostBytes) throw new Error(`the request body has more than ${mostBytes} bytes`)
    chunks.push(chunk)
  }
  received.bytes = Buffer.concat(chunks)
}
