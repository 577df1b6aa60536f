/** Queries to Eureka's servers: the next one if one fails, with limits of time and size. */
import { readFileSync } from 'node:fs'
import type { Agent, IncomingMessage } from 'node:http'
import https from 'node:https'
import { promisify } from 'node:util'
import { gunzip } from 'node:zlib'
import { http } from '../../../node-http.ts'
import { asError } from '../../../thrown.ts'
import { messageOf } from '../loop.ts'
import type { Wanted } from './applications.ts'
import type { EurekaOptions } from './options.ts'

const unzipped = promisify(gunzip)

interface Server {
  /** URL without user and password. */
  readonly shown: string
  readonly authorization: string | null
  readonly agent: Agent
}

/** Marks a response without a change: the server knows the `ETag` of the last one. */
export const unchanged = Symbol('unchanged')

/** Error of all servers, each with its own message. */
class NoServer extends Error {
  constructor(failures: readonly string[], causes: readonly Error[]) {
    super(failures.join('; '), { cause: causes.at(-1) })
  }
}

export class EurekaClient {
  readonly #servers: readonly Server[]
  readonly #timeout: number
  readonly #maxSize: number
  /** Index of the server that responded last. */
  #current = 0
  /** Server and `ETag` of the last response with the whole registry. */
  #etag: { readonly server: Server; readonly value: string } | null = null

  constructor({ urls, username, password = '', timeout, maxSize, tls }: EurekaOptions) {
    const read = (file: string | undefined) => (file === undefined ? undefined : readFileSync(file))
    const secrets = { ca: read(tls?.ca), cert: read(tls?.cert), key: read(tls?.key) }
    this.#timeout = timeout
    this.#maxSize = maxSize
    this.#servers = urls.map((text) => {
      const url = new URL(text)
      const user = decodeURIComponent(url.username) || username
      const secret = url.username === '' ? password : decodeURIComponent(url.password)
      const shown = `${url.origin}${url.pathname}`.replace(/\/+$/, '')
      const agent =
        url.protocol === 'https:'
          ? new https.Agent({ keepAlive: true, ...secrets })
          : new http.Agent({ keepAlive: true })
      const authorization = user === undefined ? null : `Basic ${Buffer.from(`${user}:${secret}`).toString('base64')}`
      return { shown, authorization, agent }
    })
  }

  /** URLs of the servers without user and password. */
  get shown(): readonly string[] {
    return this.#servers.map(({ shown }) => shown)
  }

  /** Returns the whole registry; `unchanged` if it is that of the last response. */
  registry(signal: AbortSignal): Promise<unknown> {
    return this.#ask('/apps', signal, [])
  }

  /** Returns the changes of the last minutes; null if the server offers none. */
  changes(signal: AbortSignal): Promise<unknown> {
    return this.#ask('/apps/delta', signal, [403, 404, 405, 501])
  }

  /** Returns one application, or the applications of a virtual address; null if there is none. */
  application({ app, vip, secure }: Wanted, signal: AbortSignal): Promise<unknown> {
    const path =
      app === undefined
        ? `/${secure ? 'svips' : 'vips'}/${encodeURIComponent(vip!)}`
        : `/apps/${encodeURIComponent(app.toUpperCase())}`
    return this.#ask(path, signal, [404])
  }

  /** Forgets the last response, so that the next one is complete. */
  forget(): void {
    this.#etag = null
  }

  close(): void {
    for (const { agent } of this.#servers) agent.destroy()
  }

  /** Asks the server that responded last, and then the others. Returns null for a status in `absent`. */
  async #ask(path: string, signal: AbortSignal, absent: readonly number[]): Promise<unknown> {
    const failures: string[] = []
    const causes: Error[] = []
    for (let tried = 0; tried < this.#servers.length; tried++) {
      const index = (this.#current + tried) % this.#servers.length
      const server = this.#servers[index]!
      try {
        const result = await this.#askOne(server, path, signal, absent)
        this.#current = index
        return result
      } catch (error) {
        if (signal.aborted) throw error
        failures.push(`${server.shown}: ${messageOf(error)}`)
        causes.push(asError(error))
      }
    }
    throw new NoServer(failures, causes)
  }

  async #askOne(server: Server, path: string, signal: AbortSignal, absent: readonly number[]): Promise<unknown> {
    const isRegistry = path === '/apps'
    const etag = isRegistry && this.#etag?.server === server ? this.#etag.value : null
    const headers = {
      accept: 'application/json',
      'accept-encoding': 'gzip',
      ...(server.authorization !== null && { authorization: server.authorization }),
      ...(etag !== null && { 'if-none-match': etag })
    }
    const { response, body } = await this.#exchange(`${server.shown}${path}`, { agent: server.agent, headers, signal })
    const { statusCode = 0 } = response
    if (statusCode === 304 && etag !== null) return unchanged
    if (absent.includes(statusCode)) return null
    if (statusCode === 401) throw new Error('the server refuses user and password (401)')
    if (statusCode !== 200) throw new Error(`the server responded with ${statusCode}`)
    const type = String(response.headers['content-type'] ?? '')
    if (!/[/+]json\b/.test(type))
      throw new Error(`the server responded with ${type || 'no content type'} instead of JSON`)
    const text = await this.#textOf(response, body)
    const parsed = parse(text)
    if (isRegistry) {
      const { etag: value } = response.headers
      this.#etag = value === undefined ? null : { server, value }
    }
    return parsed
  }

  async #textOf(response: IncomingMessage, body: Buffer): Promise<string> {
    if (response.headers['content-encoding'] !== 'gzip') return body.toString()
    const bytes = await unzipped(body, { maxOutputLength: this.#maxSize }).catch((error: NodeJS.ErrnoException) => {
      throw error.code === 'ERR_BUFFER_TOO_LARGE' ? this.#tooLarge() : new Error('the response is no valid gzip')
    })
    return bytes.toString()
  }

  #tooLarge(): Error {
    return new Error(`the response is larger than discovery.eureka.maxSize (${this.#maxSize} bytes)`)
  }

  /** Sends a request and reads the response, within the limits of time and size. */
  #exchange(
    url: string,
    options: { agent: Agent; headers: Record<string, string>; signal: AbortSignal }
  ): Promise<{ response: IncomingMessage; body: Buffer }> {
    return new Promise((resolve, reject) => {
      const { get } = url.startsWith('https:') ? https : http
      const request = get(url, options, (response) => {
        const chunks: Buffer[] = []
        let size = 0
        response.on('data', (chunk: Buffer) => {
          size += chunk.length
          chunks.push(chunk)
          if (size <= this.#maxSize) return
          // First, since the response may have ended already, so that its end follows.
          fail(this.#tooLarge())
          request.destroy()
        })
        response.once('error', fail)
        response.once('end', () => {
          clearTimeout(timer)
          resolve({ response, body: Buffer.concat(chunks) })
        })
      })
      const seconds = this.#timeout / 1000
      const timer = setTimeout(() => request.destroy(new Error(`no response within ${seconds} s`)), this.#timeout)
      function fail(error: Error): void {
        clearTimeout(timer)
        reject(error)
      }
      request.once('error', fail)
    })
  }
}

function parse(text: string): unknown {
  try {
    return JSON.parse(text)
  } catch {
    // Not the parser's message, which has a part of the text.
    throw new Error('the response is no valid JSON')
  }
}
