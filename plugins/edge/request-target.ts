import createError from '@fastify/error'
import fp from 'fastify-plugin'
import type { Config } from '../../config/schema.ts'
import { part } from './parting.ts'

const Ambiguous = createError('JW_AMBIGUOUS_PATH', 'The path can be read in more than one way: %s', 400)
const NotOrigin = createError('JW_BAD_TARGET', 'Neither a path nor a URL of the host that Host names', 400)
const BadHost = createError('JW_BAD_HOST', 'The Host header is not a host and port', 400)
const SeveralHosts = createError('JW_SEVERAL_HOSTS', 'There is more than one Host header', 400)
const UnknownCoding = createError('JW_UNKNOWN_CODING', 'The transfer coding is not known: %s', 501)
const BadFraming = createError('JW_BAD_FRAMING', 'HTTP/1.0 has no Transfer-Encoding', 400)
const BadVersion = createError('JW_BAD_VERSION', 'The HTTP version is not supported', 505)
const TooLong = createError('JW_URL_TOO_LONG', 'The request target is longer than %d bytes', 414)
const HeadTooLarge = createError('JW_HEAD_TOO_LARGE', 'The request head is larger than %d bytes', 431)

/**
 * What services read in different ways: a dot segment, a backslash, an encoded slash, backslash or NUL. Passing
 * one on could walk around the protection of the route that the service ends up serving.
 */
const ambiguous = /\\|%(?:2f|5c|00)|\/(?:\.|%2e){1,2}(?:[/;]|%3b|$)/i

/** The same where a service tells `%2F` from `/`: all but that, whose neighbours may be dot segments to others. */
const ambiguousBeside = /\\|%(?:5c|00)|(?:\/|%2f)(?:\.|%2e){1,2}(?:[/;]|%2f|%3b|$)/i

/** A name or address and a port; also nothing (RFC 9112, 3.2). */
const hostAndPort = /^(?:(?:[\w.~-]+|\[[\da-f:.]+\])(?::\d{0,5})?)?$/i

/** Refuses request lines, hosts and framings that router and service could understand differently, whatever the route. */
export default fp<Config>(
  async (fastify, { listen }) => {
    const { url: longest, headers: largest } = listen.limits
    /** Methods that some route takes. */
    const methods = new Set<string>()
    fastify.addHook('onRoute', ({ method, config }) => {
      if (config?.route !== undefined) for (const name of [method].flat()) methods.add(name)
    })
    // Of all hosts that were in order only the last: most requests ask for the same one.
    let soundHost: string | undefined

    fastify.addHook('onRequest', (request, reply, done) => {
      const { raw } = request
      const url = raw.url!
      if (raw.httpVersionMajor === 1) {
        const { host, upgrade, 'transfer-encoding': coding } = raw.headers
        if (upgrade !== undefined && !(raw as { upgrade?: boolean }).upgrade) {
          // It is ignored, and with it Node drops what came in the same packet: a next request may lack its beginning.
          part(raw)
          reply.header('connection', 'close')
        }
        if (coding !== undefined) {
          if (raw.httpVersionMinor === 0) return done(new BadFraming())
          if (coding.toLowerCase() !== 'chunked') return done(new UnknownCoding(coding))
        }
        if (hasSeveralHosts(raw.rawHeaders)) return done(new SeveralHosts())
        if (host !== soundHost) {
          if (host !== undefined && !hostAndPort.test(host)) return done(new BadHost())
          soundHost = host
        }
      } else if (!('stream' in raw)) return done(new BadVersion()) // in an HTTP/1 request line
      if (url.length > longest) return done(new TooLong(longest))
      // Node bounds HTTP/1 heads itself; those of HTTP/2 only once the client has acknowledged our settings.
      if (raw.httpVersionMajor > 1 && sizeOf(raw.rawHeaders) > largest) return done(new HeadTooLarge(largest))
      if (url.charCodeAt(0) !== 47) {
        if (url !== '*' || raw.method !== 'OPTIONS') return done(new NotOrigin())
        // Of the server as a whole (RFC 9110, 9.3.7), so of the gateway: there is no one service to ask.
        reply
          .code(204)
          .header('allow', [...methods].sort().join(', '))
          .send()
        return
      }
      const query = url.indexOf('?')
      const path = query === -1 ? url : url.slice(0, query)
      let found = ambiguous.exec(path)
      if (found !== null && request.routeOptions.config?.route?.path?.encodedSlash === 'pass')
        found = ambiguousBeside.exec(path)
      if (found !== null) return done(new Ambiguous(found[0]))
      // A fragment never travels (RFC 9112, 3.2); the router ends the path there, a service may not.
      done(url.includes('#') ? new Ambiguous('#') : undefined)
    })
  },
  { name: 'jingwei-request-target', fastify: '5.x' }
)

/** Node shows the first alone. By the length of the names, the loop costs less than a twentieth of a microsecond. */
function hasSeveralHosts(rawHeaders: readonly string[]): boolean {
  let hosts = 0
  for (let i = 0; i < rawHeaders.length; i += 2) {
    const name = rawHeaders[i]!
    if (name.length === 4 && name.toLowerCase() === 'host' && ++hosts > 1) return true
  }
  return false
}

function sizeOf(rawHeaders: readonly string[]): number {
  let size = 0
  for (const text of rawHeaders) size += text.length
  return size
}
