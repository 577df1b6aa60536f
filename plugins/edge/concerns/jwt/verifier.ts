/**
 * Options of @fastify/jwt for one `edge.jwt`: keys, algorithms, claims. They are computed at start, which fails if a key
 * cannot be read or an algorithm does not fit the key.
 *
 * The key decides the algorithms, never the token: an HS token is verified only with a shared secret, and a token with
 * `none` is always refused.
 */
import { createPublicKey } from 'node:crypto'
import { readFileSync } from 'node:fs'
import { dirname, resolve } from 'node:path'
import type { FastifyJWTOptions } from '@fastify/jwt'
import type { FastifyRequest } from 'fastify'
import { algorithmsOf, asymmetric, supportedKeys, symmetric } from './algorithms.ts'
import { isPem } from './check.ts'
import type { KeySet, TokenOfKey } from './jwks.ts'
import type { JwtOptions, TokenSource } from './options.ts'
import { TokenInvalid } from './reasons.ts'

type Secret = Extract<FastifyJWTOptions['secret'], { public: unknown }>['public']
type Algorithms = NonNullable<NonNullable<FastifyJWTOptions['verify']>['algorithms']>

/** Options on which the result of a verification, and its lifetime, depend. */
const verifying = [
  'secret', 'publicKey', 'jwks', 'discovery', 'issuer', 'issuers', 'audience', 'algorithms', 'jwksMaxAge', 'jwksCooldown',
  'requireExp', 'clockSkew', 'rememberTokens'
] as const // biome-ignore format: a list

const identities = new WeakMap<JwtOptions, string>()

/**
 * Returns the same text for options that share a verifier and its cached tokens. The result is memoized, since it is
 * needed several times per route.
 */
export function verifierId(options: JwtOptions): string {
  let text = identities.get(options)
  if (text === undefined) {
    text = JSON.stringify(verifying.map((name) => options[name]))
    identities.set(options, text)
  }
  return text
}

/** A token that a key set verifies for a request. */
export interface Verification {
  readonly token: string
  /** PEM of the key that verifies it, once it is known. */
  key?: string
}

/** Tokens by request, while a key set verifies them: @fastify/jwt verifies the token of a request. */
export type Verifications = WeakMap<FastifyRequest, Verification>

/** Returns the options of @fastify/jwt, and the secret or PEM that verifies all tokens; null with a key set. */
export function verifierOptions(
  source: TokenSource,
  { clockSkew, requireExp }: Pick<JwtOptions, 'clockSkew' | 'requireExp'>,
  configFile: string,
  keySet: KeySet | null,
  verifications: Verifications = new WeakMap()
): { key: string | null; options: FastifyJWTOptions } {
  const { issuer, audience } = source
  const { fitting, key } = keyOf(source, configFile, keySet)
  const unfit = source.algorithms?.filter((algorithm) => !fitting.includes(algorithm)) ?? []
  if (unfit.length > 0) throw new Error(`edge.jwt: its key cannot verify ${unfit.join(', ')}`)
  const algorithms = [...(source.algorithms ?? fitting)] as Algorithms
  const accepted: FastifyJWTOptions = {
    secret: { public: typeof key === 'string' ? key : fromSet(key, algorithms, verifications) },
    decode: { complete: true },
    verify: {
      extractToken: (request) => verifications.get(request)?.token,
      algorithms,
      // A token without `exp` could never be revoked; without `iss` or `aud`, it would pass the checks of these.
      requiredClaims: [
        ...(requireExp ? ['exp'] : []),
        ...(issuer === undefined ? [] : ['iss']),
        ...(audience === undefined ? [] : ['aud'])
      ],
      clockTolerance: clockSkew,
      // `TokenCache` is used instead.
      cache: false,
      ...(issuer !== undefined && { allowedIss: [issuer].flat() }),
      ...(audience !== undefined && { allowedAud: [audience].flat() })
    }
  }
  return { key: typeof key === 'string' ? key : null, options: accepted }
}

function keyOf(
  { secret, publicKey, jwks, discovery }: TokenSource,
  configFile: string,
  keySet: KeySet | null
): { fitting: readonly string[]; key: string | KeySet } {
  if ([secret, publicKey, jwks, discovery].filter((source) => source !== undefined).length !== 1) {
    throw new Error('edge.jwt: set exactly one of secret, publicKey, jwks and discovery')
  }
  if (secret !== undefined) {
    // A public key used as a secret would let anyone sign tokens.
    if (isPem(secret)) throw new Error('edge.jwt.secret: expected a shared secret, found a key in PEM form')
    return { fitting: symmetric, key: secret }
  }
  if (publicKey !== undefined) return readKey(publicKey, configFile)
  if (keySet === null) throw new Error('edge.jwt.jwks: no key set')
  return { fitting: asymmetric, key: keySet }
}

function readKey(publicKey: string, configFile: string): { fitting: readonly string[]; key: string } {
  const pem = isPem(publicKey) ? publicKey : readFileSync(resolve(dirname(configFile), publicKey), 'utf8')
  if (/-----BEGIN [A-Z ]*PRIVATE KEY-----/.test(pem))
    throw new Error('edge.jwt.publicKey: expected a public key, found a private key')
  const key = createPublicKey(pem)
  const fitting = algorithmsOf(key)
  if (fitting.length === 0) throw new Error(`edge.jwt.publicKey: this key cannot verify tokens; use ${supportedKeys}`)
  return { fitting, key: key.export({ type: 'spki', format: 'pem' }).toString() }
}

/** Returns the function that finds the key for each token that is not cached. */
function fromSet(keySet: KeySet, algorithms: readonly string[], verifications: Verifications): Secret {
  return (async (request: FastifyRequest, token: TokenOfKey) => {
    // Checked first, so that such a token causes no fetch of the key set.
    if (!algorithms.includes(String(token.header.alg))) throw new TokenInvalid('jwt_algorithm')
    const pem = await keySet.key(token)
    verifications.get(request)!.key = pem
    return pem
  }) as unknown as Secret
}
