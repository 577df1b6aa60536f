/**
 * Authentication by JSON Web Token, with @fastify/jwt: one verifier per distinct configuration, one hook on each route
 * that enables it. Sets `request.user` (the claims) and `request.consumer`.
 *
 * Unlike with @fastify/jwt alone, every unusable token gets 401, never 400 or 500, and a request with two Authorization
 * headers is refused: Node shows only the first one, and the service would see both.
 */
import { createError } from '@fastify/error'
import type { FastifyRequest } from 'fastify'
import { orOff } from '../../../../config/schema/kit.ts'
import type { Clock } from '../../../clock.ts'
import { dropHeaders } from '../../../for-plugins.ts'
import { TimeSlice } from '../../../time-slices.ts'
import { edgeRouteOf } from '../../attach.ts'
import { removeHeader } from '../../authentication/credentials.ts'
import type { Method, Refusal } from '../../authentication/methods.ts'
import { authenticateBy } from '../../authentication/methods.ts'
import { addUpstreamHeader, decorateUpstreamHeaders, headerValue } from '../../bridge/upstream-headers.ts'
import { claimAt } from '../../claims.ts'
import { edgeConcern } from '../../concern.ts'
import type { Consumer } from '../../consumers/consumer.ts'
import type { ConsumerRegistry } from '../../consumers/registry.ts'
import { checkConsumerNames, checkJwt, isPem } from './check.ts'
import type { TokenSubject } from './consumers.ts'
import { consumerFor, credentials, issuersOf, namesIncludeIssuer, qualifiedName } from './consumers.ts'
import { registerIsolated } from './isolated-plugin.ts'
import type { KeySet } from './jwks.ts'
import { createKeySet } from './jwks.ts'
import { watchKeySets } from './jwks-metrics.ts'
import { mint, withTestKey } from './mint.ts'
import type { JwtOptions } from './options.ts'
import { Jwt } from './options.ts'
import { reasonOf, TokenInvalid } from './reasons.ts'
import { tries, warnings } from './start-messages.ts'
import { TokenCache } from './token-cache.ts'
import { tokenCommand } from './token-command.ts'
import { bearerToken, verifierId, verifierOptions } from './verifier.ts'
import type { Claims, Verify } from './verify.ts'
import { isIssuedInFuture, verifyByKey, verifyByKeySet } from './verify.ts'

const TokenMissing = createError('JW_TOKEN_MISSING', 'A bearer token is required', 401)
const TokenExpired = createError('JW_TOKEN_EXPIRED', 'The token has expired', 401)

export default edgeConcern({
  name: 'jwt',
  options: orOff(Jwt),
  provides: ['consumer'],
  credentials,
  commands: [tokenCommand],
  tries,
  warnings,
  check: checkJwt,
  checkAll: checkConsumerNames,
  complete(options, absolute) {
    if (options.publicKey === undefined || isPem(options.publicKey)) return options
    return { ...options, publicKey: absolute(options.publicKey) }
  },
  isolate: withTestKey,
  token: mint,
  async plugin(fastify, context) {
    const { config, stores, meter, log, clock, consumers } = context
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
    /** Set when all plugins are loaded: their own routes may add issuers. */
    const names = { qualified: false }
    // Without a configured issuer, the first route with the key identifies the issuer.
    const keyHolders = new Map<string, string>()
    const add = (name: string, jwt: JwtOptions) => {
      for (const issuer of issuersOf(jwt)) if (!keyHolders.has(issuer)) keyHolders.set(issuer, name)
    }
    for (const { name, jwt } of inForce) add(name, jwt)

    const verifierOf = async (jwt: JwtOptions): Promise<Verify> => {
      const { clockSkew, rememberTokens } = jwt
      // The cache depends on the key, too: its file may have another key after a reload.
      const cache = <T>(key: string | null) =>
        stores.claim('jingwei.token-cache', [verifierId(jwt), key], () => new TokenCache<T>(rememberTokens || 0))
      const set = keySetOf(jwt)
      if (set === null) {
        const { key, options } = verifierOptions(jwt, config.file, null)
        return verifyByKey(await registerIsolated(fastify, options, clock), cache(key), clockSkew, clock.date)
      }
      const keys = new WeakMap<FastifyRequest, string>()
      const { options } = verifierOptions(jwt, config.file, set, (request, pem) => keys.set(request, pem))
      return verifyByKeySet(
        await registerIsolated(fastify, options, clock),
        set,
        keys,
        cache(null),
        clockSkew,
        clock.date
      )
    }
    const slice = new TimeSlice()
    for (const { jwt } of inForce) {
      const id = verifierId(jwt)
      if (!verifiers.has(id)) verifiers.set(id, await verifierOf(jwt))
      if (slice.isOver) await slice.next()
    }

    const late: Promise<void>[] = []
    /** Returns a verifier for a plugin's own route, whose `onRoute` hook cannot wait. It is ready before the first request. */
    const verifierLater = (jwt: JwtOptions): Verify => {
      let verify: Verify | undefined
      const loaded = verifierOf(jwt).then((verifier) => {
        verify = verifier
      })
      // `onReady` awaits and reports it.
      loaded.catch(() => {})
      late.push(loaded)
      return (request) => verify!(request)
    }
    fastify.addHook('onReady', async () => {
      await Promise.all(late)
      names.qualified = namesIncludeIssuer(inForce.map(({ jwt }) => jwt))
    })

    // Not awaited: the gateway must start even if the key set cannot be fetched.
    fastify.addHook('onReady', async () => {
      for (const { set } of keySets) if (set.isUp() === null) void set.refresh()
    })

    return (options, routeOptions, shadow) => {
      const { name } = edgeRouteOf(routeOptions.config)!
      const id = verifierId(options)
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
      const subjectOf = namer(options, names, keyHolder)
      const method = tokenMethod(options, verify, subjectOf, consumers, clock.date)
      return { onRequest: authenticateBy(method, routeOptions, context, shadow) }
    }
  }
})

/** Returns the subject of a token; null if the token has no `sub`. */
type SubjectOf = (claims: Claims) => TokenSubject | null

function namer({ issuer }: JwtOptions, names: { readonly qualified: boolean }, keyHolder: string): SubjectOf {
  const hasIssuer = issuer !== undefined
  return ({ sub, iss }) => {
    if (typeof sub !== 'string' || sub === '') return null
    const qualified = qualifiedName(hasIssuer ? String(iss) : `${keyHolder} ${iss ?? ''}`, sub)
    return { name: names.qualified ? qualified : sub, qualified, hasIssuer }
  }
}

function tokenMethod(
  options: JwtOptions,
  verify: Verify,
  subjectOf: SubjectOf,
  consumers: ConsumerRegistry,
  date: Clock['date']
): Method<string> {
  const { clockSkew, maxTokenSize } = options
  const forward = Object.entries(options.forward ?? {})
  // A cached token has the same claims object each time.
  const callers = new WeakMap<Claims, Caller>()

  function accept(request: FastifyRequest, claims: Claims): void {
    if (isIssuedInFuture(claims.iat, date() + clockSkew)) throw new TokenInvalid('jwt_not_yet_valid')
    let caller = callers.get(claims)
    // The declared consumers may change at any time.
    if (caller === undefined || caller.version !== consumers.version) {
      caller = callerOf(claims, forward, subjectOf, consumers)
      callers.set(claims, caller)
    }
    request.user = claims
    // A token without `sub` does not take the consumer of another method away.
    if (caller.consumer !== null) request.consumer = caller.consumer
    for (const [header, value] of caller.headers) addUpstreamHeader(request, header, value)
  }

  return {
    challenge: 'Bearer realm="jingwei"',
    carrier: 'authorization',
    limitsFailures: false,
    find(request) {
      const { authorization } = request.headers
      if (authorization === undefined) return null
      // Node shows the first field only; the token may be in another one.
      return /^bearer /i.test(authorization) || isRepeated(request) ? authorization : null
    },
    verify(_authorization, request) {
      if (isRepeated(request)) throw new TokenInvalid('jwt_repeated')
      if (bearerToken(request).length > maxTokenSize) throw new TokenInvalid('jwt_too_large')
      const verified = verify(request)
      // No await: most tokens are cached, and need no asynchronous step.
      if (verified instanceof Promise) return verified.then((claims) => accept(request, claims))
      accept(request, verified)
    },
    refusal,
    remove(request, isVerified) {
      if (!isVerified) removeHeader(request, 'authorization')
    }
  }
}

/** Consumer and headers for the service, made from a token for one route. */
interface Caller {
  /** Version of the declared consumers. */
  readonly version: number
  readonly consumer: Consumer | null
  /** Headers for the service. */
  readonly headers: readonly (readonly [name: string, value: string])[]
}

function callerOf(
  claims: Claims,
  forward: readonly (readonly [claim: string, header: string])[],
  subjectOf: SubjectOf,
  consumers: ConsumerRegistry
): Caller {
  freeze(claims)
  const subject = subjectOf(claims)
  return {
    version: consumers.version,
    consumer: subject && consumerFor(subject, consumers),
    headers: forward.flatMap(([claim, header]) => {
      const value = headerValue(claimAt(claims, claim))
      return value === undefined ? [] : [[header, value] as const]
    })
  }
}

/** Returns whether a request has more than one `Authorization`. */
function isRepeated({ raw: { rawHeaders } }: FastifyRequest): boolean {
  let copies = 0
  for (let i = 0; i < rawHeaders.length; i += 2) {
    if (rawHeaders[i]!.length === 13 && rawHeaders[i]!.toLowerCase() === 'authorization') copies++
  }
  return copies > 1
}

/** Returns the refusal of a token. The reason goes to the log; the message of the verifier may quote the token. */
function refusal(error: unknown, request: FastifyRequest): Refusal {
  if (error === null) {
    const reason = request.headers.authorization === undefined ? 'jwt_missing' : 'jwt_scheme'
    // RFC 6750, 3.1: no error code in the challenge if the request had no token.
    return { error: new TokenMissing(), reason }
  }
  const reason = reasonOf(error)
  if ((error as { code?: unknown }).code === 'JW_KEYS_UNAVAILABLE') return { error: error as Error, reason: null }
  const refused = reason === 'jwt_expired' ? new TokenExpired() : new TokenInvalid(reason)
  const challenge = `Bearer realm="jingwei", error="invalid_token", error_description="${refused.message}"`
  return { error: refused, reason, challenge }
}

/** Freezes claims deeply: every request with the token shares them, so no code may change them. */
function freeze(value: unknown): void {
  if (typeof value !== 'object' || value === null || Object.isFrozen(value)) return
  for (const inner of Object.values(value)) freeze(inner)
  Object.freeze(value)
}
