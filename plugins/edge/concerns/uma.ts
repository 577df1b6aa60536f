/**
 * Permissions by Keycloak (User-Managed Access 2.0): asks the token endpoint whether the caller's bearer token grants the
 * permissions of a route, with `response_mode=decision`. Runs after authentication and rules, because it takes a call.
 */
import { createError } from '@fastify/error'
import type { FastifyReply, FastifyRequest } from 'fastify'
import type { Static } from 'typebox'
import { Count, Duration, Name, Off, orOff, strict, Text, Url } from '../../../config/schema/kit.ts'
import Type from '../../../config/schema/type.ts'
import type { AuthResponse, FailureReason } from '../bridge/auth-server.ts'
import { AuthFailure, AuthServer } from '../bridge/auth-server.ts'
import { checkAuthServer } from '../bridge/check-auth-server.ts'
import { bearerChallenge } from '../claims.ts'
import { edgeConcern } from '../concern.ts'

const Uma = Type.Object(
  {
    url: Type.Optional(Url('http', 'Token endpoint: `https://HOST/realms/NAME/protocol/openid-connect/token`.')),
    service: Type.Optional({ ...Name, description: 'Service with the endpoint, instead of `url`.' }),
    path: Type.Optional(
      Type.String({
        pattern: '^/[!-"$-~]*$',
        expected: 'a path that starts with /',
        description: 'With `service`: its path.'
      })
    ),
    audience: Type.String({
      minLength: 1,
      description: 'Client id of the resource server, whose permissions are asked for.'
    }),
    permissions: Type.Array(Text, {
      minItems: 1,
      maxItems: 10,
      description: 'Permissions as `resource#scope`, `resource` or `#scope`; all are needed. Each takes a call.'
    }),
    timeout: Duration('Longest time of a call.', { default: '2s' }),
    maxConcurrent: Count('Most calls in flight, in each process. Requests that need more get 503.', { default: 100 })
  },
  { ...strict, description: "Asks Keycloak whether the caller's bearer token grants permissions." }
)

type Options = Static<typeof Uma>

declare module '../../../config/schema.ts' {
  interface EdgePolicy {
    uma?: Options | false
  }
}

const TokenMissing = createError('JW_TOKEN_MISSING', 'A bearer token is required', 401)
const TokenInvalid = createError('JW_TOKEN_INVALID', 'The token is not valid', 401)
const Denied = createError('JW_INSUFFICIENT_SCOPE', 'The token does not allow this request', 403)
const Unavailable = createError('JW_AUTH_UNAVAILABLE', 'The server for authorization is unavailable', 503)

/** Reasons for the access log, by the failure of a call. A closed list, documented in plugins/edge/README.md. */
const failures: Readonly<Record<FailureReason, string>> = {
  timeout: 'uma_timeout',
  unreachable: 'uma_unreachable',
  malformed: 'uma_malformed',
  status: 'uma_status',
  overloaded: 'uma_overloaded'
}

export const umaReasons = ['uma_token', 'uma_invalid', 'uma_denied', ...Object.values(failures)] as const

/** Largest response in bytes. */
const maxResponseSize = 64 * 1024

type Verdict = 'granted' | 'denied' | 'invalid'

export default edgeConcern({
  name: 'uma',
  options: orOff(Uma),
  // Others would need connections of their own while the gateway serves.
  forConsumers: { phases: ['preParsing'], options: Off },
  check: checkAuthServer,
  // A service is scripted in tests, a URL is not.
  isolate: (options) => options.url === undefined && options,
  async plugin(_fastify, { stores, log }) {
    return ({ url, service, path = '/', timeout, maxConcurrent, audience, permissions }) => {
      const target = { url, service, path, timeout, maxConcurrent, maxResponseSize }
      const server = stores.claim(
        'jingwei.uma',
        target,
        () => new AuthServer(target, log),
        (unclaimed) => unclaimed.close()
      )
      const bodies = permissions.map((permission) => bodyOf(audience, permission))
      const decide = async (request: FastifyRequest, token: string): Promise<Verdict> => {
        // One call each: Keycloak grants a request for several permissions as soon as one of them is granted.
        for (const body of bodies) {
          const headers = [
            ...['content-type', 'application/x-www-form-urlencoded', 'accept', 'application/json'],
            ...['authorization', `Bearer ${token}`]
          ]
          const call = { method: 'POST' as const, headers, body, needsBody: () => true, endsWithClient: true }
          const verdict = await server.call(request, call, verdictOf)
          if (verdict !== 'granted') return verdict
        }
        return 'granted'
      }
      return {
        preParsing(request, reply, payload, done) {
          const token = tokenOf(request)
          if (token === null) return done(refusal('uma_token', request, reply))
          decide(request, token).then(
            (verdict) =>
              verdict === 'granted' ? done(null, payload) : done(refusal(`uma_${verdict}`, request, reply)),
            (error) => done(error instanceof AuthFailure ? unavailable(error, request) : error)
          )
        }
      }
    }
  }
})

function bodyOf(audience: string, permission: string): Buffer {
  const form = {
    grant_type: 'urn:ietf:params:oauth:grant-type:uma-ticket',
    audience,
    permission,
    response_mode: 'decision'
  }
  return Buffer.from(new URLSearchParams(form).toString())
}

/** Returns the token of the only `Authorization` header (RFC 6750, 2.1); null if there is none. */
function tokenOf({ raw: { headers, rawHeaders } }: FastifyRequest): string | null {
  const names = rawHeaders.filter((text, index) => index % 2 === 0 && text.toLowerCase() === 'authorization')
  if (names.length !== 1) return null
  return /^bearer +([-._~+/0-9A-Za-z]+=*) *$/i.exec(headers.authorization ?? '')?.[1] ?? null
}

/** Returns the verdict of a response. Throws an `AuthFailure` if it has none, such as for an unknown resource. */
function verdictOf({ status, body }: AuthResponse): Verdict {
  const { result, error } = parsed(body)
  if (status === 200) {
    if (result === true) return 'granted'
    throw new AuthFailure('malformed', 'a response with status 200 has no "result": true')
  }
  if (status === 403 && error === 'access_denied') return 'denied'
  if (status === 401 || (status === 400 && error === 'invalid_grant')) return 'invalid'
  const known = typeof error === 'string' && /^[a-z_]{1,40}$/.test(error) ? `, ${error}` : ''
  throw new AuthFailure('status', `status ${status}${known}`)
}

function parsed(body: Buffer | null): { result?: unknown; error?: unknown } {
  try {
    return Object(JSON.parse(String(body))) as { result?: unknown; error?: unknown }
  } catch {
    return {}
  }
}

function refusal(
  reason: 'uma_token' | 'uma_denied' | 'uma_invalid',
  request: FastifyRequest,
  reply: FastifyReply
): Error {
  request.refusalReason = reason
  const challenge = bearerChallenge(reason === 'uma_denied')
  reply.header('www-authenticate', reason === 'uma_invalid' ? `${challenge}, error="invalid_token"` : challenge)
  return reason === 'uma_token' ? new TokenMissing() : reason === 'uma_denied' ? new Denied() : new TokenInvalid()
}

function unavailable(failure: AuthFailure, request: FastifyRequest): Error {
  request.refusalReason = failures[failure.reason]
  return Object.assign(new Unavailable(), { cause: failure.cause })
}
