import createError from '@fastify/error'
import type { FastifyReply, FastifyRequest } from 'fastify'
import fp from 'fastify-plugin'
import type { Config } from '../../config/schema.ts'
import { hasBody } from './request-body.ts'

const Silent = createError('JW_BODY_TIMEOUT', 'The client sent nothing of its body for too long', 408)

/** Ends requests whose client falls silent within the body, so that slow bodies cannot hold connections. */
export default fp<Config>(
  async (fastify, { listen }) => {
    const timeoutMs = listen.timeouts.bodyIdle
    fastify.addHook('onRequest', (request, reply, done) => {
      const { raw } = request
      if (!hasBody(raw)) return done()
      raw.on('timeout', () => {
        const { bytesRead } = raw.socket
        // Timers come before reads: after a busy turn of ours, what the client sent may still wait to be read.
        setImmediate(() => {
          if (raw.readableEnded || raw.destroyed) return
          // Not the client's fault while we hold back what has come, because the service reads slowly.
          const heldBack = raw.readableLength > 0 || raw.isPaused()
          if (heldBack || raw.socket.bytesRead > bytesRead) raw.setTimeout(timeoutMs)
          else refuse(request, reply)
        })
      })
      raw.setTimeout(timeoutMs)
      raw.once('end', () => raw.setTimeout(0))
      done()
    })
  },
  { name: 'jingwei-body-timeout', fastify: '5.x' }
)

function refuse(request: FastifyRequest, reply: FastifyReply): void {
  if (reply.sent) request.raw.destroy()
  else if (request.exchange) request.exchange.fail(new Silent())
  else reply.send(new Silent())
}
