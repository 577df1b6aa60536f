/** Connections within the process: an HTTP client and an HTTP server that need no port. */
import type { Server } from 'node:http'
import type { OnReadOpts, Socket } from 'node:net'
import { Duplex } from 'node:stream'

type Done = (error?: Error | null) => void

const failure = (code: string, syscall: string) => Object.assign(new Error(`${syscall} ${code}`), { code, syscall })

/** One end of a connection. What is written to it can be read from its peer. */
class End extends Duplex {
  peer: End | null = null
  /** Continues the write that waits until the peer is read. */
  #onRead: Done | null = null

  /** Copies: the client frees the memory of what it has sent. */
  override _write(chunk: Buffer, _encoding: BufferEncoding, done: Done): void {
    const { peer } = this
    if (peer === null || peer.destroyed) done(failure('EPIPE', 'write'))
    else if (peer.push(Buffer.from(chunk))) done()
    else peer.#onRead = done
  }

  override _read(): void {
    const done = this.#onRead
    this.#onRead = null
    done?.()
  }

  override _final(done: Done): void {
    if (this.peer?.destroyed === false) this.peer.push(null)
    done()
  }

  override _destroy(error: Error | null, done: Done): void {
    const { peer } = this
    this.#onRead?.(failure('EPIPE', 'write'))
    // After an orderly end, the peer reads what is left.
    if (peer !== null && !peer.destroyed && !this.writableFinished) peer.destroy(failure('ECONNRESET', 'read'))
    done(error)
  }
}

/** Client's end of a connection, with the methods of a socket that streams lack. */
class ClientEnd extends End {
  setNoDelay(): this {
    return this
  }

  setKeepAlive(): this {
    return this
  }

  ref(): this {
    return this
  }

  unref(): this {
    return this
  }
}

/** Connects to a server. `onread` is Node's option of that name: memory that what comes is read into. */
export function connect(server: Server, onread: OnReadOpts | undefined): { client: Socket; service: Duplex } {
  const client = new ClientEnd()
  const service = new End()
  client.peer = service
  service.peer = client
  // The mesh listens to its own end once it has it.
  for (const end of [client, service]) end.on('error', () => {})
  if (onread !== undefined) readInto(client, onread)
  server.emit('connection', service)
  return { client: client as never, service }
}

function readInto(client: Duplex, { buffer, callback }: OnReadOpts): void {
  client.on('data', (chunk: Buffer) => {
    for (let at = 0; at < chunk.length; ) {
      const into = typeof buffer === 'function' ? buffer() : buffer
      const bytes = Math.min(into.length, chunk.length - at)
      into.set(chunk.subarray(at, at + bytes))
      at += bytes
      if (callback(bytes, into)) continue
      client.pause()
      if (at < chunk.length) client.unshift(chunk.subarray(at))
      return
    }
  })
}
