/** Reasons for which tokens are refused, for the access log. Clients learn only that a token has expired. */
import { createError } from '@fastify/error'

/** A closed list, documented in plugins/edge/access-log/README.md. */
export const tokenReasons = [
  'jwt_missing', 'jwt_scheme', 'jwt_repeated', 'jwt_too_large', 'jwt_malformed', 'jwt_algorithm', 'jwt_key',
  'jwt_signature', 'jwt_expired', 'jwt_not_yet_valid', 'jwt_issuer', 'jwt_audience', 'jwt_claim', 'jwt_other',
  'jwt_scope', 'jwt_required_claim', 'jwt_binding', 'jwt_acr', 'jwt_auth_age'
] as const // biome-ignore format: a list

type TokenReason = (typeof tokenReasons)[number]

/** Refusal of a token by the gateway, with its reason. */
export class TokenInvalid extends createError('JW_TOKEN_INVALID', 'The token is not valid', 401) {
  readonly reason: TokenReason

  constructor(reason: TokenReason) {
    super()
    this.reason = reason
  }
}

/** Refusal of a valid token that does not suffice for the route. */
export class TokenInsufficient extends createError(
  'JW_INSUFFICIENT_SCOPE',
  'The token does not allow this request',
  403
) {
  readonly reason: TokenReason

  constructor(reason: TokenReason) {
    super()
    this.reason = reason
  }
}

/** Refusal of a valid token whose user must authenticate in another way, or again (RFC 9470). */
export class StepUpRequired extends createError(
  'JW_STEP_UP_REQUIRED',
  'Another authentication of the user is required',
  401
) {
  readonly reason: TokenReason

  constructor(reason: TokenReason) {
    super()
    this.reason = reason
  }
}

const byCode = new Map<unknown, TokenReason>([
  ['JW_TOKEN_MISSING', 'jwt_missing'],
  ['FAST_JWT_MALFORMED', 'jwt_malformed'],
  ['FAST_JWT_INVALID_TYPE', 'jwt_malformed'],
  ['FAST_JWT_INVALID_PAYLOAD', 'jwt_malformed'],
  ['FAST_JWT_INVALID_CRIT_HEADER', 'jwt_malformed'],
  ['FST_JWT_BAD_REQUEST', 'jwt_malformed'],
  ['FAST_JWT_INVALID_ALGORITHM', 'jwt_algorithm'],
  ['FAST_JWT_INVALID_SIGNATURE', 'jwt_signature'],
  ['FAST_JWT_MISSING_SIGNATURE', 'jwt_signature'],
  ['FAST_JWT_EXPIRED', 'jwt_expired'],
  ['FST_JWT_AUTHORIZATION_TOKEN_EXPIRED', 'jwt_expired'],
  ['FAST_JWT_INACTIVE', 'jwt_not_yet_valid']
])

/**
 * Reasons by fast-jwt's messages. fast-jwt has one code for all claims, and @fastify/jwt has one code for claims and wrong
 * signatures; only the message distinguishes them.
 */
const byMessage: readonly (readonly [RegExp, TokenReason])[] = [
  [/\biss claim\b/, 'jwt_issuer'],
  [/\baud claim\b/, 'jwt_audience'],
  [/\bclaim\b/, 'jwt_claim'],
  [/signature is (invalid|missing)/, 'jwt_signature'],
  [/\bis malformed\b|\bserialized JSON\b|\bJSON object\b|\btype must be\b/, 'jwt_malformed'],
  [/public key provided for algorithms/, 'jwt_algorithm']
]

/** Returns the reason of a refusal: by the code of the error, else by its message. */
export function reasonOf(error: unknown): TokenReason {
  if (error instanceof TokenInvalid || error instanceof TokenInsufficient || error instanceof StepUpRequired)
    return error.reason
  const { code, message } = (error ?? {}) as { code?: unknown; message?: unknown }
  const text = String(message)
  return byCode.get(code) ?? byMessage.find(([pattern]) => pattern.test(text))?.[1] ?? 'jwt_other'
}
