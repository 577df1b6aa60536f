import { AsyncResource } from 'node:async_hooks'
import type { IncomingMessage } from 'node:http'
import type { Socket } from 'node:net'
import fp from 'fastify-plugin'
import { isAfterLastResponse } from './last-response.ts'
import { refuseConnection } from './refusals.ts'
import { hasBody } from './request-body.ts'

/**
 * Limits of one connection's queue, above which the connection is not read. One read of 64 KB may exceed them. While a
 * connection is not read, a disconnect of the client is noticed only when a response is written.
 */
const mostWaiting = 100
const mostBytes = 256 * 1024
/** Limit of all queues together, above which the connection with the longest queue is closed. */
const mostBytesOfAll = 64 * 1024 * 1024

/** Measured memory of a waiting request: its objects, and each name and value of a field besides its text. */
const requestBytes = 4096
const stringBytes = 48
/** Bytes of an unread body that are buffered. */
const bodyBytes = 64 * 1024

/** Waiting requests of a connection. */
interface Queue {
  count: number
  bytes: number
}

/**
 * Delays a pipelined request until the responses to earlier requests on its connection are written. No request may run in
 * parallel with one that changes something (RFC 9112, 9.3.2), and one client connection must not use hundreds of
 * connections to a service.
 */
export default fp(
  async (fastify) => {
    const queues = new Map<Socket, Queue>()
    let bytesOfAll = 0

    function queueOf(socket: Socket): Queue {
      let queue = queues.get(socket)
      if (queue === undefined) {
        queue = { count: 0, bytes: 0 }
        queues.set(socket, queue)
        socket.once('close', leave)
      }
      return queue
    }

    function leave(this: Socket): void {
      bytesOfAll -= queues.get(this)?.bytes ?? 0
      queues.delete(this)
    }

    function add(socket: Socket, bytes: number): void {
      const queue = queueOf(socket)
      const wasFull = isFull(queue)
      queue.count++
      queue.bytes += bytes
      bytesOfAll += bytes
      // Node resumes the socket after each request.
      if (!wasFull && isFull(queue)) socket.on('resume', pause).pause()
      while (bytesOfAll > mostBytesOfAll) closeLongest()
    }

    function remove(socket: Socket, bytes: number): void {
      const queue = queues.get(socket)
      // The connection was closed in this event-loop iteration, because its queue was the longest.
      if (queue === undefined) return
      const wasFull = isFull(queue)
      queue.count--
      queue.bytes -= bytes
      bytesOfAll -= bytes
      if (wasFull && !isFull(queue)) socket.off('resume', pause).resume()
      if (queue.count > 0) return
      queues.delete(socket)
      socket.off('close', leave)
    }

    function closeLongest(): void {
      const [first] = queues
      if (first === undefined) return
      let [longest, { bytes: most }] = first
      for (const [socket, { bytes }] of queues) {
        if (bytes > most) [longest, most] = [socket, bytes]
      }
      leave.call(longest)
      refuseConnection(fastify.server, longest, 'pipelining')
    }

    fastify.addHook('onRequest', (request, reply, done) => {
      const { raw } = request
      if (raw.httpVersionMajor !== 1) return done()
      if (isAfterLastResponse(raw)) return reply.hijack() // no response: the connection is closing
      // Node assigns the socket to the response that is next.
      if (reply.raw.socket !== null) return done()
      const { socket } = raw
      // Parsed from bytes that were read before the connection was closed.
      if (socket.destroyed) return reply.hijack()
      const bytes = bytesOf(raw)
      // `socket` is emitted in the async context of the request whose response has ended.
      const own = new AsyncResource('jingwei.pipelining')
      reply.raw.once('socket', () => {
        remove(socket, bytes)
        own.runInAsyncScope(done)
      })
      add(socket, bytes)
    })
  },
  { name: 'jingwei-pipelining', fastify: '5.x' }
)

function isFull({ count, bytes }: Queue): boolean {
  return count >= mostWaiting || bytes >= mostBytes
}

/** Estimates the memory that a request takes while it waits. */
function bytesOf(raw: IncomingMessage): number {
  const { rawHeaders } = raw
  let bytes = requestBytes + raw.url!.length + rawHeaders.length * stringBytes
  for (const text of rawHeaders) bytes += text.length
  if (!hasBody(raw)) return bytes
  const length = raw.headers['content-length']
  return bytes + Math.min(bodyBytes, length === undefined ? bodyBytes : Number(length))
}

function pause(this: Socket): void {
  this.pause()
}
