/** Mints tokens, for the command `token` and for tests of a gateway. */
import type { KeyObject } from 'node:crypto'
import { constants, createHmac, generateKeyPairSync, sign } from 'node:crypto'
import type { TokenRequest } from '../../../../config/concern.ts'
import type { JwtOptions, TokenSource } from './options.ts'
import { sourcesOf, withSources } from './sources.ts'

/** Algorithm for public keys if the options list none. */
const defaultAlgorithm = 'ES256'

const curves: Readonly<Record<string, string>> = { ES256: 'P-256', ES384: 'P-384', ES512: 'P-521' }

/** Key pairs for tests, by kind of key; made when a test first needs them. */
const pairs = new Map<string, { readonly publicKey: KeyObject; readonly privateKey: KeyObject }>()

/** Returns the options with the public keys of a test, which replace key sets and public keys. Shared secrets are kept. */
export const withTestKey = (options: JwtOptions): JwtOptions =>
  withSources(options, (source) => {
    if (source.secret !== undefined) return source
    const { publicKey } = pairFor(algorithmOf(source))
    const pem = publicKey.export({ type: 'spki', format: 'pem' }).toString()
    return { ...source, jwks: undefined, discovery: undefined, publicKey: pem }
  })

/**
 * Returns a token that the options accept, signed with a secret of theirs, or else with the private key that belongs to
 * `withTestKey`. With several issuers, the claim `iss` selects one. It has the first issuer, the first audience, and the scopes and claims that the options require, but no client certificate.
 */
export function mint(options: JwtOptions, { claims, issuedAt, expiresIn }: TokenRequest): string {
  const sources = sourcesOf(options)
  const source =
    sources.find(({ issuer }) => issuer === claims.iss && issuer !== undefined) ??
    sources.find(({ secret }) => secret !== undefined) ??
    sources[0]!
  const { issuer, audience, secret } = source
  const iat = Math.floor(issuedAt / 1000)
  const first = (value: string | readonly string[]) => [value].flat()[0]
  const payload = {
    iat,
    exp: iat + expiresIn,
    ...(issuer !== undefined && { iss: first(issuer) }),
    ...(audience !== undefined && { aud: first(audience) }),
    ...(options.acrValues !== undefined && { acr: options.acrValues[0] }),
    ...(options.maxAuthAge !== undefined && { auth_time: iat }),
    ...(options.scopes !== undefined && { scope: options.scopes.join(' ') }),
    ...Object.fromEntries(Object.entries(options.claims ?? {}).map(([name, values]) => [name, [values].flat()[0]])),
    ...claims
  }
  const algorithm = algorithmOf(source)
  const text = [{ alg: algorithm, typ: 'JWT' }, payload]
    .map((part) => Buffer.from(JSON.stringify(part)).toString('base64url'))
    .join('.')
  return `${text}.${signature(secret, algorithm, text).toString('base64url')}`
}

function algorithmOf({ algorithms, secret }: TokenSource): string {
  return algorithms?.[0] ?? (secret === undefined ? defaultAlgorithm : 'HS256')
}

function signature(secret: string | undefined, algorithm: string, text: string): Buffer {
  const digest = `sha${algorithm.slice(2)}`
  if (secret !== undefined) return createHmac(digest, secret).update(text).digest()
  const key = pairFor(algorithm).privateKey
  if (algorithm === 'EdDSA') return sign(null, Buffer.from(text), key)
  if (algorithm.startsWith('ES')) return sign(digest, Buffer.from(text), { key, dsaEncoding: 'ieee-p1363' })
  const { RSA_PKCS1_PADDING, RSA_PKCS1_PSS_PADDING, RSA_PSS_SALTLEN_DIGEST } = constants
  const isPss = algorithm.startsWith('PS')
  const padding = isPss ? RSA_PKCS1_PSS_PADDING : RSA_PKCS1_PADDING
  return sign(digest, Buffer.from(text), { key, padding, ...(isPss && { saltLength: RSA_PSS_SALTLEN_DIGEST }) })
}

function pairFor(algorithm: string) {
  const kind = /^[RP]S/.test(algorithm) ? 'RSA' : algorithm
  let pair = pairs.get(kind)
  if (pair === undefined) {
    pair =
      kind === 'RSA'
        ? generateKeyPairSync('rsa', { modulusLength: 2048 })
        : kind === 'EdDSA'
          ? generateKeyPairSync('ed25519')
          : generateKeyPairSync('ec', { namedCurve: curves[kind] ?? 'P-256' })
    pairs.set(kind, pair)
  }
  return pair
}
