/**
 * `jingwei/testing`: a gateway with scripted services, in the process of a test and without ports.
 *
 * ```ts
 * await using gateway = await testGateway({ config: 'gateway.yaml', services: { orders: { json: [] } } })
 * const response = await gateway.inject('/api/orders')
 * gateway.calls('orders')[0]?.headers['x-request-id']
 * ```
 */
import { Readable, Writable } from 'node:stream'
import type { FastifyInstance, InjectOptions, LightMyRequestResponse } from 'fastify'
import { pino } from 'pino'
import { ConfigError } from '../../config/load.ts'
import { markListener } from '../listener-of.ts'
import { serializers } from '../operations/logging.ts'
import { kindOf } from '../thrown.ts'
import { TestClock } from './clock.ts'
import type { ConfigSource } from './config.ts'
import { isMapping, isolated, loadConfig } from './config.ts'
import type { ReceivedRequest } from './received-request.ts'
import type { Script, ScriptedService } from './script.ts'
import { ScriptedServices } from './scripted-services.ts'
import type { TokenOptions } from './tokens.ts'
import { tokenFor } from './tokens.ts'

export type { TestClock } from './clock.ts'
export type { Settings } from './config.ts'
export type { ReceivedRequest } from './received-request.ts'
export type { Responder, Script, ScriptedInstance, ScriptedResponse, ScriptedService } from './script.ts'
export type { TokenOptions } from './tokens.ts'
export { ConfigError }

/** Log lines that are kept; the oldest are dropped. */
const mostLines = 10_000

export interface TestGatewayOptions extends ConfigSource {
  /** Scripts of the services of the configuration, by their names. */
  readonly services?: Readonly<Record<string, ScriptedService>>
  /** Listener that requests come to. Default: the first that does not redirect. */
  readonly listener?: string
}

/** A gateway under test. */
export interface TestGateway extends AsyncDisposable {
  /**
   * Sends a request as Fastify's `inject` does. Rejects if the script of a service that was called is at fault, or is
   * missing.
   */
  inject(request: string | InjectOptions): Promise<LightMyRequestResponse>
  /** Time of limits, expiry of tokens, timeouts, pauses, circuit breakers, ejections and the `delay` of scripted responses. */
  readonly clock: Pick<TestClock, 'now' | 'date' | 'advance'>
  /** Returns the requests that a service has received, in their order. */
  calls(service: string): ReceivedRequest[]
  /** Resolves with the calls of a service once it has received `count` of them; rejects after 5 s. */
  called(service: string, count?: number): Promise<ReceivedRequest[]>
  /** Forgets all calls. */
  forgetCalls(): void
  /** Replaces the script of all instances of a service: its next response is the first of the new script. */
  respond(service: string, script: Script): void
  /** Returns a token that a route accepts: by `edge.jwt`, or by a concern of a plugin with `token`. */
  token(claims?: Readonly<Record<string, unknown>>, options?: TokenOptions): string
  /** Lines of the log from level `info` on, parsed. */
  readonly log: readonly Readonly<Record<string, unknown>>[]
  /** The Fastify server; `server.admin` is that of the admin port. */
  readonly server: FastifyInstance
  /** Ends the gateway. Rejects with the fault of a script that no `inject` has rejected with. */
  close(): Promise<void>
}

const known = ['config', 'folder', 'env', 'override', 'plugins', 'services', 'listener']

/**
 * Builds a gateway whose services are scripted. Registries, Redis, health checks, key sets and certificates of the
 * configuration are not used; concerns of plugins get the options that their `isolate` returns. All else is in force.
 * @throws {ConfigError} with every fault of the configuration, as `jingwei check` reports them.
 */
export async function testGateway(options: TestGatewayOptions): Promise<TestGateway> {
  checkOptions(options)
  const { services = {}, listener } = options
  const { config: loaded, keys } = await loadConfig(options, Object.keys(services))
  const config = isolated(loaded, keys)
  const Request = requestOf(listenerNamed(config.listeners, listener))
  const clock = new TestClock()
  const scripted = new ScriptedServices(config, services, clock)
  const lines: Record<string, unknown>[] = []
  const meshDeps = { discovery: scripted, transport: scripted.transport, now: clock.now, timers: clock.timers }
  // Imported here, so that the built `app.js`, which is also a program, has its code in its own file.
  const { build } = await import('../../app.ts')
  const server = build(config, { log: logInto(lines), clock, meshDeps })
  const close = async () => {
    scripted.endDelays()
    try {
      await server.close()
    } finally {
      await scripted.close()
      clock.close()
    }
    scripted.throwFault()
  }
  try {
    await server.ready()
  } catch (error) {
    await close().catch(() => {})
    throw error
  }
  return {
    async inject(request) {
      const response = await server.inject({ ...injected(request), Request })
      scripted.throwFault()
      return response
    },
    clock,
    calls: (service) => scripted.calls(service),
    called: (service, count = 1) => scripted.called(service, count),
    forgetCalls: () => scripted.forgetCalls(),
    respond: (service, script) => scripted.respond(service, script),
    token: (claims = {}, tokenOptions = {}) => tokenFor(config, keys.edge, clock, claims, tokenOptions),
    log: lines,
    server,
    close,
    [Symbol.asyncDispose]: close
  }
}

/** Throws for options of a wrong type, as tests in JavaScript may pass. */
function checkOptions(options: unknown): asserts options is TestGatewayOptions {
  const refuse = (key: string, expected: string, found: unknown) => {
    throw new TypeError(`testGateway: ${key}expected ${expected}, found ${kindOf(found)}`)
  }
  if (!isMapping(options)) return refuse('', '{ config, services }', options)
  const unknown = Object.keys(options).find((key) => !known.includes(key))
  if (unknown !== undefined) throw new TypeError(`testGateway: unknown key "${unknown}"; there are ${known.join(', ')}`)
  const { config, override = {}, plugins = [], services = {} } = options
  if (config === undefined) throw new TypeError('testGateway: missing config, a file or settings')
  const isPath = config instanceof URL || (typeof config === 'string' && config !== '')
  if (!isPath && !isMapping(config)) refuse('config: ', 'a file or settings', config)
  if (!isMapping(override)) refuse('override: ', 'settings such as { mesh: { retry: false } }', override)
  if (!Array.isArray(plugins)) return refuse('plugins: ', "a list such as [{ path: './plugin.ts' }]", plugins)
  for (const [index, entry] of plugins.entries()) {
    if (!isMapping(entry)) refuse(`plugins[${index}]: `, "an entry such as { path: './plugin.ts' }", entry)
  }
  if (!isMapping(services)) refuse('services: ', 'scripts by service such as { orders: { json: [] } }', services)
}

function listenerNamed(listeners: readonly { name: string; redirect?: unknown }[], name: string | undefined): string {
  const names = listeners.map((each) => each.name)
  if (name === undefined) return (listeners.find(({ redirect }) => redirect === undefined) ?? listeners[0]!).name
  if (!names.includes(name)) throw new TypeError(`no listener is named "${name}"; there are ${names.join(', ')}`)
  return name
}

/** Returns a class of requests that come to a listener, with what `inject` leaves out of a request. */
function requestOf(listener: string): typeof Readable {
  class ListenerRequest extends Readable {
    get rawTrailers(): string[] {
      return []
    }
  }
  markListener(ListenerRequest.prototype, listener)
  return ListenerRequest
}

/** Returns a request that is framed as a client would frame it: without a length, a stream is sent in chunks. */
function injected(request: string | InjectOptions): InjectOptions {
  if (typeof request === 'string') return { url: request }
  const { payload = request.body, headers = {} } = request
  const isFramed = Object.keys(headers).some((name) => /^(?:content-length|transfer-encoding)$/i.test(name))
  if (!(payload instanceof Readable) || isFramed) return request
  return { ...request, headers: { ...headers, 'transfer-encoding': 'chunked' } }
}

function logInto(lines: Record<string, unknown>[]) {
  const stream = new Writable({
    write(line: Buffer, _encoding, done) {
      if (lines.push(JSON.parse(line.toString()) as Record<string, unknown>) > mostLines) lines.shift()
      done()
    }
  })
  return pino({ level: 'info', serializers, formatters: { level: (label) => ({ level: label }) } }, stream)
}
