/** Tokens for the routes of a gateway under test, and the keys that verify them. */
import type { KeyObject } from 'node:crypto'
import { constants, createHmac, generateKeyPairSync, sign } from 'node:crypto'
import type { Config, EdgePolicy } from '../../config/schema.ts'
import type { TestClock } from './clock.ts'

/** Options of `edge.jwt` that concern tokens. Their type is not that of the concern, which a gateway may be built without. */
export interface TokenRules {
  readonly secret?: string
  readonly jwks?: string
  readonly publicKey?: string
  readonly algorithms?: readonly string[]
  readonly issuer?: string | readonly string[]
  readonly audience?: string | readonly string[]
}

export const tokenRulesOf = (edge: EdgePolicy): TokenRules | null =>
  (edge as { readonly jwt?: TokenRules | false }).jwt || null

/** Algorithm of a key of which the configuration does not say more. */
const usual = 'ES256'

const curves: Readonly<Record<string, string>> = { ES256: 'P-256', ES384: 'P-384', ES512: 'P-521' }

/** Key pairs of a test: the gateway verifies by these what it would by a key set or a public key of the configuration. */
export class TestKeys {
  readonly #pairs = new Map<string, { publicKey: KeyObject; privateKey: KeyObject }>()

  /** Returns the options with a public key of the test. A shared secret stays. */
  replace(options: TokenRules): TokenRules {
    if (options.secret !== undefined) return options
    const { jwks: _url, publicKey: _file, ...rest } = options
    const { publicKey } = this.#pair(algorithmOf(options))
    return { ...rest, publicKey: publicKey.export({ type: 'spki', format: 'pem' }).toString() }
  }

  sign(options: TokenRules, text: string): Buffer {
    const algorithm = algorithmOf(options)
    const hash = `sha${algorithm.slice(2)}`
    if (options.secret !== undefined) return createHmac(hash, options.secret).update(text).digest()
    const key = this.#pair(algorithm).privateKey
    if (algorithm === 'EdDSA') return sign(null, Buffer.from(text), key)
    if (algorithm.startsWith('ES')) return sign(hash, Buffer.from(text), { key, dsaEncoding: 'ieee-p1363' })
    const { RSA_PKCS1_PADDING, RSA_PKCS1_PSS_PADDING, RSA_PSS_SALTLEN_DIGEST } = constants
    const isPss = algorithm.startsWith('PS')
    const padding = isPss ? RSA_PKCS1_PSS_PADDING : RSA_PKCS1_PADDING
    return sign(hash, Buffer.from(text), { key, padding, ...(isPss && { saltLength: RSA_PSS_SALTLEN_DIGEST }) })
  }

  #pair(algorithm: string) {
    const kind = /^[RP]S/.test(algorithm) ? 'RSA' : algorithm
    let pair = this.#pairs.get(kind)
    if (pair === undefined) {
      pair =
        kind === 'RSA'
          ? generateKeyPairSync('rsa', { modulusLength: 2048 })
          : kind === 'EdDSA'
            ? generateKeyPairSync('ed25519')
            : generateKeyPairSync('ec', { namedCurve: curves[kind] ?? 'P-256' })
      this.#pairs.set(kind, pair)
    }
    return pair
  }
}

function algorithmOf({ algorithms, secret }: TokenRules): string {
  return algorithms?.[0] ?? (secret === undefined ? usual : 'HS256')
}

export interface TokenOptions {
  /** Name of the route whose `jwt` the token is for. Default: the first route with one. */
  readonly route?: string
  /** Seconds until it expires, on the gateway's clock. Default: 3600. */
  readonly expiresIn?: number
}

/** Returns a token that a route accepts. `claims` go before `iss`, `aud`, `sub`, `iat` and `exp`, which are set else. */
export function mint(
  config: Config,
  keys: TestKeys,
  clock: TestClock,
  claims: Readonly<Record<string, unknown>>,
  { route: name, expiresIn = 3600 }: TokenOptions
): string {
  const candidates = config.routes.filter(({ edge }) => tokenRulesOf(edge) !== null)
  const route = name === undefined ? candidates[0] : candidates.find((each) => each.name === name)
  const jwt = route && tokenRulesOf(route.edge)
  if (!jwt) {
    const names = candidates.map((each) => each.name).join(', ') || 'none'
    throw new TypeError(
      `${name === undefined ? 'no route has edge.jwt' : `route ${name} has no edge.jwt`}; those that have: ${names}`
    )
  }
  const { issuer, audience } = jwt
  const iat = Math.floor(clock.date() / 1000)
  const first = (value: string | readonly string[]) => [value].flat()[0]
  const payload = {
    sub: 'test',
    iat,
    exp: iat + expiresIn,
    ...(issuer !== undefined && { iss: first(issuer) }),
    ...(audience !== undefined && { aud: first(audience) }),
    ...claims
  }
  const encoded = [{ alg: algorithmOf(jwt), typ: 'JWT' }, payload].map((part) =>
    Buffer.from(JSON.stringify(part)).toString('base64url')
  )
  const text = encoded.join('.')
  return `${text}.${keys.sign(jwt, text).toString('base64url')}`
}
