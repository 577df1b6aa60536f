import { AsyncResource } from 'node:async_hooks'
import type { IncomingMessage } from 'node:http'
import type { Socket } from 'node:net'
import fp from 'fastify-plugin'
import { isAfterLastResponse } from './last-response.ts'
import { refuseConnection } from './refusals.ts'
import { hasBody } from './request-body.ts'

/**
 * Bounds of one connection's queue. Beyond them no more is read, though a client that leaves is then noticed only when a
 * response is written to it. What one read brings, which is 64 KB, may exceed them.
 */
const mostWaiting = 100
const mostBytes = 256 * 1024
/** Bound of all queues together. Beyond it, the connection with the longest queue is closed. */
const mostBytesOfAll = 64 * 1024 * 1024

/** Memory of a waiting request, measured: its objects, each name and value of a field, and the text of these. */
const requestBytes = 4096
const stringBytes = 48
/** A body that nobody reads yet is kept up to this length. */
const bodyBytes = 64 * 1024

/** Requests of a connection that wait for their turn. */
interface Queue {
  count: number
  bytes: number
}

/**
 * A request that comes before the responses to earlier ones waits until those are written, as nothing may run beside a
 * request that changes something (RFC 9112, 9.3.2), and a client with one connection must not take hundreds of a
 * service's.
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
      // Node resumes it with each request that has ended.
      if (!wasFull && isFull(queue)) socket.on('resume', pause).pause()
      while (bytesOfAll > mostBytesOfAll) closeLongest()
    }

    function remove(socket: Socket, bytes: number): void {
      const queue = queues.get(socket)
      // Closed for its length, in this event-loop iteration.
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
      if (isAfterLastResponse(raw)) return reply.hijack() // ends with the connection
      // Node gives the connection to the response whose turn it is.
      if (reply.raw.socket !== null) return done()
      const { socket } = raw
      // The rest of what was read before it was closed.
      if (socket.destroyed) return reply.hijack()
      const bytes = bytesOf(raw)
      // Emitted when the response before has ended, in the async context of that request.
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
