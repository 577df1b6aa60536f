// A gateway with a cache before a service that counts its requests, and a clock that a test moves.
import type { IncomingMessage, ServerResponse } from 'node:http'
import type { Test } from 'tap'
import type { Clock } from '../../../plugins/clock.ts'
import { CLOCK } from '../../../plugins/clock.ts'
import { startGateway, startService } from '../gateway.ts'
import type { AnyClient, Protocol } from './asking-client.ts'
import { anyClient, listenFor } from './asking-client.ts'

type Handler = (request: IncomingMessage, response: ServerResponse, count: number) => unknown

export interface Caching {
  readonly port: number
  readonly client: AnyClient & { readonly port: number }
  /** Requests of the service so far. */
  readonly seen: readonly IncomingMessage[]
  readonly logged: readonly Record<string, unknown>[]
  readonly metrics: () => Promise<string>
  /** Purges by the admin API. */
  readonly purge: (query: string) => Promise<{ statusCode: number; body: unknown }>
  readonly status: () => Promise<{ stores: { bytes: number; routes: { entries: number }[] }[] }>
  readonly close: () => Promise<void>
  /** Moves the clock of the gateway. */
  pass(seconds: number): void
}

export interface CachingOptions {
  readonly cache?: object
  readonly edge?: object
  readonly more?: object
  readonly listen?: object
  readonly protocol?: Protocol
}

/** `handler` gets the number of the request, from 1. The service has the clock of the gateway. */
export async function cachingGateway(t: Test, handler: Handler, options: CachingOptions = {}): Promise<Caching> {
  return (await cachingNodes(t, handler))(options)
}

/** Starts a service, and returns a function that starts gateways before it. They share the requests seen and the clock. */
export async function cachingNodes(t: Test, handler: Handler): Promise<(options: CachingOptions) => Promise<Caching>> {
  const seen: IncomingMessage[] = []
  let passed = 0
  const service = await startService((request, response) => {
    seen.push(request)
    response.setHeader('date', new Date(Date.now() + passed).toUTCString())
    handler(request, response, seen.length)
  })
  t.teardown(service.close)
  const clock: Clock = { now: () => performance.now() + passed, date: () => Date.now() + passed }
  const pass = (seconds: number) => {
    passed += seconds * 1000
  }
  return async ({ cache = {}, edge = {}, more = {}, listen = {}, protocol = 'HTTP/1.1' }) => {
    const gateway = await startGateway(
      {
        admin: { port: 0 },
        listen: { ...listenFor(t, protocol), ...listen },
        services: { any: { instances: [service.url] } },
        routes: [{ name: 'all', match: { path: '/' }, service: 'any' }],
        edge: { cache, ...edge },
        ...more
      },
      { log: true, before: (server) => server.decorate(CLOCK, clock) }
    )
    t.teardown(gateway.close)
    const admin = gateway.server.admin!
    return {
      port: gateway.port,
      client: { ...anyClient(t, protocol, gateway.port), port: gateway.port },
      seen,
      logged: gateway.log,
      close: gateway.close,
      purge: async (query) => {
        const { statusCode, body } = await admin.inject({ method: 'POST', url: `/admin/cache/purge?${query}` })
        return { statusCode, body: JSON.parse(body) as unknown }
      },
      status: async () => JSON.parse((await admin.inject('/admin/cache')).body),
      metrics: async () => (await admin.inject('/metrics')).body,
      pass
    }
  }
}

/** Responds with a body and header fields. */
export function respond(
  response: ServerResponse,
  body: string | Buffer,
  fields: Record<string, string | string[]> = {},
  status = 200
): void {
  response.writeHead(status, { 'content-length': String(Buffer.byteLength(body)), ...fields }).end(body)
}
