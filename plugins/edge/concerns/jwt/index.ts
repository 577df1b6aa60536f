/**
 * Authentication by JSON Web Token, by @fastify/jwt: one verifier per distinct configuration, one hook on each
 * route that asks for it. Leaves `request.user` (the claims) and `request.consumer`.
 *
 * What @fastify/jwt leaves open is closed here: every unusable token is a 401, never a 400 or 500, and a second
 * Authorization header, of which Node shows only the first but the service would see both, is refused.
 */
import { createError } from '@fastify/error'
import type { FastifyReply, FastifyRequest } from 'fastify'
import { orOff } from '../../../../config/schema/kit.ts'
import type { Clock } from '../../../clock.ts'
import { dropHeaders } from '../../../for-plugins.ts'
import { TimeSlice } from '../../../time-slices.ts'
import { edgeRouteOf } from '../../attach.ts'
import { addUpstreamHeader, decorateUpstreamHeaders, headerValue } from '../../bridge/upstream-headers.ts'
import { edgeConcern } from '../../concern.ts'
import type { Consumer } from '../../consumer.ts'
import { registerApart } from './apart.ts'
import { checkConsumerNames, checkJwt, isPem } from './check.ts'
import { claimAt } from './claims.ts'
import { issuersOf, namesIncludeIssuer, qualifiedName } from './consumers.ts'
import type { KeySet } from './jwks.ts'
import { createKeySet } from './jwks.ts'
import { watchKeySets } from './jwks-metrics.ts'
import type { JwtOptions } from './options.ts'
import { Jwt } from './options.ts'
import { reasonOf, TokenInvalid } from './reasons.ts'
import { tries, warnings } from './started.ts'
import { TokenCache } from './token-cache.ts'
import { tokenCommand } from './token-command.ts'
import { bearer, identity, verifierOptions } from './verifier.ts'
import type { Claims, Verify } from './verify.ts'
import { byKey, bySet, issuedLater } from './verify.ts'

const TokenMissing = createError('JW_TOKEN_MISSING', 'A bearer token is required', 401)
const TokenExpired = createError('JW_TOKEN_EXPIRED', 'The token has expired', 401)

export default edgeConcern({
  name: 'jwt',
  options: orOff(Jwt),
  provides: ['consumer'],
  commands: [tokenCommand],
  tries,
  warnings,
  check: checkJwt,
  checkAll: checkConsumerNames,
  complete(options, absolute) {
    if (options.publicKey === undefined || isPem(options.publicKey)) return options
    return { ...options, publicKey: absolute(options.publicKey) }
  },
  async plugin(fastify, { config, stores, meter, log, clock }) {
    decorateUpstreamHeaders(fastify)

    const keySets: { url: string; set: KeySet }[] = []
    const verifiers = new Map<string, Verify>()
    let unwatch: (() => void) | null = null
    const keySetOf = ({ jwks: url, jwksMaxAge: maxAge, jwksCooldown: cooldown }: JwtOptions): KeySet | null => {
      if (url === undefined) return null
      const options = { url, maxAge, cooldown }
      const set = stores.claim(
        'jingwei.key-set',
        options,
        () => createKeySet(options, log),
        (set) => set.close()
      )
      unwatch ??= watchKeySets(meter, keySets)
      if (!keySets.some((known) => known.set === set)) keySets.push({ url, set })
      return set
    }
    fastify.addHook('onClose', async () => unwatch?.())

    const inForce = config.routes.flatMap(({ name, edge }) => (edge.jwt ? [{ name, jwt: edge.jwt }] : []))
    /** Plugins' own routes add to them until all plugins are there. */
    const names = { qualified: false }
    // The first route with a key stands for the issuer where none is configured.
    const keyHolders = new Map<string, string>()
    const add = (name: string, jwt: JwtOptions) => {
      for (const issuer of issuersOf(jwt)) if (!keyHolders.has(issuer)) keyHolders.set(issuer, name)
    }
    for (const { name, jwt } of inForce) add(name, jwt)

    const verifierOf = async (jwt: JwtOptions): Promise<Verify> => {
      const { clockSkew, rememberTokens } = jwt
      // With the key: the file that it is read from may have another one the next time.
      const cache = <T>(key: string | null) =>
        stores.claim('jingwei.token-cache', [identity(jwt), key], () => new TokenCache<T>(rememberTokens || 0))
      const set = keySetOf(jwt)
      if (set === null) {
        const { key, options } = verifierOptions(jwt, config.file, null)
        return byKey(await registerApart(fastify, options, clock), cache(key), clockSkew, clock.date)
      }
      const keys = new WeakMap<FastifyRequest, string>()
      const { options } = verifierOptions(jwt, config.file, set, (request, pem) => keys.set(request, pem))
      return bySet(await registerApart(fastify, options, clock), set, keys, cache(null), clockSkew, clock.date)
    }
    const slice = new TimeSlice()
    for (const { jwt } of inForce) {
      const id = identity(jwt)
      if (!verifiers.has(id)) verifiers.set(id, await verifierOf(jwt))
      if (slice.isOver) await slice.next()
    }

    const late: Promise<void>[] = []
    /** For a plugin's own route, which comes when no time is left to wait: it is there before the first request. */
    const verifierLater = (jwt: JwtOptions): Verify => {
      let verify: Verify | undefined
      const loaded = verifierOf(jwt).then((verifier) => {
        verify = verifier
      })
      // Reported by `onReady`.
      loaded.catch(() => {})
      late.push(loaded)
      return (request) => verify!(request)
    }
    fastify.addHook('onReady', async () => {
      await Promise.all(late)
      names.qualified = namesIncludeIssuer(inForce.map(({ jwt }) => jwt))
    })

    // Not awaited: a key set that cannot be fetched must not keep the gateway from starting.
    fastify.addHook('onReady', async () => {
      for (const { set } of keySets) if (set.isUp() === null) void set.refresh()
    })

    return (options, routeOptions) => {
      const { name } = edgeRouteOf(routeOptions.config)!
      const id = identity(options)
      let verify = verifiers.get(id)
      if (verify === undefined) {
        verify = verifierLater(options)
        verifiers.set(id, verify)
      }
      if (routeOptions.config?.route === undefined) {
        inForce.push({ name, jwt: options })
        add(name, options)
      }
      if (options.forward !== undefined) dropHeaders(routeOptions, Object.values(options.forward))
      const keyHolder = keyHolders.get(issuersOf(options)[0] ?? '') ?? name
      return { onRequest: authenticate(options, verify, namer(options, names, keyHolder), clock.date) }
    }
  }
})

/** The name of a token's consumer; null if the token names nobody. */
type NameOf = (claims: Claims) => string | null

function namer({ issuer }: JwtOptions, names: { readonly qualified: boolean }, keyHolder: string): NameOf {
  return ({ sub, iss }) => {
    if (typeof sub !== 'string' || sub === '') return null
    if (!names.qualified) return sub
    return qualifiedName(issuer === undefined ? `${keyHolder} ${iss ?? ''}` : String(iss), sub)
  }
}

function authenticate(options: JwtOptions, verify: Verify, nameOf: NameOf, date: Clock['date']) {
  const { clockSkew, maxTokenSize } = options
  const forward = Object.entries(options.forward ?? {})
  // The claims of a token that is remembered are the same object each time.
  const callers = new WeakMap<Claims, Caller>()

  function accept(request: FastifyRequest, claims: Claims): void {
    if (issuedLater(claims.iat, date() + clockSkew)) throw new TokenInvalid('jwt_not_yet_valid')
    let caller = callers.get(claims)
    if (caller === undefined) {
      caller = callerOf(claims, forward, nameOf)
      callers.set(claims, caller)
    }
    request.user = claims
    request.consumer = caller.consumer
    for (const [header, value] of caller.headers) addUpstreamHeader(request, header, value)
  }

  // A callback rather than an await: most tokens are known, and then there is nothing to wait for.
  return (request: FastifyRequest, reply: FastifyReply, done: (error?: Error) => void): void => {
    const refuse = (error: unknown) => done(refusal(error, request, reply))
    try {
      checkHeader(request, maxTokenSize)
      const verified = verify(request)
      if (verified instanceof Promise) {
        verified.then((claims) => accept(request, claims)).then(() => done(), refuse)
        return
      }
      accept(request, verified)
    } catch (error) {
      refuse(error)
      return
    }
    done()
  }
}

/** Caller and headers that a route makes of a token. */
interface Caller {
  readonly consumer: Consumer | null
  /** For the service. */
  readonly headers: readonly (readonly [name: string, value: string])[]
}

function callerOf(
  claims: Claims,
  forward: readonly (readonly [claim: string, header: string])[],
  nameOf: NameOf
): Caller {
  freeze(claims)
  const id = nameOf(claims)
  return {
    consumer: id === null ? null : Object.freeze({ id }),
    headers: forward.flatMap(([claim, header]) => {
      const value = headerValue(claimAt(claims, claim))
      return value === undefined ? [] : [[header, value] as const]
    })
  }
}

/** Exactly one Authorization header, with a bearer token (RFC 6750) of bearable size. */
function checkHeader(request: FastifyRequest, maxTokenSize: number): void {
  const { authorization } = request.headers
  if (authorization === undefined || !/^bearer /i.test(authorization)) throw new TokenMissing()
  if (bearer(request).length > maxTokenSize) throw new TokenInvalid('jwt_too_large')
  const raw = request.raw.rawHeaders
  let copies = 0
  for (let i = 0; i < raw.length; i += 2) {
    if (raw[i]?.length === 13 && raw[i]?.toLowerCase() === 'authorization') copies++
  }
  if (copies > 1) throw new TokenInvalid('jwt_repeated')
}

/** Returns the error for the client. The reason is for the log; what the verifier says may quote the token. */
function refusal(error: unknown, request: FastifyRequest, reply: FastifyReply): Error {
  const code = (error as { code?: unknown } | null)?.code
  if (code === 'JW_KEYS_UNAVAILABLE') return error as Error
  const reason = reasonOf(error)
  request.refusalReason = reason
  if (code === 'JW_TOKEN_MISSING') {
    if (request.headers.authorization !== undefined) request.refusalReason = 'jwt_scheme'
    // RFC 6750, section 3.1: no error code where there was no token.
    reply.header('www-authenticate', 'Bearer realm="jingwei"')
    return error as Error
  }
  const refused = reason === 'jwt_expired' ? new TokenExpired() : new TokenInvalid(reason)
  const challenge = `Bearer realm="jingwei", error="invalid_token", error_description="${refused.message}"`
  reply.header('www-authenticate', challenge)
  return refused
}

/** The cache hands the same claims to every request with that token: nobody may change them. */
function freeze(value: unknown): void {
  if (typeof value !== 'object' || value === null || Object.isFrozen(value)) return
  for (const inner of Object.values(value)) freeze(inner)
  Object.freeze(value)
}
