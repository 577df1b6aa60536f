/** A request for a token by the grant client_credentials (RFC 6749, 4.4), by openid-client. */
import type { ClientAuth, CustomFetch } from 'openid-client'
import { secretsOfTokenRequest, withoutSecrets } from '../../../echoed-secrets.ts'
import { onFirstUse } from '../../../on-first-use.ts'
import type { Post } from './exchange.ts'
import type { OAuth2Options } from './options.ts'
import { isFieldValue, readSecret } from './secret.ts'
import { cryptoKey } from './signing-key.ts'

const openid = onFirstUse<typeof import('openid-client')>('openid-client')

/** Largest token, in characters: services accept header sections of 8 to 64 KB. */
const mostCharacters = 16 * 1024

export type FailureReason = 'credentials_refused' | 'credentials_unavailable' | 'credentials_malformed'

/** A request without a token as its result. The message has no secrets. */
export class TokenFailure extends Error {
  readonly reason: FailureReason

  constructor(reason: FailureReason, message: string, cause?: unknown) {
    super(message, { cause })
    this.reason = reason
  }
}

interface Granted {
  readonly token: string
  /** Lifetime in milliseconds; null if the server does not say it. */
  readonly lifetimeMs: number | null
}

/** Returns the name of the endpoint for texts, without the query of its URL. */
export function endpointText({ url, service, path }: OAuth2Options): string {
  if (url === undefined) return `${service}${path ?? '/token'}`
  const { origin, pathname } = new URL(url)
  return origin + pathname
}

/** Returns the printable part of a text of the server, shortened. */
const printable = (text: string) => text.replace(/[^ -~]+/g, ' ').slice(0, 200)

function authenticationBy(options: OAuth2Options, endpoint: string): ClientAuth {
  const { clientSecret, clientSecretFile, clientAuth, privateKeyFile, keyId, algorithm, issuer } = options
  const library = openid()
  if (privateKeyFile !== undefined) {
    const key = cryptoKey(privateKeyFile, algorithm)
    return library.PrivateKeyJwt(keyId === undefined ? key : { key, kid: keyId }, {
      // Servers accept the URL of the endpoint (RFC 7523, 3).
      [library.modifyAssertion]: (_header, payload) => {
        payload.aud = issuer ?? endpoint
      }
    })
  }
  const secret = clientSecret ?? readSecret(clientSecretFile!)
  return clientAuth === 'post' ? library.ClientSecretPost(secret) : library.ClientSecretBasic(secret)
}

/** Requests a token. Rejects with a `TokenFailure`. */
export async function requestToken(options: OAuth2Options, post: Post): Promise<Granted> {
  const { clientId, scopes, audience, parameters = {} } = options
  // A service of the mesh has no URL that the server knows; only the name in an assertion depends on it.
  const endpoint = options.url ?? `http://${options.service}${options.path ?? '/token'}`
  let status: number | null = null
  let problem: unknown = null
  let secrets: readonly string[] = []
  const send: CustomFetch = async (_url, { headers, body }) => {
    try {
      secrets = secretsOfTokenRequest(headers, String(body))
      const posted = await post(headers, String(body))
      status = posted.status
      const fields = Object.entries(posted.headers).map(([name, value]) => [name, String(value)] as [string, string])
      return new Response(posted.body.length === 0 ? null : new Uint8Array(posted.body), { status, headers: fields })
    } catch (error) {
      problem = error
      throw error
    }
  }
  try {
    const library = openid()
    const server = { issuer: new URL(endpoint).origin, token_endpoint: endpoint }
    const client = new library.Configuration(server, clientId, undefined, authenticationBy(options, endpoint))
    library.allowInsecureRequests(client)
    client[library.customFetch] = send
    // `post` has the timeout.
    client.timeout = 0
    const given = {
      ...parameters,
      ...(scopes && { scope: scopes.join(' ') }),
      ...(audience !== undefined && { audience })
    }
    const { access_token: token, expires_in: seconds } = await library.clientCredentialsGrant(client, given)
    if (!isFieldValue(token) || token.includes(' ')) {
      throw new TokenFailure('credentials_malformed', 'the token has characters that a header cannot have')
    }
    if (token.length > mostCharacters) {
      throw new TokenFailure('credentials_malformed', `the token has more than ${mostCharacters} characters`)
    }
    return { token, lifetimeMs: seconds === undefined ? null : seconds * 1000 }
  } catch (error) {
    if (error instanceof TokenFailure) throw error
    throw failureOf(error as Error, status, problem as Error | null, options, secrets)
  }
}

/** Returns the failure for an error. `status` is that of the response, null without one; `problem` the error of the call. */
function failureOf(
  error: Error,
  status: number | null,
  problem: Error | null,
  { clientAuth, privateKeyFile }: OAuth2Options,
  secrets: readonly string[]
): TokenFailure {
  const shown = (text: unknown) => printable(withoutSecrets(String(text), secrets))
  if (problem !== null) return new TokenFailure('credentials_unavailable', shown(problem.message), problem)
  // Before the call, such as an unreadable file.
  if (status === null) return new TokenFailure('credentials_unavailable', shown(error.message))
  const { error: code, error_description: description } = error as { error?: unknown; error_description?: unknown }
  const reported =
    typeof code === 'string' ? `: ${shown(code)}${description === undefined ? '' : ` (${shown(description)})`}` : ''
  if (status === 400 || status === 401 || status === 403) {
    const other = clientAuth === 'post' ? 'basic' : 'post'
    const advice =
      privateKeyFile === undefined && status !== 403
        ? `; check clientId and the secret, or try clientAuth: ${other}`
        : ''
    return new TokenFailure(
      'credentials_refused',
      `the endpoint refuses the gateway with ${status}${reported}${advice}`
    )
  }
  if (status !== 200)
    return new TokenFailure('credentials_unavailable', `the endpoint responds with ${status}${reported}`)
  // openid-client wraps the error that says what is wrong. Its own causes may have the response, and so a token.
  const { message } = error.cause instanceof Error ? error.cause : error
  return new TokenFailure('credentials_malformed', `the response has no valid token: ${shown(message)}`)
}
