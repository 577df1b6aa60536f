import type { IncomingMessage } from 'node:http'
import createError from '@fastify/error'
import type { FastifyReply, FastifyRequest } from 'fastify'
import fp from 'fastify-plugin'
import type { Config } from '../../config/schema.ts'
import { hasBody } from './request-body.ts'

const Silent = createError('JW_BODY_TIMEOUT', 'The client sent nothing of its body for too long', 408)

/**
 * Ends requests whose client falls silent within the body, or sends on for long after the answer, so that slow bodies
 * cannot hold connections.
 */
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
          // Not the client's fault while we hold back what has come, because the service reads slowly, or ask for nothing.
          const heldBack = raw.readableFlowing !== true || raw.readableLength > 0
          if (heldBack || raw.socket.bytesRead > bytesRead) raw.setTimeout(timeoutMs)
          else refuse(request, reply)
        })
      })
      raw.setTimeout(timeoutMs)
      // Once answered, the time runs for the next request.
      raw.once('end', () => reply.raw.writableFinished || raw.setTimeout(0))
      if (raw.httpVersionMajor === 1) reply.raw.once('finish', () => boundRest(raw, timeoutMs))
      done()
    })
  },
  { name: 'jingwei-body-timeout', fastify: '5.x' }
)

/** Answered before the body was whole: what is left of it is read and thrown away, and must end soon. */
function boundRest(raw: IncomingMessage, timeoutMs: number): void {
  if (raw.readableEnded || raw.destroyed) return
  const { socket } = raw
  const cut = setTimeout(() => socket.destroy(), timeoutMs)
  const ended = () => {
    clearTimeout(cut)
    socket.off('close', ended)
  }
  // Node tells a request that has its answer nothing of its connection.
  socket.once('close', ended)
  raw.once('end', ended)
}

function refuse(request: FastifyRequest, reply: FastifyReply): void {
  if (reply.sent) request.raw.destroy()
  else if (request.exchange) request.exchange.fail(new Silent())
  else reply.send(new Silent())
}
