/** One request to a token endpoint, at a URL or through the mesh, bounded in time and size. Redirects are not followed. */
import { readFileSync } from 'node:fs'
import type { IncomingHttpHeaders } from 'node:http'
import https from 'node:https'
import { http } from '../../../node-http.ts'
import { originOf } from '../../core/origin.ts'
import type { Dispatch, DispatchController, DispatchHandler } from '../../core/types.ts'
import type { OAuth2Options } from './options.ts'

/** Largest response, in bytes. */
const mostBytes = 64 * 1024

export interface Posted {
  readonly status: number
  readonly headers: IncomingHttpHeaders
  readonly body: Buffer
}

/** Sends a POST request. */
export type Post = (headers: Readonly<Record<string, string>>, body: string) => Promise<Posted>

const tooLarge = () => new Error(`the response is larger than ${mostBytes} bytes`)
const tooLate = (ms: number) => new Error(`no response within ${ms / 1000} s`)

/** Returns a function that posts to a URL, and one that aborts its requests. */
export function postsTo({ url, ca, timeout }: OAuth2Options): { post: Post; close: () => void } {
  const target = new URL(url!)
  const isSecure = target.protocol === 'https:'
  const { request } = isSecure ? https : http
  // Connections are not kept: tokens are rare, and a kept connection may be closed at the moment of the request.
  const trusted = ca === undefined ? {} : { ca: readFileSync(ca) }
  const closing = new AbortController()
  const post: Post = (headers, body) =>
    new Promise((resolve, reject) => {
      const { signal } = closing
      const options = { method: 'POST', headers: { ...headers, connection: 'close' }, agent: false, signal, ...trusted }
      const sent = request(target, options, (response) => {
        const chunks: Buffer[] = []
        let size = 0
        response.on('data', (chunk: Buffer) => {
          size += chunk.length
          if (size > mostBytes) sent.destroy(tooLarge())
          else chunks.push(chunk)
        })
        response.once('error', fail)
        response.once('end', () => {
          clearTimeout(timer)
          resolve({ status: response.statusCode!, headers: response.headers, body: Buffer.concat(chunks) })
        })
      })
      const timer = setTimeout(() => sent.destroy(tooLate(timeout)), timeout)
      function fail(error: Error): void {
        clearTimeout(timer)
        reject(error)
      }
      sent.once('error', fail)
      sent.end(body)
    })
  return { post, close: () => closing.abort(new Error('the service is closed')) }
}

/** Returns a function that posts to a service of the mesh. */
export function postsThrough(toService: (name: string) => Dispatch, { service, path, timeout }: OAuth2Options): Post {
  return (headers, body) =>
    new Promise((resolve, reject) => {
      const collector = new Collector(timeout, resolve, reject)
      const options = { origin: originOf(service!), path: path ?? '/token', method: 'POST', headers, body } as const
      try {
        toService(service!)(options, collector)
      } catch (error) {
        collector.onResponseError(null, error as Error)
      }
    })
}

/** Collects a response. */
class Collector implements DispatchHandler {
  readonly #resolve: (posted: Posted) => void
  readonly #reject: (error: Error) => void
  readonly #timer: NodeJS.Timeout
  readonly #chunks: Buffer[] = []
  #controller: DispatchController | null = null
  #late: Error | null = null
  #size = 0
  #status = 0
  #headers: IncomingHttpHeaders = {}

  constructor(timeout: number, resolve: (posted: Posted) => void, reject: (error: Error) => void) {
    this.#resolve = resolve
    this.#reject = reject
    this.#timer = setTimeout(() => {
      this.#late = tooLate(timeout)
      this.#abort(this.#late)
    }, timeout)
  }

  #abort(error: Error): void {
    this.#controller?.abort(error)
    this.onResponseError(null, error)
  }

  onRequestStart(controller: DispatchController): void {
    this.#controller = controller
    if (this.#late !== null) controller.abort(this.#late)
  }

  onResponseStart(_controller: DispatchController, status: number, headers: IncomingHttpHeaders): void {
    this.#status = status
    this.#headers = headers
  }

  onResponseData(_controller: DispatchController, chunk: Buffer): void {
    this.#size += chunk.length
    if (this.#size > mostBytes) this.#abort(tooLarge())
    else this.#chunks.push(chunk)
  }

  onResponseEnd(): void {
    clearTimeout(this.#timer)
    this.#resolve({ status: this.#status, headers: this.#headers, body: Buffer.concat(this.#chunks) })
  }

  onResponseError(_controller: DispatchController | null, error: Error): void {
    clearTimeout(this.#timer)
    this.#reject(error)
  }
}
