import { Transform } from 'node:stream'
import createError from '@fastify/error'
import type { preParsingHookHandler } from 'fastify'
import fp from 'fastify-plugin'
import { attach } from './attach.ts'

const TooLarge = createError('JW_BODY_TOO_LARGE', 'The body is larger than %d bytes', 413)

/** Refuses bodies over the route's limit: by their Content-Length at once, chunked ones as they grow. */
export default fp(
  async (fastify) => {
    fastify.addHook('onRoute', (routeOptions) => {
      const limit = routeOptions.config?.route?.edge.bodyLimit
      if (limit !== undefined && limit !== false) attach(routeOptions, 'preParsing', limiter(limit))
    })
  },
  { name: 'jingwei-body-limit', fastify: '5.x' }
)

function limiter(limit: number): preParsingHookHandler {
  return (request, _reply, payload, done) => {
    const length = request.headers['content-length']
    if (length !== undefined && Number(length) > limit) done(new TooLarge(limit))
    else if (request.headers['transfer-encoding'] === undefined) done(null, payload)
    else done(null, payload.pipe(counting(limit)))
  }
}

function counting(limit: number): Transform {
  let size = 0
  return new Transform({
    transform(chunk: Buffer, _encoding, done) {
      size += chunk.length
      if (size > limit) done(new TooLarge(limit))
      else done(null, chunk)
    }
  })
}
