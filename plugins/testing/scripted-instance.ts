import type { IncomingMessage, Server, ServerResponse } from 'node:http'
import type { Duplex } from 'node:stream'
import { Readable } from 'node:stream'
import { pipeline } from 'node:stream/promises'
import { connectError } from '../mesh/http/connection-errors.ts'
import type { Open } from '../mesh/http/pool.ts'
import { createServer } from '../node-http.ts'
import { asError } from '../thrown.ts'
import type { TestClock } from './clock.ts'
import { connect } from './connection.ts'
import { ReceivedRequest, readBody } from './received-request.ts'
import type { Script, ScriptedResponse } from './script.ts'
import { checkResponse, ScriptedResponses } from './script.ts'

/** Owner of an instance: the service, with what its instances share. */
interface InstanceOwner {
  readonly name: string
  readonly clock: TestClock
  /** Called for each request, once its body is there. */
  called(received: ReceivedRequest): void
  /** Called with a fault of the script: it is the test that is wrong. */
  failed(error: Error): void
}

/** One instance of a scripted service: an HTTP server that is reached within the process. */
export class Instance {
  readonly origin: string
  readonly #owner: InstanceOwner
  readonly #responses: ScriptedResponses
  readonly #server: Server
  readonly #connections = new Set<Duplex>()
  readonly #busy = new Set<Duplex>()
  /** Connections whose responses are delayed. */
  readonly #delayed = new Set<Duplex>()
  #isEnding = false

  constructor(owner: InstanceOwner, origin: string, script: Script) {
    this.#owner = owner
    this.origin = origin
    this.#responses = new ScriptedResponses(script)
    this.#server = createServer({ requestTimeout: 0, headersTimeout: 0, keepAliveTimeout: 0 })
    this.#server.on('request', (request, response) => void this.#serve(request, response))
  }

  /** Replaces the script. Idle connections are closed: the new script may refuse the next connection. */
  replace(script: Script): void {
    this.#responses.replace(script)
    for (const connection of this.#connections) if (!this.#busy.has(connection)) connection.destroy()
  }

  /** Resets the connections whose responses are delayed: the gateway would wait for them before it closes. */
  endDelays(): void {
    this.#isEnding = true
    for (const connection of this.#delayed) connection.destroy()
  }

  close(): void {
    for (const connection of this.#connections) connection.destroy()
  }

  /** Makes a connection for the mesh. */
  readonly open: Open = (callback, onread) => {
    if (this.#responses.refuses) {
      this.#responses.take()
      const refused = Object.assign(new Error(`connect ECONNREFUSED ${this.origin}`), { code: 'ECONNREFUSED' })
      setImmediate(callback, connectError(refused, undefined), null)
      return undefined
    }
    const { client, service } = connect(this.#server, onread)
    this.#connections.add(service)
    service.once('close', () => this.#connections.delete(service))
    setImmediate(() => {
      if (!client.destroyed) callback(null, client)
      else callback(connectError(new Error('the connection was closed'), undefined), null)
    })
    return client
  }

  async #serve(request: IncomingMessage, response: ServerResponse): Promise<void> {
    const { socket } = request
    this.#busy.add(socket)
    response.once('close', () => this.#busy.delete(socket))
    const received = new ReceivedRequest(this.#owner.name, this.origin, request)
    response.once('close', () => {
      received.aborted = !response.writableFinished
    })
    const step = this.#responses.take()
    const isComplete = await readBody(request, received).then(
      () => true,
      () => false
    )
    this.#owner.called(received)
    // Otherwise, the gateway has closed the connection.
    if (!isComplete) return
    try {
      const scripted = typeof step === 'function' ? await step(received) : step
      if (typeof step === 'function') checkReturned(this.#owner.name, scripted)
      await this.#pause(scripted, response)
      if (!response.destroyed) await this.#respond(scripted, response)
    } catch (error) {
      this.#owner.failed(asError(error))
      // No reset, which would be retried with the next response of the script.
      if (response.headersSent) socket.destroy()
      else response.writeHead(500).end()
    }
  }

  /** Waits for the delay of a response, or until the connection is closed. */
  #pause({ delay = 0 }: ScriptedResponse, response: ServerResponse): Promise<void> | undefined {
    if (delay === 0) return
    return new Promise((resolve) => {
      const { timers } = this.#owner.clock
      const connection = response.socket!
      this.#delayed.add(connection)
      const timer = delay === Number.POSITIVE_INFINITY ? undefined : timers.setTimeout(resolve, delay)
      if (this.#isEnding) connection.destroy()
      response.once('close', () => {
        timers.clearTimeout(timer)
        this.#delayed.delete(connection)
        resolve()
      })
    })
  }

  async #respond(scripted: ScriptedResponse, response: ServerResponse): Promise<void> {
    const { status = 200, headers = {}, json, connection } = scripted
    const body = json === undefined ? scripted.body : JSON.stringify(json)
    const isReset = connection !== undefined
    if (isReset && body === undefined) {
      response.socket?.destroy()
      return
    }
    // A connection that is kept could not be refused.
    if (this.#responses.refuses) response.shouldKeepAlive = false
    response.statusCode = status
    if (json !== undefined) response.setHeader('content-type', 'application/json')
    for (const [name, value] of Object.entries(headers)) response.setHeader(name, value as string)
    const isWhole = body === undefined || typeof body === 'string' || body instanceof Uint8Array
    if (isWhole && !isReset) response.end(body)
    else if (isWhole) {
      response.write(body!)
      resetSoon(response)
    } else {
      // A stream that fails closes the connection, as the service's would.
      const isComplete = await pipeline(Readable.from(body), response, { end: !isReset }).then(
        () => true,
        () => false
      )
      if (isReset || !isComplete) resetSoon(response)
    }
  }
}

/** Resets a connection once the client has read what was written. */
function resetSoon({ socket }: ServerResponse): void {
  setImmediate(() => setImmediate(() => socket?.destroy()))
}

/** Throws if the value that a function has returned is not a response. */
function checkReturned(service: string, value: unknown): asserts value is ScriptedResponse {
  const at = `the response of the function for service ${service}`
  checkResponse(at, value)
  if (value.connection === 'refused') {
    throw new TypeError(`${at}: a function cannot refuse a connection, since it is called for a request; use reset`)
  }
}
