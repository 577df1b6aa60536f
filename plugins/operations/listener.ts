import { lstat, rename, unlink } from 'node:fs/promises'
import type { IncomingMessage, Server } from 'node:http'
import { createSecureServer } from 'node:http2'
import { createServer as createTlsServer } from 'node:https'
import type { AddressInfo } from 'node:net'
import { connect } from 'node:net'
import type { FastifyServerOptions } from 'fastify'
import { markListener } from '../listener-of.ts'
import { createServer } from '../node-http.ts'
import { Facade, forwardedEvents } from './facade.ts'

/** Fastify's options for the server that it would create. */
export type ServerOptions = Pick<FastifyServerOptions, 'keepAliveTimeout' | 'requestTimeout'> & {
  readonly http?: object | null
  readonly https?: object | null
  readonly http2?: boolean
}

/** Address of a server: a port, or a Unix socket. */
export interface Address {
  readonly host: string
  readonly port: number
  readonly path?: string | undefined
  /** Permissions of the socket's file, in octal digits. */
  readonly socketMode?: string
}

/** A listening server of the process. Its events go to the facade of the configuration in use. */
export class Listener {
  readonly server: Server
  readonly name: string
  readonly #marks: boolean
  #current: Facade | null = null

  /** `marks`: true if each request must carry the name of its listener, since there are several. */
  constructor(name: string, options: ServerOptions, marks = false) {
    this.name = name
    this.server = create(options)
    markListener(this.server, name)
    this.#marks = marks
    for (const event of forwardedEvents)
      this.server.on(event, (...args: unknown[]) => this.#current?.emit(event, ...args))
    this.server.on('request', (request, response) => {
      if (this.#marks) markListener(request, this.name)
      this.#current!.server.emit('request', request, response)
    })
  }

  readonly #upgrade = (request: IncomingMessage, ...args: unknown[]) => {
    if (this.#marks) markListener(request, this.name)
    this.#current?.emit('upgrade', request, ...args)
  }

  /** Returns a facade that stands for this server alone. */
  facade(): Facade {
    return new Facade([this])
  }

  /** Makes a facade receive all events from now on. */
  serve(facade: Facade): void {
    this.#current = facade
    // If 'upgrade' has a listener, Node passes upgrade requests to it and no longer handles them as HTTP requests.
    this.server.off('upgrade', this.#upgrade)
    if (facade.server.listenerCount('upgrade') > 0) this.server.on('upgrade', this.#upgrade)
  }

  async listen({ host, port, path, socketMode = '0660' }: Address): Promise<void> {
    if (path !== undefined) await removeStale(path)
    const { promise, resolve, reject } = Promise.withResolvers<void>()
    this.server.once('error', reject)
    if (path === undefined) this.server.listen({ host, port }, resolve)
    else {
      // `listen` creates the file before it returns. If chmod came later, other users could connect before it.
      const before = process.umask(0o777 & ~Number.parseInt(socketMode, 8))
      try {
        this.server.listen({ path }, resolve)
      } finally {
        process.umask(before)
      }
    }
    await promise
    this.server.off('error', reject)
  }

  /** The port and its host, or the path of the Unix socket. */
  get address(): AddressInfo | string {
    return this.server.address() as AddressInfo | string
  }

  /** Stops accepting connections; resolves when the last one has closed. */
  async close(): Promise<void> {
    if (this.server.listening) await new Promise<void>((resolve) => this.server.close(() => resolve()))
  }
}

/** Time after which a Unix socket that does not accept a connection counts as in use. */
const answerMs = 1000

/** Removes the stale file of a Unix socket. Files of other kinds, and sockets on which a process listens, stay. */
async function removeStale(path: string): Promise<void> {
  const stats = await lstat(path, { bigint: true }).catch(() => null)
  if (stats?.isSocket() !== true) return
  const isStale = await new Promise<boolean>((resolve) => {
    const socket = connect({ path, timeout: answerMs })
    const settle = (stale: boolean) => {
      socket.destroy()
      resolve(stale)
    }
    socket.once('connect', () => settle(false)).once('timeout', () => settle(false))
    socket.once('error', ({ code }: NodeJS.ErrnoException) => settle(code === 'ECONNREFUSED'))
  })
  if (!isStale) return
  // Another starting process may have created its socket meanwhile, so the file is renamed before the last comparison.
  const aside = `${path}.${process.pid}`
  try {
    await rename(path, aside)
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === 'ENOENT') return
    throw error
  }
  const { ino, mtimeNs } = await lstat(aside, { bigint: true })
  await (ino === stats.ino && mtimeNs === stats.mtimeNs ? unlink(aside) : rename(aside, path))
}

/** Creates a server with the same options as Fastify would. */
function create({ http, https, http2, keepAliveTimeout, requestTimeout }: ServerOptions): Server {
  // The HTTP/1 side of an HTTP/2 server takes the same options as an HTTP/1 server.
  if (http2) return createSecureServer(https ?? {}) as unknown as Server
  const server: Server = https ? createTlsServer(https) : createServer(http ?? {})
  if (keepAliveTimeout !== undefined) server.keepAliveTimeout = keepAliveTimeout
  if (requestTimeout !== undefined) server.requestTimeout = requestTimeout
  return server
}
