/** Failures of logins and sessions: their errors, and the reasons for the access log. */

import { createError } from '@fastify/error'
import { withoutSecrets } from '../../../echoed-secrets.ts'
import { Unavailable } from '../../bridge/undecided.ts'
import type { OidcOptions } from './options.ts'

/** Reasons for the access log. A closed list, documented in plugins/edge/access-log/README.md. */
export const oidcReasons = [
  'oidc_missing', 'oidc_login', 'oidc_session', 'oidc_expired', 'oidc_ended', 'oidc_id_token', 'oidc_state', 'oidc_code', 'oidc_denied',
  'oidc_response', 'oidc_size', 'oidc_insecure', 'oidc_cross_site', 'oidc_timeout', 'oidc_unreachable', 'oidc_malformed',
  'oidc_client', 'oidc_overloaded', 'oidc_store', 'oidc_logout_token'
] as const // biome-ignore format: a list

export type Reason = (typeof oidcReasons)[number]

const Missing = createError('JW_LOGIN_REQUIRED', 'A login is required', 401)
const SessionInvalid = createError('JW_SESSION_INVALID', 'The session is over; log in again', 401)
const LoginInvalid = createError(
  'JW_LOGIN_INVALID',
  'This login is over, or was begun in another browser; open the page again',
  400
)
const LoginRefused = createError('JW_LOGIN_REFUSED', 'The login was refused', 403)
const LogoutRefused = createError('JW_LOGOUT_REFUSED', 'Another site must not end the session', 403)
const LogoutInvalid = createError('JW_LOGOUT_INVALID', 'The logout token is not valid', 400)
const TooLarge = createError('JW_SESSION_TOO_LARGE', 'The session is too large for cookies', 500)
const Insecure = createError('JW_LOGIN_INSECURE', 'A login needs https', 400)

const errors: Readonly<Record<Reason, () => Error>> = {
  oidc_missing: () => new Missing(),
  oidc_login: () => new Missing(),
  oidc_session: () => new SessionInvalid(),
  oidc_expired: () => new SessionInvalid(),
  oidc_ended: () => new SessionInvalid(),
  oidc_id_token: () => new SessionInvalid(),
  oidc_state: () => new LoginInvalid(),
  oidc_code: () => new LoginInvalid(),
  oidc_denied: () => new LoginRefused(),
  oidc_response: () => new LoginRefused(),
  oidc_size: () => new TooLarge(),
  oidc_insecure: () => new Insecure(),
  oidc_cross_site: () => new LogoutRefused(),
  oidc_timeout: () => new Unavailable(),
  oidc_unreachable: () => new Unavailable(),
  oidc_malformed: () => new Unavailable(),
  oidc_client: () => new Unavailable(),
  oidc_overloaded: () => new Unavailable(),
  oidc_store: () => new Unavailable(),
  oidc_logout_token: () => new LogoutInvalid()
}

/** A failure with its reason. The message and the cause go to the log only. */
export class OidcFailure extends Error {
  readonly reason: Reason

  constructor(reason: Reason, message: string = reason, cause?: unknown) {
    super(message, { cause })
    this.reason = reason
  }

  /** The error for the client. */
  get error(): Error {
    return Object.assign(errors[this.reason](), { cause: this.cause })
  }

  /** True if a later try may succeed: the provider or Redis is unavailable. */
  get isOutage(): boolean {
    return (this.error as { statusCode?: number }).statusCode === 503
  }
}

interface ProviderError {
  readonly code?: unknown
  readonly error?: unknown
  readonly error_description?: unknown
  readonly status?: unknown
  readonly cause?: unknown
  readonly message: string
}

/** Errors by which a provider says that it is unavailable (RFC 6749, 4.1.2.1). */
const temporary = new Set(['server_error', 'temporarily_unavailable'])

/** Returns advice on a client that the provider refuses, for the log. */
export function clientAdvice(
  { clientSecret, clientAuth }: Pick<OidcOptions, 'clientSecret' | 'clientAuth'>,
  metadata: { readonly token_endpoint_auth_methods_supported?: readonly string[] } | undefined
): string {
  const supported = metadata?.token_endpoint_auth_methods_supported
  const supports = (way: string) => supported?.includes(`client_secret_${way}`) === true
  const other = clientAuth === 'basic' ? 'post' : 'basic'
  return clientSecret !== undefined && !supports(clientAuth) && supports(other)
    ? `it takes the secret by client_secret_${other}: set clientAuth: ${other}`
    : 'check clientId, clientSecret and clientAuth'
}

/** Text of the provider for the log, bounded and without control characters. */
const shown = (text: unknown, secrets: readonly string[] = []): string =>
  typeof text === 'string'
    ? withoutSecrets(text, secrets)
        .replace(/[^\x20-\x7e]/g, '?')
        .slice(0, 200)
    : ''

/**
 * Returns the failure for an error of openid-client. The response that the error holds may have tokens, so it is not its cause.
 * `secrets` are those of the request, which the provider may repeat.
 */
export function failureOf(thrown: unknown, secrets: readonly string[] = []): OidcFailure {
  const error = thrown as ProviderError
  if (thrown instanceof OidcFailure) return thrown
  if (error.cause instanceof OidcFailure) return error.cause
  const said = `${shown(error.error, secrets)} ${shown(error.error_description, secrets)}`.trim()
  switch (error.code) {
    case 'OAUTH_AUTHORIZATION_RESPONSE_ERROR':
      return new OidcFailure(temporary.has(String(error.error)) ? 'oidc_unreachable' : 'oidc_denied', said)
    case 'OAUTH_RESPONSE_BODY_ERROR':
      return new OidcFailure(error.error === 'invalid_grant' ? 'oidc_code' : 'oidc_client', said)
    case 'OAUTH_WWW_AUTHENTICATE_CHALLENGE':
      return new OidcFailure('oidc_client', `status ${shown(String(error.status))}`)
    case 'OAUTH_RESPONSE_IS_NOT_CONFORM':
    case 'OAUTH_RESPONSE_IS_NOT_JSON':
    case 'OAUTH_PARSE_ERROR':
    case 'OAUTH_MISSING_SERVER_METADATA':
    case 'OAUTH_INVALID_SERVER_METADATA':
    case 'OAUTH_HTTP_REQUEST_FORBIDDEN':
    case 'OAUTH_REQUEST_PROTOCOL_FORBIDDEN':
      return new OidcFailure('oidc_malformed', error.message)
    default:
      return new OidcFailure('oidc_response', error.message)
  }
}
