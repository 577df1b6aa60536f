/**
 * Passes the bodies of proxied requests to the service unparsed, whatever their content type. Registered only in the context
 * of the proxied routes; the bodies of other routes are parsed.
 */
import type { preParsingHookHandler } from 'fastify'
import fp from 'fastify-plugin'
import { hasUnknownLength } from '../protocol/request-body.ts'

export default fp(
  async (fastify) => {
    fastify.removeAllContentTypeParsers()
    fastify.addContentTypeParser('*', (_request, payload, done) => done(null, payload))
    fastify.addHook('preParsing', acceptAnyType)
  },
  { name: 'jingwei-unparsed-bodies', fastify: '5.x' }
)

/** Media type: type/subtype and parameters, close to what Fastify accepts. */
const mediaType = /^[\w!#$%&'*+.^`|~-]+\/[\w!#$%&'*+.^`|~-]+\s*(?:;|$)/

/**
 * Disables two checks of Fastify that a proxy must leave to the service: 415 for an invalid Content-Type, and ignoring an
 * HTTP/2 body without type and length. The service still gets the client's fields, which come from `rawHeaders`.
 */
const acceptAnyType: preParsingHookHandler = (request, _reply, payload, done) => {
  const { headers } = request.raw
  const type = headers['content-type']
  if (type !== undefined ? !mediaType.test(type) : hasUnknownLength(request.raw)) {
    headers['content-type'] = 'application/octet-stream' // RFC 9110, 8.3
  }
  done(null, payload)
}
