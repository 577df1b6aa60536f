import type { Socket } from 'node:net'
import type { buildConnector } from 'undici'
import { Client } from 'undici'
import type { HealthCheckOptions } from '../../../config/schema.ts'
import type { Connector } from '../transport/connector.ts'
import type { DispatchController, DispatchHandler, DispatchOptions } from '../types.ts'

/** Asks one address once. `done` gets null, or what is wrong. Returns what calls the check off; `done` is then not called. */
export type Probe = (done: (failure: string | null) => void) => () => void

/** More of an answer is not read: the status says enough. */
const mostBytes = 64 * 1024

/**
 * A probe with a connection of its own, closed again: it shows that the instance takes new ones, and a full pool
 * looks no more sick than it is.
 */
export function probeOf(origin: string, options: HealthCheckOptions, connector: Connector): Probe {
  const ask = options.type === 'tcp' ? tcp(origin, connector) : http(origin, options, connector)
  const name = options.type === 'tcp' ? 'TCP check' : `GET ${options.path}`
  return (done) => {
    let over = false
    let cut: (() => void) | null = null
    const end = () => {
      over = true
      clearTimeout(timer)
      cut?.()
    }
    const finish = (failure: string | null) => {
      if (over) return
      end()
      done(failure)
    }
    // Where this process itself stood still, the answer may be there and unread: that is read first.
    const expired = () => setImmediate(() => finish(`${name}: no answer within ${options.timeout} ms`))
    const timer = setTimeout(expired, options.timeout).unref()
    try {
      cut = ask(finish)
      if (over) cut()
    } catch (error) {
      finish(describe(error as Error))
    }
    return end
  }
}

type Ask = (finish: (failure: string | null) => void) => () => void

function tcp(origin: string, connector: Connector): Ask {
  const { protocol, hostname, host, port } = new URL(origin)
  return (finish) => {
    const dial = new Dial(connector)
    const address = { protocol, hostname: hostname.replace(/^\[|\]$/g, ''), host, port: port || standardPort(protocol) }
    dial.connect(address, (...[error]) => finish(error === null ? null : describe(error)))
    return () => dial.cut()
  }
}

function http(origin: string, { path, host, statuses }: HealthCheckOptions, connector: Connector): Ask {
  const expected = statusRanges(statuses)
  const { servername } = connector
  const headers = { 'user-agent': 'jingwei-health-check', ...(host !== undefined && { host }) }
  const request = { path, method: 'GET', headers, reset: true, ...(servername !== null && { servername }) }
  return (finish) => {
    const dial = new Dial(connector)
    // The probe has a timer of its own.
    const client = new Client(origin, { connect: dial.connect, headersTimeout: 0, bodyTimeout: 0, allowH2: false })
    client.dispatch(
      request as DispatchOptions,
      new AnswerHandler((status, error) => {
        if (error !== null) finish(status === 0 ? describe(error) : `GET ${path}: ${describe(error)}`)
        else finish(expected(status) ? null : `GET ${path} answered ${status}`)
      })
    )
    return () => {
      dial.cut()
      void client.destroy()
    }
  }
}

/** A connection that can be given up at any time, also while it is made. */
class Dial {
  readonly #connector: Connector
  #socket: Socket | null = null
  #given = false

  constructor(connector: Connector) {
    this.#connector = connector
  }

  readonly connect: buildConnector.connector = (options, callback) => {
    // The types withhold what it returns; one that must wait for a certificate may have none yet.
    const socket = this.#connector.connect(options, (...[error, socket]) => {
      if (socket !== null && this.#given) socket.destroy()
      if (socket !== null) this.#socket = socket
      if (error !== null) callback(error, null)
      else callback(null, socket)
    }) as unknown as Socket | undefined
    this.#socket ??= socket ?? null
    return socket
  }

  cut(): void {
    this.#given = true
    this.#socket?.destroy()
  }
}

class AnswerHandler implements DispatchHandler {
  readonly #done: (status: number, error: Error | null) => void
  #status = 0
  #bytes = 0

  constructor(done: (status: number, error: Error | null) => void) {
    this.#done = done
  }

  onRequestStart(): void {}

  onResponseStart(_controller: DispatchController, status: number): void {
    this.#status = status
  }

  onResponseData(_controller: DispatchController, chunk: Buffer): void {
    this.#bytes += chunk.length
    if (this.#bytes > mostBytes) this.#done(this.#status, null)
  }

  onResponseEnd(): void {
    this.#done(this.#status, null)
  }

  onResponseError(_controller: DispatchController, error: Error): void {
    this.#done(this.#status, error)
  }
}

function statusRanges(statuses: HealthCheckOptions['statuses']): (status: number) => boolean {
  const ranges = statuses.map((item): [low: number, high: number] => {
    const [low, high = low] = String(item).split('-').map(Number)
    return [low!, high!]
  })
  return (status) => ranges.some(([low, high]) => status >= low && status <= high)
}

const words: Readonly<Record<string, string>> = {
  ECONNREFUSED: 'connection refused',
  ECONNRESET: 'connection reset',
  EHOSTUNREACH: 'host unreachable',
  ENETUNREACH: 'network unreachable',
  ENOTFOUND: 'host name not found',
  ETIMEDOUT: 'connection timed out',
  UND_ERR_CONNECT_TIMEOUT: 'connection timed out',
  UND_ERR_SOCKET: 'connection closed before the end of the answer'
}

function describe(error: Error & { code?: string }): string {
  return words[error.code ?? ''] ?? error.message.slice(0, 200)
}

const standardPort = (protocol: string) => (protocol === 'https:' ? '443' : '80')
