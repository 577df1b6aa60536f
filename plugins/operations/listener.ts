import { lstat, rename, unlink } from 'node:fs/promises'
import type { IncomingMessage, Server } from 'node:http'
import { createServer } from 'node:http'
import { createSecureServer } from 'node:http2'
import { createServer as createTlsServer } from 'node:https'
import type { AddressInfo } from 'node:net'
import { connect } from 'node:net'
import type { FastifyServerOptions } from 'fastify'
import { markListener } from '../listener-of.ts'
import { Facade, heard } from './facade.ts'

/** Fastify's options for the server that it makes. */
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

/** A listening server of the process. Its events are heard by the configuration in use. */
export class Listener {
  readonly server: Server
  readonly name: string
  readonly #marks: boolean
  #current: Facade | null = null

  /** `marks`: each request is to carry the name, as there are other listeners. */
  constructor(name: string, options: ServerOptions, marks = false) {
    this.name = name
    this.server = create(options)
    markListener(this.server, name)
    this.#marks = marks
    for (const event of heard) this.server.on(event, (...args: unknown[]) => this.#current?.emit(event, ...args))
    this.server.on('request', (request, response) => {
      if (this.#marks) markListener(request, this.name)
      this.#current!.server.emit('request', request, response)
    })
  }

  readonly #upgrade = (request: IncomingMessage, ...args: unknown[]) => {
    if (this.#marks) markListener(request, this.name)
    this.#current?.emit('upgrade', request, ...args)
  }

  /** Returns what stands for the server in a configuration. */
  facade(): Facade {
    return new Facade([this])
  }

  /** From now on, events are this one's. */
  serve(facade: Facade): void {
    this.#current = facade
    // With a listener, Node takes requests that ask for an upgrade out of HTTP, and answers none of them.
    this.server.off('upgrade', this.#upgrade)
    if (facade.server.listenerCount('upgrade') > 0) this.server.on('upgrade', this.#upgrade)
  }

  async listen({ host, port, path, socketMode = '0660' }: Address): Promise<void> {
    if (path !== undefined) await removeStale(path)
    const { promise, resolve, reject } = Promise.withResolvers<void>()
    this.server.once('error', reject)
    if (path === undefined) this.server.listen({ host, port }, resolve)
    else {
      // The file is made before the call returns. Its permissions changed later, somebody might have connected.
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

  /** Takes no connections any more; resolves when the last one has ended. */
  async close(): Promise<void> {
    if (this.server.listening) await new Promise<void>((resolve) => this.server.close(() => resolve()))
  }
}

/** Time that a process has to take a connection at a Unix socket. */
const answerMs = 1000

/** Removes the file of a Unix socket that a process has left behind; not if somebody listens there, nor any other file. */
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
  // By now, another process that starts may have put a file of its own there: it is looked at where nobody else moves it.
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

/** As Fastify makes it. */
function create({ http, https, http2, keepAliveTimeout, requestTimeout }: ServerOptions): Server {
  // Its HTTP/1 side has the same options as a server of HTTP/1.
  if (http2) return createSecureServer(https ?? {}) as unknown as Server
  const server: Server = https ? createTlsServer(https) : createServer(http ?? {})
  if (keepAliveTimeout !== undefined) server.keepAliveTimeout = keepAliveTimeout
  if (requestTimeout !== undefined) server.requestTimeout = requestTimeout
  return server
}
