/**
 * The bodies of proxied requests go on to the service as they are: no parser reads them, of any content type. For the
 * context of the proxied routes alone, as the bodies of other routes are parsed.
 */
import type { preParsingHookHandler } from 'fastify'
import fp from 'fastify-plugin'
import { hasUnknownLength } from '../protocol/request-body.ts'

export default fp(
  async (fastify) => {
    fastify.removeAllContentTypeParsers()
    fastify.addContentTypeParser('*', (_request, payload, done) => done(null, payload))
    fastify.addHook('preParsing', settleType)
  },
  { name: 'jingwei-unparsed-bodies', fastify: '5.x' }
)

/** type/subtype and parameters, near enough to what Fastify reads. */
const mediaType = /^[\w!#$%&'*+.^`|~-]+\/[\w!#$%&'*+.^`|~-]+\s*(?:;|$)/

/**
 * Two ways of Fastify that are not a proxy's: 415 for a Content-Type that it cannot read, and no body where HTTP/2
 * brings one without type and length. It is the service's to judge: `rawHeaders`, which it gets, stay as they are.
 */
const settleType: preParsingHookHandler = (request, _reply, payload, done) => {
  const { headers } = request.raw
  const type = headers['content-type']
  if (type !== undefined ? !mediaType.test(type) : hasUnknownLength(request.raw)) {
    headers['content-type'] = 'application/octet-stream' // RFC 9110, 8.3
  }
  done(null, payload)
}
