// The services behind the fuzzed gateway: they parse requests strictly, and respond by plan.
import type { Socket } from 'node:net'
import type { RunningService } from '../helpers/gateway.ts'
import { startRawService } from '../helpers/gateway.ts'
import type { Request, Response } from './messages.ts'
import { Fault, headerValue, headerValues, readRequest } from './messages.ts'
import { hash, Random } from './random.ts'
import type { Case, Reading } from './requests.ts'
import { tokens } from './requests.ts'
import type { Plan } from './responses.ts'
import { planFor, readPlan } from './responses.ts'

/** A client connection in progress: the requests that it sent, and those that services received. */
export interface Run {
  case: Case
  reading: Reading
  exchanges: Exchange[]
  /**
   * Marks of responses that preceded one of its requests on a service's connection, from the first malformed one:
   * surplus bytes of such a response are read as the next one, which shifts all later responses.
   */
  leftovers: Set<string>
}

/** A request that a service received, and its response. */
export interface Exchange {
  mark: string
  run: Run
  /** Index of the request on the connection. */
  index: number
  request: Request
  plan: Plan
  /** Final response of the plan as a strict parser reads it; null if it has none. */
  expected: Response | null
  /** True if all of the plan was written before the gateway closed the connection. */
  written: boolean
  /** True if an earlier response on the connection was malformed. */
  tainted: boolean
}

export interface World {
  seed: string
  runs: Map<string, Run>
  exchanges: Map<string, Exchange>
  requests: number
  violated: (what: string, run: Run | null, detail: string) => void
}

export const marks = /m(\d+)c([0-9a-f]{8})/g
const check = (number: string | number) => hash(`mark ${number}`).toString(16).padStart(8, '0')
/** Verifies the checksum of a mark, since mutations may produce text that looks like one. */
export const isMark = (number: string, sum: string): boolean => check(number) === sum

export interface ServiceOptions {
  wild: boolean
  /** Number of times that a request may arrive. */
  attempts: number
}

export function startFuzzService(world: World, options: ServiceOptions): Promise<RunningService> {
  return startRawService((socket) => new Connection(socket, world, options))
}

class Connection {
  readonly #socket: Socket
  readonly #world: World
  readonly #options: ServiceOptions
  #text = ''
  #exchange: Exchange | null = null
  #responded = false
  /** The marks from the first malformed response on. */
  readonly #leftovers: string[] = []
  #over = false

  constructor(socket: Socket, world: World, options: ServiceOptions) {
    this.#socket = socket
    this.#world = world
    this.#options = options
    socket.on('data', (chunk: Buffer) => {
      const text = chunk.toString('latin1')
      for (const [, key] of text.matchAll(tokens)) this.#mayMisread(world.runs.get(key!))
      if (this.#over) return
      this.#text += text
      this.#read()
    })
  }

  #read(): void {
    let request: Request | null
    try {
      request = readRequest(this.#text, 0)
    } catch (error) {
      if (!(error instanceof Fault)) throw error
      this.#fail(`a service got an invalid request: ${error.message}`)
      return
    }
    if (request === null) return
    const exchange = this.#exchange ?? this.#begin(request)
    this.#exchange = exchange
    if (exchange === null || this.#over) return
    if (!request.complete) {
      if (exchange.plan.early && !this.#responded) void this.#respond(exchange)
      return
    }
    this.#settle(exchange, request)
    const more = this.#text.length > request.end && headerValue(request, 'upgrade') === undefined
    if (more && !this.#responded) this.#fail('a service got another request before its response')
    else if (!this.#responded) void this.#respond(exchange)
  }

  #mayMisread(run: Run | undefined): void {
    for (const mark of this.#leftovers) run?.leftovers.add(mark)
  }

  /** Returns the exchange that a request belongs to, or null if it belongs to none that is running. */
  #begin(request: Request): Exchange | null {
    const { seed, runs, exchanges } = this.#world
    const number = ++this.#world.requests
    const fault = malformed(request)
    if (fault !== null) this.#fail(fault)
    const [, key = ''] =
      [
        ...`${request.target} ${headerValue(request, 'x-token')} ${headerValue(request, 'x-request-id')}`.matchAll(
          tokens
        )
      ][0] ?? []
    // A closed connection may have left a request in flight.
    const run = runs.get(key) ?? (key === '' ? soleCandidate(runs, request) : undefined)
    if (run === undefined) {
      this.#over = true
      this.#socket.destroy()
      return null
    }
    this.#mayMisread(run)
    const foreign = [...this.#text.matchAll(tokens)].find(([, other]) => other !== run.case.key)
    if (foreign !== undefined && runs.has(foreign[1]!)) this.#fail(`a request has ${foreign[0]} of another connection`)
    const index = run.reading.requests.findIndex((sent, at) => {
      const times = run.exchanges.filter((exchange) => exchange.index === at).length
      return times < this.#options.attempts && isSame(sent, request)
    })
    if (index < 0 && run.reading.rest !== 'tunnel')
      this.#fail(`a service got a request that was not sent, or once too often`, run)
    const nominated = index < 0 ? [] : nominations(run.reading.requests[index]!)
    for (const name of nominated)
      if (headerValue(request, name) !== undefined) this.#fail(`a service got ${name}, which Connection names`, run)
    const mark = `m${number}c${check(number)}`
    const received = {
      method: request.method,
      token: key,
      mark,
      websocketKey: headerValue(request, 'upgrade') && headerValue(request, 'sec-websocket-key')
    }
    const times = run.exchanges.filter((exchange) => exchange.index === index).length
    const plan = planFor(new Random(seed, 'plan', request.target, index, times), received, this.#options.wild)
    const expected = readPlan(plan, request.method)
    const exchange = { mark, run, index, request, plan, expected, written: false, tainted: this.#leftovers.length > 0 }
    if (exchange.tainted || !plan.sound) this.#leftovers.push(mark)
    run.exchanges.push(exchange)
    exchanges.set(mark, exchange)
    return exchange
  }

  #settle(exchange: Exchange, request: Request): void {
    exchange.request = request
    const sent = exchange.run.reading.requests[exchange.index]
    if (sent === undefined) return
    if (!sent.complete) this.#fail('a service got the end of an incomplete request', exchange.run)
    else if (sent.body !== request.body) this.#fail('a service got another body than was sent', exchange.run)
    else if (trailersOf(sent) !== trailersOf(request)) this.#fail('a service got other trailers', exchange.run)
  }

  async #respond(exchange: Exchange): Promise<void> {
    this.#responded = true
    const { bytes, splits, after } = exchange.plan
    let from = 0
    for (const { at, pauseMs } of [...splits, { at: bytes.length, pauseMs: 0 }]) {
      if (this.#socket.destroyed) return
      if (at > from) this.#socket.write(bytes.slice(from, at), 'latin1')
      from = Math.max(from, at)
      if (pauseMs > 0) await new Promise((resolve) => setTimeout(resolve, pauseMs))
    }
    if (this.#socket.destroyed) return
    exchange.written = true
    if (after === 'end') this.#socket.end()
    else if (after === 'reset') this.#socket.resetAndDestroy()
    if (after !== 'keep' || !exchange.request.complete || exchange.expected?.status === 101) {
      this.#over = true
      return
    }
    this.#text = this.#text.slice(exchange.request.end)
    this.#exchange = null
    this.#responded = false
    if (this.#text !== '') this.#read()
  }

  #fail(what: string, run: Run | null = this.#exchange?.run ?? null): void {
    this.#over = true
    this.#world.violated(what, run, this.#text)
    this.#socket.destroy()
  }
}

/** Returns the connection that sent a request whose tokens a mutation has removed. */
function soleCandidate(runs: Map<string, Run>, request: Request): Run | undefined {
  return [...runs.values()].find(({ reading }) => reading.requests.some((sent) => isSame(sent, request)))
}

/** Compares method and target. The stripped prefix may have been encoded in any way. */
function isSame(sent: Request, got: Request): boolean {
  if (sent.method !== got.method) return false
  const target = sent.target.replace(/^https?:\/\/[^/?#]*(?=(\/?))/i, (_all, slash) => (slash ? '' : '/'))
  if (target === got.target) return true
  return /^\/+s/.test(target.replace(/%73/gi, 's')) && target.endsWith(got.target.replace(/^\/+/, ''))
}

const never = /^(keep-alive|proxy-connection|expect|http2-settings|proxy-authorization)$/

const notInTrailers = new RegExp(
  `^(${[
    'connection|keep-alive|proxy-connection|te|trailer|transfer-encoding|upgrade|expect|http2-settings',
    'content-(length|type|encoding|range)|host|via|forwarded|x-forwarded-(for|proto|host|port|prefix|server|scheme|ssl)|x-request-id',
    'cookie|set-cookie|authorization|www-authenticate|proxy-authorization|proxy-authenticate',
    'range|if-range|if-match|if-none-match|if-modified-since|if-unmodified-since|cache-control|max-forwards'
  ].join('|')})$`
)

const nominations = (sent: Request) =>
  headerValues(sent, 'connection')
    .join()
    .split(/[\s,]+/)
    .map((name) => name.toLowerCase())
    .filter(
      (name) => name !== '' && !/^(content-length|transfer-encoding|host|upgrade|connection|x-request-id)$/.test(name)
    )

/** Returns the fields of a request's trailer section that must arrive, and no others. */
function trailersOf(request: Request): string {
  const alsoDrop = nominations(request)
  const passed = request.trailers.filter(([name]) => {
    // Many services read `x_a` as `x-a`.
    const lower = name.toLowerCase().replaceAll('_', '-')
    return !notInTrailers.test(lower) && !alsoDrop.includes(lower)
  })
  return passed.map(([name, value]) => `${name.toLowerCase()}: ${value}`).join('\n')
}

/** Returns the reason why a gateway must not send a request that can be read, or null. */
function malformed(request: Request): string | null {
  const { headers, version, target } = request
  if (version !== '1.1') return `a service got a request in HTTP/${version}`
  if (!target.startsWith('/')) return 'a service got a target that is not a path'
  if (headerValues(request, 'host').length !== 1) return 'a service got not exactly one Host'
  const hop = headers.find(([name]) => never.test(name.toLowerCase()))
  if (hop !== undefined) return `a service got the hop-by-hop header ${hop[0]}`
  const late = request.trailers.find(([name]) => notInTrailers.test(name.toLowerCase()))
  if (late !== undefined) return `a service got the trailer ${late[0]}`
  if (headerValue(request, 'trailer') !== undefined && Number(headerValue(request, 'content-length') ?? 0) > 0)
    return 'a service got Trailer with a body that has none'
  const te = headerValues(request, 'te')
  if (te.length > 0 && te.join() !== 'trailers') return 'a service got a TE other than trailers'
  if (!headerValues(request, 'connection').every((value) => /^(keep-alive|close|upgrade)$/i.test(value)))
    return 'a service got Connection'
  return null
}
