import createError from '@fastify/error'
import fp from 'fastify-plugin'
import type { Config } from '../../config/schema.ts'

const Ambiguous = createError('JW_AMBIGUOUS_PATH', 'The path can be read in more than one way: %s', 400)
const NotOrigin = createError('JW_BAD_TARGET', 'Only paths can be asked for, not whole URLs', 400)
const TooLong = createError('JW_URL_TOO_LONG', 'The request target is longer than %d bytes', 414)

/**
 * What services read in different ways: a dot segment, a backslash, an encoded slash, backslash or NUL. Passing
 * one on could walk around the protection of the route that the service ends up serving.
 */
const ambiguous = /\\|#|%(?:2f|5c|00)|\/(?:\.|%2e){1,2}(?:[/;]|$)/i

/** Refuses request targets that router and service could understand differently, whatever route they match. */
export default fp<Config>(
  async (fastify, { listen }) => {
    const longest = listen.limits.url
    fastify.addHook('onRequest', (request, _reply, done) => {
      const url = request.raw.url!
      if (url.length > longest) return done(new TooLong(longest))
      if (url.charCodeAt(0) !== 47 && url !== '*') return done(new NotOrigin())
      const query = url.indexOf('?')
      const found = ambiguous.exec(query === -1 ? url : url.slice(0, query))
      done(found === null ? undefined : new Ambiguous(found[0]))
    })
  },
  { name: 'jingwei-request-target', fastify: '5.x' }
)
