/**
 * Options of @fastify/jwt for one `edge.jwt`: keys, algorithms, claims. Computed when the gateway starts, which fails on
 * a key that cannot be read and on algorithms that do not fit it.
 *
 * The algorithms always come from the key, never from the token: an HS token is only ever checked against a
 * shared secret, and `none` against nothing.
 */
import { createPublicKey } from 'node:crypto'
import { readFileSync } from 'node:fs'
import { dirname, resolve } from 'node:path'
import type { FastifyJWTOptions } from '@fastify/jwt'
import type { FastifyRequest } from 'fastify'
import { algorithmsOf, asymmetric, supportedKeys, symmetric } from './algorithms.ts'
import { isPem } from './check.ts'
import type { KeySet, TokenOfKey } from './jwks.ts'
import type { JwtOptions } from './options.ts'
import { TokenInvalid } from './reasons.ts'

type Secret = Extract<FastifyJWTOptions['secret'], { public: unknown }>['public']
type Algorithms = NonNullable<NonNullable<FastifyJWTOptions['verify']>['algorithms']>

const identities = new WeakMap<JwtOptions, string>()

/**
 * Returns the same text for configurations that share a verifier, and with it the tokens that it remembers. Asked for
 * several times for each route, and so kept.
 */
export function identity(options: JwtOptions): string {
  let text = identities.get(options)
  if (text === undefined) {
    const { forward: _forward, maxTokenSize: _size, ...verifying } = options
    text = JSON.stringify(Object.entries(verifying).sort(([a], [b]) => (a < b ? -1 : 1)))
    identities.set(options, text)
  }
  return text
}

/** The token behind `Bearer` and any number of blanks (RFC 6750, 2.1). */
export function bearer({ headers: { authorization = '' } }: FastifyRequest): string {
  let at = 'Bearer '.length
  while (authorization.charCodeAt(at) === 32) at++
  return authorization.slice(at)
}

/** Listener for the key of a set, as PEM, that verifies the token of a request. */
type OnKey = (request: FastifyRequest, pem: string) => void

/** Returns the options of @fastify/jwt, and the secret or PEM that verifies all tokens; null where a key set does. */
export function verifierOptions(
  options: JwtOptions,
  configFile: string,
  keySet: KeySet | null,
  onKey: OnKey = () => {}
): { key: string | null; options: FastifyJWTOptions } {
  const { issuer, audience, clockSkew } = options
  const { fitting, key } = keyOf(options, configFile, keySet)
  const unfit = options.algorithms?.filter((algorithm) => !fitting.includes(algorithm)) ?? []
  if (unfit.length > 0) throw new Error(`edge.jwt: its key cannot verify ${unfit.join(', ')}`)
  const algorithms = [...(options.algorithms ?? fitting)] as Algorithms
  const accepted: FastifyJWTOptions = {
    secret: { public: typeof key === 'string' ? key : fromSet(key, algorithms, onKey) },
    decode: { complete: true },
    verify: {
      extractToken: bearer,
      algorithms,
      // A token without end could never be withdrawn; one without issuer or audience would pass their checks.
      requiredClaims: ['exp', ...(issuer === undefined ? [] : ['iss']), ...(audience === undefined ? [] : ['aud'])],
      clockTolerance: clockSkew,
      // `TokenCache` stands before it.
      cache: false,
      ...(issuer !== undefined && { allowedIss: [issuer].flat() }),
      ...(audience !== undefined && { allowedAud: [audience].flat() })
    }
  }
  return { key: typeof key === 'string' ? key : null, options: accepted }
}

function keyOf(
  { secret, publicKey, jwks }: JwtOptions,
  configFile: string,
  keySet: KeySet | null
): { fitting: readonly string[]; key: string | KeySet } {
  if ([secret, publicKey, jwks].filter((source) => source !== undefined).length !== 1) {
    throw new Error('edge.jwt: set exactly one of secret, publicKey and jwks')
  }
  if (secret !== undefined) {
    // Anyone may know a public key: as a shared secret it would let anyone sign.
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

/** Returns the function that finds the key of each token that is not remembered. */
function fromSet(keySet: KeySet, algorithms: readonly string[], onKey: OnKey): Secret {
  return (async (request: FastifyRequest, token: TokenOfKey) => {
    // Before the set is asked, so that such a token brings no fetch.
    if (!algorithms.includes(String(token.header.alg))) throw new TokenInvalid('jwt_algorithm')
    const pem = await keySet.key(token)
    onKey(request, pem)
    return pem
  }) as unknown as Secret
}
