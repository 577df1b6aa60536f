import type { Readable } from 'node:stream'
import createError from '@fastify/error'
import type { preParsingHookHandler } from 'fastify'
import fp from 'fastify-plugin'
import { attach } from './attach.ts'
import { Body, hasUnknownLength } from './request-body.ts'

const TooLarge = createError('JW_BODY_TOO_LARGE', 'The body is larger than %d bytes', 413)

/** Refuses bodies over the route's limit: by their Content-Length at once, others as they grow. */
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
    if (Number(request.headers['content-length'] ?? 0) > limit) done(new TooLarge(limit))
    else if (hasUnknownLength(request.raw)) done(null, new CountedBody(payload as Readable, limit))
    else done(null, payload)
  }
}

class CountedBody extends Body {
  readonly #limit: number
  #size = 0

  constructor(source: Readable, limit: number) {
    super(source)
    this.#limit = limit
    // Nobody may be reading: the request was refused on other grounds.
    this.on('error', () => {})
  }

  protected override refusal(chunk: Buffer): Error | null {
    this.#size += chunk.length
    return this.#size > this.#limit ? new TooLarge(this.#limit) : null
  }
}
