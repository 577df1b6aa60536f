import createError from '@fastify/error'
import fp from 'fastify-plugin'
import type { Config } from '../../config/schema.ts'

const Silent = createError('JW_BODY_TIMEOUT', 'The client sent nothing of its body for too long', 408)

/** Ends requests whose client falls silent within the body, so that slow bodies cannot hold connections. */
export default fp<Config>(
  async (fastify, { listen }) => {
    const timeoutMs = listen.timeouts.bodyIdle
    fastify.addHook('onRequest', (request, _reply, done) => {
      const { raw } = request
      if (raw.headers['content-length'] === undefined && raw.headers['transfer-encoding'] === undefined) return done()
      raw.setTimeout(timeoutMs, () => {
        // Not the client's fault while we hold back what has come, because the service reads slowly.
        if (raw.readableLength > 0 || raw.isPaused()) raw.setTimeout(timeoutMs)
        else raw.destroy(new Silent())
      })
      raw.once('end', () => raw.setTimeout(0))
      done()
    })
  },
  { name: 'jingwei-body-timeout', fastify: '5.x' }
)
