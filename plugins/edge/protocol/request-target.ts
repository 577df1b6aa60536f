import type { IncomingMessage } from 'node:http'
import createError from '@fastify/error'
import type { FastifyRequest } from 'fastify'
import fp from 'fastify-plugin'
import type { Config } from '../../../config/schema.ts'
import { edgeRouteOf, isHidden } from '../attach.ts'
import { Ambiguous, ambiguousPart } from './ambiguous-path.ts'
import { markLastResponse } from './last-response.ts'
import { byListener } from './peers.ts'

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

/** Reasons for the access log: a closed list, documented in plugins/edge/access-log/README.md. */
export const targetReasons = [
  'path_dot_segment', 'path_parameters', 'path_backslash', 'path_encoded_slash', 'path_nul', 'path_overlong_utf8',
  'path_spelling', 'path_fragment', 'target_form', 'target_characters', 'host_missing', 'host_malformed',
  'framing_transfer_encoding', 'framing_content_length'
] as const // biome-ignore format: a list

type TargetReason = (typeof targetReasons)[number]

/** Characters that most targets do not have. Only targets with one of them are checked in detail. */
const odd = /[^!-~]|[%;#\\]|\/\./

/**
 * A name or address, and a port. The host must not be empty (RFC 9110, 4.2.1), nor any label except after a trailing dot:
 * services that drop empty labels would read the host of another route.
 */
const hostAndPort = /^(?:[\w~-]+(?:\.[\w~-]+)*\.?|\[[\da-f:.]+\])(?::(\d{0,5}))?$/i
const MAX_PORT = 65_535
/** Number of names and values above which the size of an HTTP/1.1 header section is computed with separators. */
const MANY_ENTRIES = 256
/** Bytes of an HTTP/1.1 field besides its name and value: colon, space, CR and LF. */
const SEPARATORS = 4
/** Characters other than visible ASCII (RFC 3986, 2), which services decode in different ways. */
const unencoded = /[^\x21-\x7e]/

declare module 'fastify' {
  interface FastifyInstance {
    /**
     * Requests whose path some common server would read as that of a route with other protection. They get 400.
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
    /** Methods that some route accepts. */
    const methods = new Set<string>()
    fastify.addHook('onRoute', ({ method, config }) => {
      if (config?.route !== undefined) for (const name of [method].flat()) methods.add(name)
    })
    // The last valid host: most requests have the same one.
    let validHost: string | undefined

    fastify.addHook('onRequest', (request, reply, done) => {
      const { raw } = request
      const url = raw.url!
      const { headers } = raw
      const { url: longest, headers: largest } = limitsOf(raw)
      if (raw.httpVersionMajor === 1) {
        const { upgrade, 'transfer-encoding': coding } = headers
        if (upgrade !== undefined && !(raw as { upgrade?: boolean }).upgrade) {
          // The upgrade is ignored, but Node drops the bytes after it in the same packet, such as the start of the next request.
          markLastResponse(raw)
          reply.header('connection', 'close')
        }
        if (coding !== undefined) {
          if (raw.httpVersionMinor === 0)
            return done(withReason(request, 'framing_transfer_encoding', new BadFraming()))
          if (coding.toLowerCase() !== 'chunked') return done(new UnknownCoding(coding))
        }
      } else if (!('stream' in raw)) return done(new BadVersion()) // HTTP/2 in an HTTP/1 request line
      if (url.length > longest) return done(new TooLong(longest))
      if (hasSeveralHosts(raw)) return done(new SeveralHosts())
      const host = (headers[':authority'] as string | undefined) ?? headers.host
      if (host !== validHost) {
        // Node refuses HTTP/1.1 without Host; HTTP/1.0 may omit it.
        const isBad = host === undefined ? raw.httpVersionMajor > 1 : !isHostAndPort(host)
        if (isBad) return done(withReason(request, host ? 'host_malformed' : 'host_missing', new BadHost()))
        validHost = host
      }
      // Some servers would read the length as octal, and the mesh refuses to send it.
      if (headers['content-length']?.startsWith('0') && headers['content-length'] !== '0') {
        return done(withReason(request, 'framing_content_length', new BadLength()))
      }
      // Node limits names and values of HTTP/1.1 exactly, and those of HTTP/2 only roughly.
      const many = raw.httpVersionMajor > 1 || raw.rawHeaders.length > MANY_ENTRIES
      if (many && sizeOf(raw.rawHeaders) > largest) return done(new HeadTooLarge(largest))
      if (url.charCodeAt(0) !== 47) {
        if (url !== '*' || raw.method !== 'OPTIONS') return done(withReason(request, 'target_form', new NotOrigin()))
        // `OPTIONS *` concerns the server as a whole (RFC 9110, 9.3.7), that is, the gateway and no single service.
        request.isOwnResponse = true
        reply
          .code(204)
          .header('allow', [...methods].sort().join(', '))
          .send()
        return
      }
      // Not refused: the browser then sends the request itself, whose error the page can read.
      if (isPreflight(request)) return done()
      const isAmbiguous = ambiguousPaths.has(raw)
      if (!odd.test(url)) return done(isAmbiguous ? withReason(request, 'path_spelling', new Spelling()) : undefined)
      if (unencoded.test(url)) return done(withReason(request, 'target_characters', new NotEncoded()))
      const { path: passes, isTransparent } = request.routeOptions.config?.route ?? {}
      // No rule depends on the path.
      if (isTransparent) return done()
      const query = url.indexOf('?')
      const path = query === -1 ? url : url.slice(0, query)
      const found = ambiguousPart(path, passes)
      if (found !== null) return done(withReason(request, ambiguityOf(found), new Ambiguous(found)))
      if (isAmbiguous) return done(withReason(request, 'path_spelling', new Spelling()))
      // A target has no fragment (RFC 9112, 3.2). The router ends the path at `#`; a service may not.
      done(url.includes('#') ? withReason(request, 'path_fragment', new Ambiguous('#')) : undefined)
    })
  },
  { name: 'jingwei-request-target', fastify: '5.x' }
)

/** Records the reason of a refusal for the access log, and returns the error. */
function withReason(request: FastifyRequest, reason: TargetReason, error: Error): Error {
  request.refusalReason = reason
  return error
}

/** Returns the reason for an ambiguous part of a path. */
function ambiguityOf(part: string): TargetReason {
  if (/\.|%2e/i.test(part)) return 'path_dot_segment'
  if (/;|%3b/i.test(part)) return 'path_parameters'
  if (/\\|%5c/i.test(part)) return 'path_backslash'
  if (/%2f/i.test(part)) return 'path_encoded_slash'
  return part === '%00' ? 'path_nul' : 'path_overlong_utf8'
}

/** Returns whether a request is a preflight that a concern responds to, so that it never reaches a service. */
function isPreflight(request: FastifyRequest): boolean {
  const { method, headers } = request.raw
  if (method !== 'OPTIONS' || !headers.origin || !headers['access-control-request-method']) return false
  const route = edgeRouteOf(request.routeOptions.config)
  return route?.declared.answersPreflights === true && !isHidden(route, request)
}

function isHostAndPort(host: string): boolean {
  const found = hostAndPort.exec(host)
  return found !== null && Number(found[1] ?? 0) <= MAX_PORT
}

/**
 * Returns whether there are two Host fields, of which Node shows only the first, or Host differs from `:authority` (RFC 9113,
 * 8.3.1). Comparing lengths first keeps the loop below 50 ns.
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
