/**
 * Refuses requests that a page of another site makes a browser send with the user's cookies (cross-site request forgery). It
 * follows `http.CrossOriginProtection` of Go 1.25: `Sec-Fetch-Site`, which all browsers send since 2023, and `Origin` for older
 * ones. So pages need no tokens, and the gateway stores nothing.
 */
import createError from '@fastify/error'
import type { Static } from 'typebox'
import type { Checked } from '../../../config/concern.ts'
import { pointer } from '../../../config/faults.ts'
import { orOff, strict } from '../../../config/schema/kit.ts'
import Type from '../../../config/schema/type.ts'
import { headerValues } from '../authentication/credentials.ts'
import { edgeConcern } from '../concern.ts'
import { isWebSocket } from '../protocol/headers.ts'
import type { OriginTest } from '../protocol/origins.ts'
import { originFault, originTest } from '../protocol/origins.ts'

const Csrf = Type.Object(
  {
    trustedOrigins: Type.Optional(
      Type.Array(Type.String(), {
        minItems: 1,
        description:
          'Origins of other sites whose pages may send such requests, written as in `cors.origin`: `https://app.example.com`, `https://*.example.com`, or a regular expression between slashes.'
      })
    ),
    sameSite: Type.Boolean({
      default: false,
      description:
        'Allow requests of pages on other hosts of the same site (`Sec-Fetch-Site: same-site`), such as those of other subdomains.'
    }),
    withoutCookies: Type.Boolean({
      default: false,
      description:
        'Allow requests that have nothing that a browser sends by itself: no cookie, no `Authorization` but a bearer token, and no client certificate. A login form needs protection without cookies, too.'
    }),
    bearer: Type.Boolean({
      default: false,
      description:
        'Allow requests with a bearer token in `Authorization`, even with cookies: a page of another site can add the token only if CORS allows it.'
    })
  },
  {
    ...strict,
    description:
      'Refuses cross-site requests of browsers: with methods other than GET, HEAD and OPTIONS, and WebSocket handshakes.'
  }
)

type Options = Static<typeof Csrf>

declare module '../../../config/schema.ts' {
  interface EdgePolicy {
    csrf?: Options | false
  }
}

const Refused = createError('JW_CROSS_SITE', 'Requests of pages on other sites are not allowed', 403)

/** Reasons for the access log. A closed list, documented in plugins/edge/access-log/README.md. */
export const csrfReasons = ['csrf_site', 'csrf_origin'] as const
type Reason = (typeof csrfReasons)[number]

/** Methods that change nothing (RFC 9110, 9.2.1), except TRACE, which browsers never send. */
const safe: ReadonlySet<string> = new Set(['GET', 'HEAD', 'OPTIONS'])

/** The properties of a request that decide. */
interface Facts {
  readonly site: string | undefined
  readonly origin: string | undefined
  /** Host and port, as the client has sent them. */
  readonly host: string
  readonly protocol: string
}

export default edgeConcern({
  name: 'csrf',
  options: orOff(Csrf),
  apiFacts: () => ({
    methods: ['POST', 'PUT', 'PATCH', 'DELETE'],
    responses: { 403: 'The request is one of a page on another site.' }
  }),
  // The concern protects the user of a browser; it is no access control.
  protects: false,
  aliases: Object.fromEntries(
    ['csrfProtection', 'xsrf', 'crossOriginProtection'].map((name) => [name, 'write csrf: {}'])
  ),
  innerAliases: {
    'additionalOrigins|allowedOrigins|origins|origin': 'write "trustedOrigins"',
    'key|secret|cookieOpts|expires|name|sessionPlugin|getToken': 'there are no tokens: remove it'
  },
  check,
  explain(options, { method, headers }) {
    if (safe.has(method) && !isWebSocket(headers.upgrade)) return `allows ${method}`
    const { 'sec-fetch-site': site, origin, host = '', authorization, cookie } = headers
    const refusal = judgeOf(options)({ site, origin, host, protocol: 'http' })
    const authorizations = [authorization ?? []].flat()
    if (refusal !== null && isExempt(options, { authorizations, cookie, certificate: null }))
      return 'allows the request: a page of another site could not send it'
    return refusal === null ? 'allows the request' : `refuses the request: ${refusal}`
  },
  plugin: async () => (options) => {
    const judge = judgeOf(options)
    return {
      onRequest(request, _reply, done) {
        const { 'sec-fetch-site': site, origin, upgrade } = request.raw.headers as Record<string, string | undefined>
        if (safe.has(request.method) && !isWebSocket(upgrade)) return done()
        // Most requests end here: those of the own pages, and those of programs.
        if (site === 'same-origin' || (site === undefined && origin === undefined)) return done()
        const reason = judge({ site, origin, host: request.host, protocol: request.protocol })
        if (reason === null) return done()
        const authorizations = headerValues(request, 'authorization')
        const { headers, clientCertificate: certificate } = request
        if (isExempt(options, { authorizations, cookie: headers.cookie, certificate })) return done()
        request.refusalReason = reason
        done(new Refused())
      }
    }
  }
})

/** Returns the function that returns why a request is refused; null if it is not. */
function judgeOf({ trustedOrigins, sameSite }: Options): (facts: Facts) => Reason | null {
  const isListed: OriginTest = trustedOrigins === undefined ? () => false : originTest(trustedOrigins)
  const isTrusted = (origin: string | undefined) => origin !== undefined && isListed(origin)
  return ({ site, origin, host, protocol }) => {
    if (site !== undefined) {
      // `none`: the user has entered the address, or opened a bookmark.
      if (site === 'same-origin' || site === 'none' || (sameSite && site === 'same-site')) return null
      return isTrusted(origin) ? null : 'csrf_site'
    }
    // Neither field: no browser, since all browsers send `Origin` with such requests since 2020.
    if (origin === undefined || isOfHost(origin, host, protocol) || isTrusted(origin)) return null
    return 'csrf_origin'
  }
}

/**
 * Returns whether an origin is the requested host. An https page may call a gateway that gets plain HTTP from a proxy before
 * it; an http page is not the own one if the gateway is reached by https.
 */
function isOfHost(origin: string, host: string, protocol: string): boolean {
  if (host === '' || !URL.canParse(origin)) return false
  const url = new URL(origin)
  if (url.protocol === 'http:' && protocol === 'https') return false
  const own = `${url.protocol}//${host}`
  // A URL omits the default port.
  return URL.canParse(own) && new URL(own).host === url.host && url.host !== ''
}

/** Credentials of a request. */
interface Credentials {
  readonly authorizations: readonly string[]
  readonly cookie: string | undefined
  readonly certificate: object | null
}

/** Returns whether a request has nothing that a browser would send for a page of another site. */
function isExempt({ withoutCookies, bearer }: Options, { authorizations, cookie, certificate }: Credentials): boolean {
  const isBearer = authorizations.every((value) => /^bearer +\S/i.test(value))
  if (bearer && authorizations.length > 0 && isBearer) return true
  return withoutCookies && isBearer && cookie === undefined && certificate === null
}

function check({ trustedOrigins = [] }: Options, at: string, { report }: Checked): void {
  if (!report.sound(at)) return
  for (const [index, origin] of trustedOrigins.entries()) {
    const anybody = 'would allow pages of any site: list the origins'
    const fault = origin === '*' || origin === 'null' ? `"${origin}" ${anybody}` : originFault(origin)
    if (fault !== null) report.fault(pointer(at, 'trustedOrigins', index), fault)
  }
}
