/** Results that one route makes of the claims of a verified token: consumer, headers for the service, and rules. */
import { headerValue } from '../../bridge/upstream-headers.ts'
import { claimAt, hasClaim, scopesOf } from '../../claims.ts'
import type { Consumer } from '../../consumers/consumer.ts'
import type { Naming, Subject } from '../../consumers/issuers.ts'
import { consumerFor, qualifiedName } from '../../consumers/issuers.ts'
import type { ConsumerRegistry } from '../../consumers/registry.ts'
import type { JwtOptions } from './options.ts'
import { StepUpRequired, TokenInsufficient, TokenInvalid } from './reasons.ts'
import type { Claims } from './verify.ts'

/** Consumer and headers for the service, made from a token for one route. */
export interface Caller {
  /** Version of the declared consumers. */
  readonly version: number
  readonly consumer: Consumer | null
  /** Headers for the service. */
  readonly headers: readonly (readonly [name: string, value: string])[]
  /** Fingerprint of the client certificate to which the token is bound; null if anybody may use it. */
  readonly boundTo: string | null
  /** Milliseconds since 1970 after which the user must log in again. */
  readonly authUntil: number
}

/** Returns the subject of a token; null if the token has none. */
export type SubjectOf = (claims: Claims) => Subject | null

/** Returns the function that finds the subjects of tokens. `keyHolder`: the issuer's name if none is configured. */
export function subjectsOf({ issuer, issuers, consumer }: JwtOptions, keyHolder: string): SubjectOf {
  const isVerified = issuer !== undefined || issuers !== undefined
  return (claims) => {
    const sub = claimAt(claims, consumer)
    if (typeof sub !== 'string' || sub === '') return null
    const { iss } = claims
    return { sub, qualified: qualifiedName(isVerified ? String(iss) : `${keyHolder} ${iss ?? ''}`, sub), isVerified }
  }
}

type Lack = 'jwt_scope' | 'jwt_required_claim' | 'jwt_binding' | 'jwt_acr'

/** Returns why claims do not suffice for a route, for the access log; null if they do. */
export function lackOf(claims: unknown, options: JwtOptions): Lack | null {
  const { scopes, claims: required = {}, acrValues, boundTokens } = options
  if (scopes !== undefined) {
    const held = scopesOf(claims)
    if (!scopes.every((scope) => held.has(scope))) return 'jwt_scope'
  }
  const hasAll = Object.entries(required).every(([path, wanted]) => hasClaim(claims, path, wanted))
  if (!hasAll) return 'jwt_required_claim'
  if (boundTokens === 'require' && boundTo(claims, options) === null) return 'jwt_binding'
  return acrValues === undefined || hasClaim(claims, 'acr', acrValues) ? null : 'jwt_acr'
}

/** Returns the fingerprint of the certificate to which a token is bound (RFC 8705, 3.1). A malformed one fits no certificate. */
function boundTo(claims: unknown, { boundTokens }: JwtOptions): string | null {
  if (boundTokens === 'ignore') return null
  const thumbprint = Object(Object(claims).cnf)['x5t#S256'] as unknown
  if (thumbprint === undefined) return null
  const hex = typeof thumbprint === 'string' ? Buffer.from(thumbprint, 'base64url').toString('hex') : ''
  return hex.toUpperCase().match(/../g)?.join(':') ?? ''
}

/** Returns the time until which the login of the user is young enough. */
export function authUntil(claims: unknown, { maxAuthAge, clockSkew }: JwtOptions): number {
  if (maxAuthAge === undefined) return Number.POSITIVE_INFINITY
  const time = Object(claims).auth_time as unknown
  return typeof time === 'number' ? time * 1000 + maxAuthAge + clockSkew : Number.NEGATIVE_INFINITY
}

const refusalFor = (lack: Lack): Error =>
  lack === 'jwt_acr'
    ? new StepUpRequired(lack)
    : lack === 'jwt_binding'
      ? new TokenInvalid(lack)
      : new TokenInsufficient(lack)

/** The callers of a route by their claims: a cached token has the same claims object each time. */
export class Callers {
  readonly #known = new WeakMap<Claims, Caller>()
  readonly #options: JwtOptions
  readonly #subjectOf: SubjectOf
  readonly #naming: () => Naming
  readonly #consumers: ConsumerRegistry
  readonly #forward: readonly (readonly [claim: string, header: string])[]

  /** `naming` may change until the first request. */
  constructor(options: JwtOptions, subjectOf: SubjectOf, naming: () => Naming, consumers: ConsumerRegistry) {
    this.#options = options
    this.#subjectOf = subjectOf
    this.#naming = naming
    this.#consumers = consumers
    this.#forward = Object.entries(options.forward ?? {}).flatMap(([claim, headers]) =>
      [headers].flat().map((header) => [claim, header] as const)
    )
  }

  /** Returns the caller with these claims. Throws if they do not suffice for the route. */
  of(claims: Claims): Caller {
    const known = this.#known.get(claims)
    // The declared consumers may change at any time.
    if (known !== undefined && known.version === this.#consumers.version) return known
    freeze(claims)
    const lack = lackOf(claims, this.#options)
    if (lack !== null) throw refusalFor(lack)
    const subject = this.#subjectOf(claims)
    const caller = {
      version: this.#consumers.version,
      consumer: subject && consumerFor('jwt', subject, this.#naming(), this.#consumers),
      headers: [...this.#claimHeaders(claims), ...this.#allClaims(claims)],
      boundTo: boundTo(claims, this.#options),
      authUntil: authUntil(claims, this.#options)
    }
    this.#known.set(claims, caller)
    return caller
  }

  #claimHeaders(claims: Claims): Caller['headers'] {
    return this.#forward.flatMap(([claim, header]) => {
      const value = headerValue(claimAt(claims, claim))
      return value === undefined ? [] : [[header, value] as const]
    })
  }

  /** Not the text of the token: it may have a claim twice, of which a service could read another one. */
  #allClaims(claims: Claims): Caller['headers'] {
    const { forwardClaims } = this.#options
    if (forwardClaims === undefined) return []
    const { header, encoding } = forwardClaims
    return [[header, Buffer.from(JSON.stringify(claims)).toString(encoding)]]
  }
}

/** Returns the headers by which a route sends claims to the service. */
export const claimHeaders = ({ forward, forwardClaims }: JwtOptions): string[] => [
  ...Object.values(forward ?? {}).flat(),
  ...(forwardClaims === undefined ? [] : [forwardClaims.header])
]

/** Freezes claims deeply: every request with the token shares them, so no code may change them. */
function freeze(value: unknown): void {
  if (typeof value !== 'object' || value === null || Object.isFrozen(value)) return
  for (const inner of Object.values(value)) freeze(inner)
  Object.freeze(value)
}
