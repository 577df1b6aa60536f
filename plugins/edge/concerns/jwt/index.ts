/**
 * Authentication by JSON Web Token, with @fastify/jwt: one verifier per distinct configuration, one hook on each route
 * that enables it. Sets `request.user` (the claims) and `request.consumer`.
 *
 * Unlike with @fastify/jwt alone, every unusable token gets 401, never 400 or 500, and a request with two Authorization
 * headers is refused: Node shows only the first one, and the service would see both.
 */
import { orOff } from '../../../../config/schema/kit.ts'
import { dropHeaders } from '../../../for-plugins.ts'
import { TimeSlice } from '../../../time-slices.ts'
import { edgeRouteOf } from '../../attach.ts'
import { authenticateBy } from '../../authentication/methods.ts'
import { tokenKeeper } from '../../authentication/verified-token.ts'
import { decorateUpstreamHeaders } from '../../bridge/upstream-headers.ts'
import { edgeConcern } from '../../concern.ts'
import { issuersOf, namingOf } from '../../consumers/issuers.ts'
import { Callers, claimHeaders, subjectsOf } from './callers.ts'
import { checkJwt, checkRoutes, isPem } from './check.ts'
import { credentials } from './consumers.ts'
import { explainToken } from './explained.ts'
import { registerIsolated } from './isolated-plugin.ts'
import type { KeySet } from './jwks.ts'
import { createKeySet } from './jwks.ts'
import { watchKeySets } from './jwks-metrics.ts'
import { tokenMethod } from './method.ts'
import { mint, withTestKey } from './mint.ts'
import type { JwtOptions, TokenSource } from './options.ts'
import { Jwt } from './options.ts'
import { requiredScheme } from './places.ts'
import { metadataUrl, sourcesOf, withSources } from './sources.ts'
import { tries, warnings } from './start-messages.ts'
import { TokenCache } from './token-cache.ts'
import { tokenCommand } from './token-command.ts'
import type { Verifications } from './verifier.ts'
import { verifierId, verifierOptions } from './verifier.ts'
import type { IssuerVerifier, TokenVerifier, Verified } from './verify.ts'
import { verifierOf } from './verify.ts'

export default edgeConcern({
  name: 'jwt',
  options: orOff(Jwt),
  apiFacts: ({ optional, scopes }) => ({
    security: { bearer: { type: 'http', scheme: 'bearer', bearerFormat: 'JWT' } },
    ...(optional && { combine: { isOptional: true } }),
    responses: { 401: 'The token is missing, expired or wrong.', 403: 'The token does not suffice.' },
    ...(scopes && { extensions: { 'x-scopes': scopes } })
  }),
  aliases: {
    'jwtAuth|oauth2ResourceServer|authValidator': 'write edge.jwt',
    jwtSecrets: 'write jwt: { sub: … }; the key that verifies tokens belongs to edge.jwt'
  },
  innerAliases: {
    'jwkUrl|jwksUri|jwksUrl|jwkSetUri|remoteJwks': 'write jwks',
    'issuerUri|iss': 'write issuer',
    'audiences|aud': 'write audience',
    'algorithm|alg': 'write algorithms',
    rsaPublicKey: 'write publicKey',
    claimsToVerify: 'remove it: exp and nbf are always verified',
    'keyClaimName|key': 'the consumer is found by a claim: write consumer: CLAIM, and consumers[].jwt',
    'uriParamNames|queryParam|query': 'write from: { query: NAME }',
    'cookieNames|cookieName|cookieKey|cookie': 'write from: { cookie: NAME }',
    'headerNames|headerName|header': 'write from: { header: NAME }',
    'claimsToHeaders|claimToHeaders|propagateClaims': 'write forward: { CLAIM: HEADER }',
    'roles|rolesKey': 'write acl: { roles: […], rolesClaim: … } beside it',
    anonymous: 'write optional: true, or authentication: { anonymous: NAME } beside it'
  },
  provides: ['consumer', 'claims'],
  hasNoGroups: true,
  authenticates: { counts: 'forgeries', scheme: (options) => requiredScheme(options as JwtOptions) },
  credentials,
  commands: [tokenCommand],
  tries,
  warnings,
  check: checkJwt,
  checkAll: checkRoutes,
  complete(options, absolute) {
    const isFile = (publicKey: string | undefined) => publicKey !== undefined && !isPem(publicKey)
    if (!sourcesOf(options).some(({ publicKey }) => isFile(publicKey))) return options
    return withSources(options, (source) =>
      isFile(source.publicKey) ? { ...source, publicKey: absolute(source.publicKey!) } : source
    )
  },
  explain: explainToken,
  isolate: withTestKey,
  token: mint,
  async plugin(fastify, context) {
    const { config, stores, meter, log, clock, consumers } = context
    decorateUpstreamHeaders(fastify)

    const keySets: { url: string; set: KeySet }[] = []
    const verifiers = new Map<string, TokenVerifier>()
    let unwatch: (() => void) | null = null
    const keySetOf = (source: TokenSource, { jwksMaxAge: maxAge, jwksCooldown: cooldown }: JwtOptions) => {
      const metadata = metadataUrl(source)
      const url = metadata ?? source.jwks
      if (url === undefined) return null
      const options = { url, maxAge, cooldown, ...(metadata !== null && { issuer: String(source.issuer) }) }
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
    /** Made again when all plugins are loaded: their own routes may add issuers. */
    let naming = namingOf('jwt', [])
    // Without a configured issuer, the first route with the key identifies the issuer.
    const keyHolders = new Map<string, string>()
    const add = (name: string, jwt: JwtOptions) => {
      for (const issuer of issuersOf('jwt', { jwt })) if (!keyHolders.has(issuer)) keyHolders.set(issuer, name)
    }
    for (const { name, jwt } of inForce) add(name, jwt)

    const verifierFor = async (jwt: JwtOptions): Promise<TokenVerifier> => {
      const { clockSkew, rememberTokens, issuers } = jwt
      const keys: (string | null)[] = []
      const all: IssuerVerifier[] = []
      for (const source of sourcesOf(jwt)) {
        const keySet = keySetOf(source, jwt)
        const verifications: Verifications = new WeakMap()
        const { key, options } = verifierOptions(source, jwt, config.file, keySet, verifications)
        keys.push(key)
        all.push({ verifier: await registerIsolated(fastify, options, clock), keySet, verifications })
      }
      // The cache depends on the keys, too: a file may have another key after a reload.
      const known = stores.claim(
        'jingwei.token-cache',
        [verifierId(jwt), ...keys],
        () => new TokenCache<Verified>(rememberTokens || 0)
      )
      const byIssuer = issuers === undefined ? null : new Map(issuers.map(({ issuer }, index) => [issuer, index]))
      return verifierOf(all, byIssuer, known, clockSkew, clock.date)
    }
    const slice = new TimeSlice()
    for (const { jwt } of inForce) {
      const id = verifierId(jwt)
      if (!verifiers.has(id)) verifiers.set(id, await verifierFor(jwt))
      if (slice.isOver) await slice.next()
    }

    const late: Promise<void>[] = []
    /** Returns a verifier for a plugin's own route, whose `onRoute` hook cannot wait. It is ready before the first request. */
    const verifierLater = (jwt: JwtOptions): TokenVerifier => {
      let verifier: TokenVerifier | undefined
      const loaded = verifierFor(jwt).then((made) => {
        verifier = made
      })
      // `onReady` awaits and reports it.
      loaded.catch(() => {})
      late.push(loaded)
      return {
        verify: (token, request) => verifier!.verify(token, request),
        isKnown: (token) => verifier!.isKnown(token)
      }
    }
    fastify.addHook('onReady', async () => {
      await Promise.all(late)
      naming = namingOf('jwt', [...config.routes.map(({ edge }) => edge), ...inForce])
    })

    // Not awaited: the gateway must start even if the key set cannot be fetched.
    fastify.addHook('onReady', async () => {
      for (const { set } of keySets) if (set.isUp() === null) void set.refresh()
    })

    return (options, routeOptions, shadow, refused) => {
      const { name } = edgeRouteOf(routeOptions.config)!
      const id = verifierId(options)
      let verifier = verifiers.get(id)
      if (verifier === undefined) {
        verifier = verifierLater(options)
        verifiers.set(id, verifier)
      }
      if (routeOptions.config?.route === undefined) {
        inForce.push({ name, jwt: options })
        add(name, options)
      }
      dropHeaders(routeOptions, claimHeaders(options))
      const keyHolder = keyHolders.get(issuersOf('jwt', { jwt: options })[0] ?? '') ?? name
      const callers = new Callers(options, subjectsOf(options, keyHolder), () => naming, consumers)
      const method = tokenMethod(options, verifier, callers, clock.date, tokenKeeper(routeOptions))
      return { onRequest: authenticateBy(method, routeOptions, context, shadow, refused) }
    }
  }
})
