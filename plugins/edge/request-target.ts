import createError from '@fastify/error'
import fp from 'fastify-plugin'
import type { Config } from '../../config/schema.ts'

const Ambiguous = createError('JW_AMBIGUOUS_PATH', 'The path can be read in more than one way: %s', 400)
const NotOrigin = createError('JW_BAD_TARGET', 'Only paths can be asked for, not whole URLs', 400)
const TooLong = createError('JW_URL_TOO_LONG', 'The request target is longer than %d bytes', 414)
const HeadTooLarge = createError('JW_HEAD_TOO_LARGE', 'The request head is larger than %d bytes', 431)

/**
 * What services read in different ways: a dot segment, a backslash, an encoded slash, backslash or NUL. Passing
 * one on could walk around the protection of the route that the service ends up serving.
 */
const ambiguous = /\\|%(?:2f|5c|00)|\/(?:\.|%2e){1,2}(?:[/;]|%3b|$)/i

/** Refuses request targets that router and service could understand differently, whatever route they match. */
export default fp<Config>(
  async (fastify, { listen }) => {
    const { url: longest, headers: largest } = listen.limits
    fastify.addHook('onRequest', (request, _reply, done) => {
      const url = request.raw.url!
      if (url.length > longest) return done(new TooLong(longest))
      // Node bounds HTTP/1 heads itself; those of HTTP/2 only once the client has acknowledged our settings.
      const { raw } = request
      if (raw.httpVersionMajor > 1 && sizeOf(raw.rawHeaders) > largest) return done(new HeadTooLarge(largest))
      if (url.charCodeAt(0) !== 47 && url !== '*') return done(new NotOrigin())
      const query = url.indexOf('?')
      const found = ambiguous.exec(query === -1 ? url : url.slice(0, query))
      if (found !== null) return done(new Ambiguous(found[0]))
      // A fragment never travels (RFC 9112, 3.2); the router ends the path there, a service may not.
      done(url.includes('#') ? new Ambiguous('#') : undefined)
    })
  },
  { name: 'jingwei-request-target', fastify: '5.x' }
)

function sizeOf(rawHeaders: readonly string[]): number {
  let size = 0
  for (const text of rawHeaders) size += text.length
  return size
}
