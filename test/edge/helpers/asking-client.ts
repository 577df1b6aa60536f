// A client that asks for one response over HTTP/1.1, TLS or HTTP/2, and shows all of it.
import http from 'node:http'
import http2 from 'node:http2'
import https from 'node:https'
import type { Test } from 'tap'
import { selfSigned } from '../../helpers/self-signed.ts'

export const protocols = ['HTTP/1.1', 'TLS', 'HTTP/2'] as const
export type Protocol = (typeof protocols)[number]

/** The `listen` of a gateway that speaks the protocol. */
export function listenFor(t: Test, protocol: Protocol): object {
  return protocol === 'HTTP/1.1' ? {} : { tls: selfSigned(t), http2: protocol === 'HTTP/2' }
}

export interface Received {
  status: number
  headers: Record<string, string | string[] | undefined>
  trailers: Record<string, string | string[] | undefined>
  /** Informational responses. */
  hints: number[]
  body: Buffer
  /** Whether the response has come to its end, and no error. */
  isWhole: boolean
}

export interface AskOptions {
  method?: string
  headers?: Record<string, string>
  body?: string
}

export interface AnyClient {
  ask(path: string, options?: AskOptions): Promise<Received>
  /** Sends a request, and leaves when `when` resolves; resolves once the client has left. */
  leave(path: string, when: (sign: Signs) => Promise<unknown>, options?: AskOptions): Promise<void>
}

/** Points in the life of a response. */
export interface Signs {
  readonly response: Promise<void>
  readonly data: Promise<void>
}

/** A client whose connections end with the test. */
export function anyClient(t: Test, protocol: Protocol, port: number): AnyClient {
  return protocol === 'HTTP/2' ? overHttp2(t, port) : overHttp1(protocol === 'TLS', port)
}

function overHttp1(isTls: boolean, port: number): AnyClient {
  const begin = (path: string, { method = 'GET', headers = {} }: AskOptions) => {
    const options = { port, host: '127.0.0.1', path, method, headers, agent: false }
    return isTls ? https.request({ ...options, rejectUnauthorized: false }) : http.request(options)
  }
  return {
    ask: (path, options = {}) =>
      new Promise((resolve, reject) => {
        const hints: number[] = []
        const request = begin(path, options)
        request.on('information', ({ statusCode }) => hints.push(statusCode))
        request.on('error', reject)
        request.on('response', (response) => {
          const chunks: Buffer[] = []
          response.on('data', (chunk: Buffer) => chunks.push(chunk))
          response.on('error', () => {})
          response.on('close', () => {
            const { statusCode: status = 0, headers, trailers } = response
            resolve({ status, headers, trailers, hints, body: Buffer.concat(chunks), isWhole: response.complete })
          })
        })
        request.end(options.body)
      }),
    async leave(path, when, options = {}) {
      const request = begin(path, options)
      const closed = new Promise<void>((resolve) => request.once('close', resolve))
      const response = Promise.withResolvers<void>()
      const data = Promise.withResolvers<void>()
      request.on('error', () => {})
      request.on('response', (message) => {
        response.resolve()
        message.on('error', () => {}).once('data', () => data.resolve())
      })
      request.end(options.body)
      await when({ response: response.promise, data: data.promise })
      request.destroy()
      await closed
    }
  }
}

function overHttp2(t: Test, port: number): AnyClient {
  const session = http2.connect(`https://127.0.0.1:${port}`, { rejectUnauthorized: false })
  session.on('error', () => {})
  t.teardown(() => session.destroy())
  const begin = (path: string, { method = 'GET', headers = {}, body }: AskOptions) => {
    const stream = session.request({ ':path': path, ':method': method, ...headers }, { endStream: body === undefined })
    stream.on('error', () => {})
    if (body !== undefined) stream.end(body)
    return stream
  }
  return {
    ask: (path, options = {}) =>
      new Promise((resolve) => {
        const hints: number[] = []
        const chunks: Buffer[] = []
        let [headers, trailers]: [http2.IncomingHttpHeaders, http2.IncomingHttpHeaders] = [{}, {}]
        let ended = false
        const stream = begin(path, options)
        stream.on('headers', ({ ':status': status }) => hints.push(Number(status)))
        stream.on('response', (given) => {
          headers = given
        })
        stream.on('trailers', (given) => {
          trailers = given
        })
        stream.on('data', (chunk: Buffer) => chunks.push(chunk))
        stream.on('end', () => {
          ended = true
        })
        stream.on('close', () => {
          const status = Number(headers[':status'])
          const isWhole = ended && stream.rstCode === http2.constants.NGHTTP2_NO_ERROR
          resolve({ status, headers, trailers, hints, body: Buffer.concat(chunks), isWhole })
        })
      }),
    async leave(path, when, options = {}) {
      const stream = begin(path, options)
      const closed = new Promise<void>((resolve) => stream.once('close', resolve))
      const response = Promise.withResolvers<void>()
      const data = Promise.withResolvers<void>()
      stream.on('response', () => response.resolve()).once('data', () => data.resolve())
      await when({ response: response.promise, data: data.promise })
      stream.close(http2.constants.NGHTTP2_CANCEL)
      await closed
    }
  }
}
