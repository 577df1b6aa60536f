import type { IncomingMessage } from 'node:http'
import createError from '@fastify/error'
import type { FastifyRequest } from 'fastify'
import fp from 'fastify-plugin'
import type { Config } from '../../../config/schema.ts'
import { edgeRouteOf } from '../attach.ts'
import { markLastResponse } from './last-response.ts'
import { byListener } from './peers.ts'

const Ambiguous = createError('JW_AMBIGUOUS_PATH', 'The path can be read in more than one way: %s', 400)
const Spelling = createError(
  'JW_AMBIGUOUS_PATH',
  'Servers that ignore case, blanks, dots or a trailing slash may read the path as a different one',
  400
)
const NotOrigin = createError(
  'JW_BAD_TARGET',
  'The request target is neither a path nor a URL of the host in the Host header',
  400
)
const NotEncoded = createError('JW_BAD_TARGET', 'The request target has characters that must be percent-encoded', 400)
const BadHost = createError('JW_BAD_HOST', 'Host or :authority is missing, or is not a host and port', 400)
const SeveralHosts = createError(
  'JW_SEVERAL_HOSTS',
  'There is more than one Host, or Host differs from :authority',
  400
)
const UnknownCoding = createError('JW_UNKNOWN_CODING', 'The transfer coding is not supported: %s', 501)
const BadFraming = createError('JW_BAD_FRAMING', 'An HTTP/1.0 request must not have Transfer-Encoding', 400)
const BadLength = createError('JW_BAD_FRAMING', 'Content-Length has leading zeros', 400)
const BadVersion = createError('JW_BAD_VERSION', 'The HTTP version is not supported', 505)
const TooLong = createError('JW_URL_TOO_LONG', 'The request target is longer than %d bytes', 414)
const HeadTooLarge = createError('JW_HEAD_TOO_LARGE', 'The header section of the request is larger than %d bytes', 431)

/** Reasons for the access log, a closed list: documented in plugins/edge/README.md. */
export const targetReasons = [
  'path_dot_segment', 'path_parameters', 'path_backslash', 'path_encoded_slash', 'path_nul', 'path_overlong_utf8',
  'path_spelling', 'path_fragment', 'target_form', 'target_characters', 'host_missing', 'host_malformed',
  'framing_transfer_encoding', 'framing_content_length'
] as const // biome-ignore format: a list

type TargetReason = (typeof targetReasons)[number]

/**
 * Parts of a path that services read in different ways: a dot segment, a backslash, an encoded slash, backslash or NUL,
 * a segment of nothing but path parameters, a character of ASCII in more bytes than it needs. Passing one on could walk
 * around the protection of the route that the service ends up serving.
 */
const ambiguous = /\\|%(?:2f|5c|00)|\/(?:(?:\.|%2e){1,2}(?:[/;]|%3b|$)|;|%3b)|%(?:c[01]%[89ab]|e0%[89]|f0%8)[\da-f]/i

/** The same where a service tells `%2F` from `/`: all but that, whose neighbours may be dot segments to others. */
const ambiguousBeside =
  /\\|%(?:5c|00)|(?:\/|%2f)(?:(?:\.|%2e){1,2}(?:[/;]|%2f|%3b|$)|;|%3b)|%(?:c[01]%[89ab]|e0%[89]|f0%8)[\da-f]/i

/** Characters that most targets do not have; targets with one of them are looked at more closely. */
const odd = /[^!-~]|[%;#\\]|\/\./

/** The beginning of a segment's path parameters. */
const parameters = /;|%3b/i

/**
 * A name or address, and a port. An http URI without a host is invalid (RFC 9110, 4.2.1), so it may not be empty. Nor may
 * a label be, but for the dot of an absolute name: services that drop more of them would read the name of another route.
 */
const hostAndPort = /^(?:[\w~-]+(?:\.[\w~-]+)*\.?|\[[\da-f:.]+\])(?::(\d{0,5}))?$/i
const MAX_PORT = 65_535
/** Names and values above which the separators of an HTTP/1 header section are counted, too. */
const MANY_ENTRIES = 256
/** Bytes of a field in HTTP/1.1 besides its name and value: a colon, a blank and the end of the line. */
const SEPARATORS = 4
/** Only visible ASCII may be in a request target (RFC 3986, 2); services decode the rest in different ways. */
const unencoded = /[^\x21-\x7e]/

declare module 'fastify' {
  interface FastifyInstance {
    /**
     * Requests that could be for a route with other protection, by the reading of a common server. Refused with 400.
     */
    ambiguousPaths: WeakSet<IncomingMessage>
  }
}

/**
 * Refuses targets, hosts and framings that router and service could understand differently, whatever the route and
 * whatever the HTTP version.
 */
export default fp<Config>(
  async (fastify, config) => {
    const limitsOf = byListener(config, ({ limits }) => limits)
    const ambiguousPaths = new WeakSet<IncomingMessage>()
    fastify.decorate('ambiguousPaths', ambiguousPaths)
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
      const { headers } = raw
      const { url: longest, headers: largest } = limitsOf(raw)
      if (raw.httpVersionMajor === 1) {
        const { upgrade, 'transfer-encoding': coding } = headers
        if (upgrade !== undefined && !(raw as { upgrade?: boolean }).upgrade) {
          // It is ignored, and with it Node drops what came in the same packet: a next request may lack its beginning.
          markLastResponse(raw)
          reply.header('connection', 'close')
        }
        if (coding !== undefined) {
          if (raw.httpVersionMinor === 0) return done(because(request, 'framing_transfer_encoding', new BadFraming()))
          if (coding.toLowerCase() !== 'chunked') return done(new UnknownCoding(coding))
        }
      } else if (!('stream' in raw)) return done(new BadVersion()) // in an HTTP/1 request line
      if (url.length > longest) return done(new TooLong(longest))
      if (hasSeveralHosts(raw)) return done(new SeveralHosts())
      const host = (headers[':authority'] as string | undefined) ?? headers.host
      if (host !== soundHost) {
        // Node refuses HTTP/1.1 without Host, and HTTP/1.0 may lack it.
        const isBad = host === undefined ? raw.httpVersionMajor > 1 : !isHostAndPort(host)
        if (isBad) return done(because(request, host ? 'host_malformed' : 'host_missing', new BadHost()))
        soundHost = host
      }
      // Some servers read it as octal, and the client of the mesh refuses to send it.
      if (headers['content-length']?.startsWith('0') && headers['content-length'] !== '0') {
        return done(because(request, 'framing_content_length', new BadLength()))
      }
      // Node bounds the names and values of HTTP/1 by itself, and those of HTTP/2 only roughly.
      const many = raw.httpVersionMajor > 1 || raw.rawHeaders.length > MANY_ENTRIES
      if (many && sizeOf(raw.rawHeaders) > largest) return done(new HeadTooLarge(largest))
      if (url.charCodeAt(0) !== 47) {
        if (url !== '*' || raw.method !== 'OPTIONS') return done(because(request, 'target_form', new NotOrigin()))
        // Of the server as a whole (RFC 9110, 9.3.7), so of the gateway: there is no one service to ask.
        request.isOwnResponse = true
        reply
          .code(204)
          .header('allow', [...methods].sort().join(', '))
          .send()
        return
      }
      // Answered by the gateway, so that the browser sends the request, whose refusal a page can read.
      if (isPreflight(request)) return done()
      const isSpelt = ambiguousPaths.has(raw)
      if (!odd.test(url)) return done(isSpelt ? because(request, 'path_spelling', new Spelling()) : undefined)
      if (unencoded.test(url)) return done(because(request, 'target_characters', new NotEncoded()))
      const query = url.indexOf('?')
      const path = query === -1 ? url : url.slice(0, query)
      const passes = request.routeOptions.config?.route?.path
      let found = ambiguous.exec(path)
      if (found !== null && passes?.encodedSlash === 'pass') found = ambiguousBeside.exec(path)
      if (found === null && passes?.parameters !== 'pass') found = parameters.exec(path)
      if (found !== null) return done(because(request, ambiguityOf(found[0]), new Ambiguous(found[0])))
      if (isSpelt) return done(because(request, 'path_spelling', new Spelling()))
      // A fragment never travels (RFC 9112, 3.2); the router ends the path there, a service may not.
      done(url.includes('#') ? because(request, 'path_fragment', new Ambiguous('#')) : undefined)
    })
  },
  { name: 'jingwei-request-target', fastify: '5.x' }
)

/** Notes the reason of a refusal for the access log, where the code has several; returns the error. */
function because(request: FastifyRequest, reason: TargetReason, error: Error): Error {
  request.refusalReason = reason
  return error
}

/** Returns the reason for a part of a path that services read in different ways. */
function ambiguityOf(part: string): TargetReason {
  if (/\.|%2e/i.test(part)) return 'path_dot_segment'
  if (/;|%3b/i.test(part)) return 'path_parameters'
  if (/\\|%5c/i.test(part)) return 'path_backslash'
  if (/%2f/i.test(part)) return 'path_encoded_slash'
  return part === '%00' ? 'path_nul' : 'path_overlong_utf8'
}

/** Returns whether a request is a preflight that a concern answers, so that it never gets to a service. */
function isPreflight({ raw: { method, headers }, routeOptions }: FastifyRequest): boolean {
  if (method !== 'OPTIONS' || !headers.origin || !headers['access-control-request-method']) return false
  return edgeRouteOf(routeOptions.config)?.declared.answersPreflights === true
}

function isHostAndPort(host: string): boolean {
  const found = hostAndPort.exec(host)
  return found !== null && Number(found[1] ?? 0) <= MAX_PORT
}

/**
 * Returns whether Host comes twice, of which Node shows the first alone, or differs from `:authority` (RFC 9113,
 * 8.3.1). By the length of the names, the loop costs less than a twentieth of a microsecond.
 */
function hasSeveralHosts({ rawHeaders, headers }: IncomingMessage): boolean {
  let hosts = 0
  for (let i = 0; i < rawHeaders.length; i += 2) {
    const name = rawHeaders[i]!
    if (name.length === 4 && name.toLowerCase() === 'host' && ++hosts > 1) return true
  }
  const authority = headers[':authority']
  return hosts > 0 && authority !== undefined && authority !== headers.host
}

function sizeOf(rawHeaders: readonly string[]): number {
  let size = (rawHeaders.length / 2) * SEPARATORS
  for (const text of rawHeaders) size += text.length
  return size
}
