/** A pool as an endpoint has it, and handlers that record all callbacks. */
import type { IncomingHttpHeaders } from 'node:http'
import type { Duplex } from 'node:stream'
import { setImmediate as turn } from 'node:timers/promises'
import type { Test } from 'tap'
import { buildConnector } from 'undici'
import type { DispatchController, DispatchHandler, DispatchOptions } from '../../../plugins/mesh/core/types.ts'
import type { Open, PoolOptions } from '../../../plugins/mesh/http/pool.ts'
import { Pool } from '../../../plugins/mesh/http/pool.ts'
import { PooledRequest } from '../../../plugins/mesh/http/pooled-request.ts'
import { ResponseReader } from '../../../plugins/mesh/http/response-reader.ts'
import { raw } from '../../helpers/mesh/servers.ts'

type Hook = 'start' | 'sent' | 'head' | 'data' | 'end' | 'error' | 'upgrade'

/** Records callbacks, and those that break the contract; runs the test's code in them. */
export class Heard implements DispatchHandler {
  readonly events: string[] = []
  readonly chunks: Buffer[] = []
  readonly on: { [H in Hook]?: (controller: DispatchController) => void }
  controller: DispatchController | null = null
  status = 0
  text: string | undefined
  headers: IncomingHttpHeaders = {}
  trailers: IncomingHttpHeaders = {}
  sent = 0
  error: (Error & { code?: string }) | null = null
  socket: Duplex | null = null
  readonly done: Promise<void>
  #finish!: () => void
  #over = 0

  constructor(on: Heard['on'] = {}) {
    this.on = on
    this.done = new Promise((resolve) => {
      this.#finish = resolve
    })
  }

  get body(): string {
    return Buffer.concat(this.chunks).toString('latin1')
  }

  #record(hook: Hook, event: string, controller: DispatchController, last = false): void {
    if (this.#over > 0) this.events.push('AFTER THE END')
    if (last) this.#over++
    if (event !== 'data' || this.events.at(-1) !== 'data') this.events.push(event)
    if (last) this.#finish()
    this.on[hook]?.(controller)
  }

  onRequestStart(controller: DispatchController): void {
    this.controller = controller
    this.#record('start', 'start', controller)
  }

  onBodySent(chunk: Buffer): void {
    this.sent += chunk.length
    this.on.sent?.(this.controller!)
  }

  onResponseStart(controller: DispatchController, status: number, headers: IncomingHttpHeaders, text?: string): void {
    Object.assign(this, { status, headers, text })
    this.#record('head', String(status), controller)
  }

  onResponseData(controller: DispatchController, chunk: Buffer): void {
    this.chunks.push(chunk)
    this.#record('data', 'data', controller)
  }

  onResponseEnd(controller: DispatchController, trailers: IncomingHttpHeaders): void {
    this.trailers = trailers
    this.#record('end', 'end', controller, true)
  }

  onRequestUpgrade(controller: DispatchController, status: number, headers: IncomingHttpHeaders, socket: Duplex): void {
    Object.assign(this, { status, headers, socket })
    this.#record('upgrade', 'upgrade', controller, true)
  }

  onResponseError(controller: DispatchController, error: Error): void {
    this.error = error
    this.#record('error', 'error', controller, true)
  }
}

/** Creates connections to an address as a service's connectors do. */
export function opener(url: string, tls: { ca: string } | null = null, timeout = 5000): Open {
  const { protocol, hostname, host, port } = new URL(url)
  return (callback, onread) => {
    const common = { timeout, allowH2: false, maxCachedSessions: 0, ...tls, ...(onread && { onread }) }
    const address = { protocol, hostname, host, port }
    const connect = buildConnector(common)
    return connect(address as never, (error, socket) => callback(error, socket)) as unknown as ReturnType<Open>
  }
}

export function poolTo(t: Test, url: string, options: Partial<PoolOptions> & { ca?: string } = {}) {
  const { host, protocol } = new URL(url)
  const { ca, ...given } = options
  const pool = new Pool({
    host,
    connections: 10,
    direct: protocol === 'http:',
    open: opener(url, ca === undefined ? null : { ca }),
    onWait: () => undefined,
    ...given
  })
  t.teardown(() => pool.destroy())
  const ask = (opts: Partial<DispatchOptions> & { trailers?: () => readonly string[] } = {}, heard = new Heard()) => {
    pool.dispatch({ origin: url, path: '/', method: 'GET', ...opts } as DispatchOptions, heard)
    return heard
  }
  return { pool, ask }
}

/** A reader that gets its bytes as from a connection, in a buffer that is reused at once. */
export class Feed {
  readonly reader = new ResponseReader(16 * 1024)
  readonly request: PooledRequest
  readonly heard: Heard
  fault: (Error & { code?: string }) | null = null
  #waiting: Buffer[] = []
  #ended = false

  constructor(heard = new Heard(), method = 'GET', opts: object = {}) {
    this.heard = heard
    this.request = new PooledRequest({ path: '/', method, ...opts } as DispatchOptions, heard, 'h')
    this.reader.begin(this.request)
    this.request.begin({ abort: () => {}, resume: () => this.#pump(), awaitsBody: false })
  }

  give(text: string): this {
    this.#waiting.push(Buffer.from(text, 'latin1'))
    this.#pump()
    return this
  }

  end(): this {
    this.#ended = true
    this.#pump()
    return this
  }

  #pump(): void {
    if (this.reader.busy) return
    try {
      if (this.reader.holds && !this.request.paused) this.reader.readHeld()
      while (this.#waiting.length > 0 && !this.request.paused) {
        const lent = Buffer.concat([Buffer.from('<<'), this.#waiting.shift()!])
        this.reader.read(lent, 2, lent.length, true)
        lent.fill('X')
      }
      if (this.#ended && this.#waiting.length === 0 && !this.reader.holds && !this.reader.finish())
        throw new Error('truncated')
    } catch (error) {
      this.fault = error as Error
      this.request.fail(this.fault)
    }
  }
}

/** Waits for so many event-loop iterations. */
export async function iterations(count: number): Promise<void> {
  for (let i = 0; i < count; i++) await turn()
}

export const responseOf = (body: string, ...fields: string[]) =>
  ['HTTP/1.1 200 OK', `Content-Length: ${body.length}`, ...fields, '', body].join('\r\n')

/** Responds with the number of the connection and the target, unless the target requests another behaviour. */
export async function numbered(t: Test, ...fields: string[]) {
  const requests: string[] = []
  const held: (() => void)[] = []
  const service = await raw(t, (socket, count) => {
    socket.on('data', (chunk: Buffer) => {
      const [method, target = ''] = chunk.toString().split(' ')
      requests.push(`${count} ${target}`)
      const bytes = responseOf(`${count}${target}`, ...fields)
      const reply = () => void socket.write(method === 'HEAD' ? bytes.slice(0, bytes.indexOf('\r\n\r\n') + 4) : bytes)
      if (target.startsWith('/held')) held.push(reply)
      else if (!target.startsWith('/never')) reply()
    })
  })
  return { ...service, requests, held }
}
