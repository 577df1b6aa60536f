import type { Socket } from 'node:net'
import fp from 'fastify-plugin'
import { isParted } from './parting.ts'

/** How many requests of a connection wait. */
const waiting = new WeakMap<Socket, number>()
/** Behind so many no more are read, though a client that leaves is then noticed only when an answer goes out. */
const most = 100

/**
 * A request that comes before the answers to earlier ones waits until those are written, as nothing may run beside a
 * request that changes something (RFC 9112, 9.3.2), and a client with one connection must not take hundreds of a
 * service's.
 */
export default fp(
  async (fastify) => {
    fastify.addHook('onRequest', (request, reply, done) => {
      const { raw } = request
      if (raw.httpVersionMajor !== 1) return done()
      if (isParted(raw)) return reply.hijack() // ends with the connection
      // Node gives the connection to the response whose turn it is.
      if (reply.raw.socket !== null) return done()
      const { socket } = raw
      const count = (waiting.get(socket) ?? 0) + 1
      waiting.set(socket, count)
      // Node resumes it with each request that has ended.
      if (count === most) socket.on('resume', pause).pause()
      reply.raw.once('socket', () => {
        const left = waiting.get(socket)! - 1
        waiting.set(socket, left)
        if (left === most - 1) socket.off('resume', pause).resume()
        done()
      })
    })
  },
  { name: 'jingwei-pipelining', fastify: '5.x' }
)

function pause(this: Socket): void {
  this.pause()
}
