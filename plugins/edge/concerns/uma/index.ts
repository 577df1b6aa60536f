/**
 * Permissions by Keycloak (User-Managed Access 2.0): asks the token endpoint whether the caller's bearer token grants the
 * permissions of a route, with `response_mode=decision`. Runs after authentication and rules, because it takes a call.
 */
import { createError } from '@fastify/error'
import type { FastifyReply, FastifyRequest } from 'fastify'
import { mountPoint, readPath } from '../../../../config/path-reading.ts'
import { Off, orOff } from '../../../../config/schema/kit.ts'
import { edgeRouteOf } from '../../attach.ts'
import { verifiedToken } from '../../authentication/verified-token.ts'
import { AuthFailure, AuthServer } from '../../bridge/auth-server.ts'
import { Undecided, undecidedReasons } from '../../bridge/undecided.ts'
import { bearerChallenge, realmOf } from '../../claims.ts'
import { edgeConcern } from '../../concern.ts'
import { recordError } from '../../shadow.ts'
import type { Outcome, Verdict } from './decider.ts'
import { Decider } from './decider.ts'
import { checkUma, Uma } from './options.ts'
import type { Permission } from './permissions.ts'
import { permissionsOf } from './permissions.ts'

const TokenMissing = createError('JW_TOKEN_MISSING', 'A bearer token is required', 401)
const TokenInvalid = createError('JW_TOKEN_INVALID', 'The token is not valid', 401)
const Denied = createError('JW_INSUFFICIENT_SCOPE', 'The token does not allow this request', 403)

export const umaReasons = ['uma_token', 'uma_invalid', 'uma_denied', ...undecidedReasons('uma')] as const

const outcomes: readonly Outcome[] = ['granted', 'denied', 'invalid', 'cached', 'failed']

/** Largest response in bytes. */
const maxResponseSize = 64 * 1024

export default edgeConcern({
  name: 'uma',
  options: orOff(Uma),
  apiFacts: () => ({
    responses: { 401: 'The token is missing or wrong.', 403: 'The token does not allow the request.' }
  }),
  aliases: { 'authzKeycloak|keycloak': 'write edge.uma' },
  // Others would need connections of their own while the gateway serves.
  forConsumers: { phases: ['preParsing'], options: Off },
  check: checkUma,
  // A service is scripted in tests, a URL is not.
  isolate: (options) => options.url === undefined && options,
  explain({ permissions }, { method, target, paths }) {
    const all = permissionsOf(permissions, paths)(method, () => readPath(target))
    return all === null ? 'refuses: the path is no resource' : `asks for ${all.map(({ text }) => text).join(', ')}`
  },
  async plugin(fastify, { config, stores, meter, log, clock }) {
    const prefix = mountPoint(fastify).length
    return (
      { url, service, path = '/', timeout, maxConcurrent, audience, permissions, maxAge, cacheSize },
      route,
      shadow
    ) => {
      const target = { url, service, path, timeout, maxConcurrent, maxResponseSize }
      const decisions = { audience, maxAge, cacheSize }
      const decider = stores.claim(
        'jingwei.uma',
        { target, decisions },
        () => new Decider(new AuthServer(target, log), decisions, clock),
        (unclaimed) => unclaimed.close()
      )
      const permissionsFor = permissionsOf(permissions, config.listen.paths)
      const counter = meter.counter({
        name: 'jingwei_edge_uma_permissions_total',
        help: 'Permissions that requests needed, by route and result: granted, denied, invalid (the token), cached or failed.',
        labelNames: ['route', 'result']
      })
      const { name, edge } = edgeRouteOf(route.config)!
      const refusal = refusalIn(realmOf(edge))
      const counts = Object.fromEntries(outcomes.map((outcome) => [outcome, counter.labels(name, outcome)]))
      const count = (outcome: Outcome) => counts[outcome]!.inc()
      const decide = async (request: FastifyRequest, token: string, all: readonly Permission[]): Promise<Verdict> => {
        // One call each: Keycloak grants a request for several permissions as soon as one of them is granted.
        for (const permission of all) {
          const verdict = await decider.decide(request, token, permission, count)
          if (verdict !== 'granted') return verdict
        }
        return 'granted'
      }
      return {
        preParsing(request, reply, payload, done) {
          const token = verifiedToken(request) ?? tokenOf(request)
          if (token === null) return done(refusal('uma_token', request, reply))
          const all = permissionsFor(request.method, () => readPath(request.raw.url!.slice(prefix)))
          if (all === null) return done(refusal('uma_denied', request, reply))
          const decision = decide(request, token, all)
          if (shadow !== null) {
            // The request does not wait for the decision.
            decision.then(
              (verdict) => {
                if (verdict === 'granted') return
                const reason = `uma_${verdict}` as const
                recordError(shadow, request, errorFor(reason), reason, reply)
              },
              (error) => {
                const undecided = error instanceof AuthFailure ? new Undecided('uma', error) : null
                recordError(shadow, request, undecided ?? error, undecided?.reason, reply)
              }
            )
            return done(null, payload)
          }
          decision.then(
            (verdict) =>
              verdict === 'granted' ? done(null, payload) : done(refusal(`uma_${verdict}`, request, reply)),
            (error) => {
              if (!(error instanceof AuthFailure)) return done(error)
              const undecided = new Undecided('uma', error)
              request.refusalReason = undecided.reason
              done(undecided)
            }
          )
        }
      }
    }
  }
})

/** Returns the token of the only `Authorization` header (RFC 6750, 2.1); null if there is none. */
function tokenOf({ raw: { headers, rawHeaders } }: FastifyRequest): string | null {
  const names = rawHeaders.filter((text, index) => index % 2 === 0 && text.toLowerCase() === 'authorization')
  if (names.length !== 1) return null
  return /^bearer +([-._~+/0-9A-Za-z]+=*) *$/i.exec(headers.authorization ?? '')?.[1] ?? null
}

type Reason = 'uma_token' | 'uma_denied' | 'uma_invalid'

/** Returns the function that refuses requests with challenges of a realm. */
function refusalIn(realm: string) {
  return (reason: Reason, request: FastifyRequest, reply: FastifyReply): Error => {
    request.refusalReason = reason
    const challenge = bearerChallenge(realm, reason === 'uma_denied')
    reply.header('www-authenticate', reason === 'uma_invalid' ? `${challenge}, error="invalid_token"` : challenge)
    return errorFor(reason)
  }
}

const errorFor = (reason: Reason): Error =>
  reason === 'uma_token' ? new TokenMissing() : reason === 'uma_denied' ? new Denied() : new TokenInvalid()
