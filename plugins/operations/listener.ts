import type { Server } from 'node:http'
import { createServer } from 'node:http'
import { createSecureServer } from 'node:http2'
import { createServer as createTlsServer } from 'node:https'
import type { AddressInfo } from 'node:net'
import type { FastifyServerOptions } from 'fastify'
import { Facade, heard } from './facade.ts'

/** Fastify's options for the server that it makes. */
export type ServerOptions = Pick<FastifyServerOptions, 'keepAliveTimeout' | 'requestTimeout'> & {
  readonly http?: object | null
  readonly https?: object | null
  readonly http2?: boolean
}

/** A listening server of the process. Its events are heard by the configuration in use. */
export class Listener {
  readonly server: Server
  #current: Facade | null = null

  constructor(options: ServerOptions) {
    this.server = create(options)
    for (const event of heard) this.server.on(event, (...args: unknown[]) => this.#current?.emit(event, ...args))
  }

  readonly #upgrade = (...args: unknown[]) => this.#current?.emit('upgrade', ...args)

  /** Returns what stands for the server in a configuration. */
  facade(): Facade {
    return new Facade(this.server)
  }

  /** From now on, events are this one's. */
  serve(facade: Facade): void {
    this.#current = facade
    // With a listener, Node takes requests that ask for an upgrade out of HTTP, and answers none of them.
    this.server.off('upgrade', this.#upgrade)
    if (facade.server.listenerCount('upgrade') > 0) this.server.on('upgrade', this.#upgrade)
  }

  async listen({ host, port }: { host: string; port: number }): Promise<void> {
    const { promise, resolve, reject } = Promise.withResolvers<void>()
    this.server.once('error', reject)
    this.server.listen({ host, port }, resolve)
    await promise
    this.server.off('error', reject)
  }

  get address(): AddressInfo {
    return this.server.address() as AddressInfo
  }

  /** Takes no connections any more; resolves when the last one has ended. */
  async close(): Promise<void> {
    if (this.server.listening) await new Promise<void>((resolve) => this.server.close(() => resolve()))
  }
}

/** As Fastify makes it. */
function create({ http, https, http2, keepAliveTimeout, requestTimeout }: ServerOptions): Server {
  // Its HTTP/1 side has the same options as a server of HTTP/1.
  if (http2) return createSecureServer(https ?? {}) as unknown as Server
  const server: Server = https ? createTlsServer(https) : createServer(http ?? {})
  if (keepAliveTimeout !== undefined) server.keepAliveTimeout = keepAliveTimeout
  if (requestTimeout !== undefined) server.requestTimeout = requestTimeout
  return server
}
