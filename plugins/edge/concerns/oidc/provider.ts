/**
 * The OpenID provider: its metadata, and calls to its endpoints by openid-client. Each call is bounded in time and size, and
 * follows no redirect. Metadata are fetched at first use, and again in the background when they are old.
 */
import type { FastifyBaseLogger } from 'fastify'
import type { JSONWebKeySet } from 'jose'
import type { Configuration, CustomFetch } from 'openid-client'
import type { Agent } from 'undici'
import { secretsOfTokenRequest } from '../../../echoed-secrets.ts'
import { onFirstUse } from '../../../on-first-use.ts'
import { asError } from '../../../thrown.ts'
import { networkOf } from '../../protocol/client-address.ts'
import { clientAdvice, failureOf, OidcFailure } from './failures.ts'
import type { LogoutClaims } from './logout-token.ts'
import { LogoutTokens } from './logout-token.ts'
import type { OidcOptions } from './options.ts'
import { TokenResponses } from './token-responses.ts'

const undici = onFirstUse<typeof import('undici')>('undici')
export const openid = onFirstUse<typeof import('openid-client')>('openid-client')

/** Largest response of an endpoint, in bytes. */
const maxResponseSize = 256 * 1024
/** Age at which metadata are fetched again. */
const maxAgeMs = 600_000
/** Shortest time between two fetches while they fail. */
const retryMs = 1000

export type ProviderOptions = Pick<
  OidcOptions,
  'issuer' | 'clientId' | 'clientSecret' | 'clientAuth' | 'timeout' | 'maxConcurrent'
> & {
  /** Certificates of the authorities of the provider, in PEM. */
  readonly ca: string | undefined
}
type Log = Pick<FastifyBaseLogger, 'info' | 'warn'>

/** Seconds after which openid-client fetches a key set again for an unknown key. */
const unknownKeyAge = 60
/** Endpoints without which no login succeeds. */
const endpoints = ['authorization_endpoint', 'token_endpoint', 'jwks_uri'] as const

/** Returns whether a value of the metadata is the URL of an endpoint. */
export const isEndpoint = (value: unknown): boolean =>
  typeof value === 'string' && URL.canParse(value) && /^https?:$/.test(new URL(value).protocol)

/** A call, with the bodies of its request for tokens and of the response. */
interface TokenCall {
  request: string | null
  response: string | null
  /** Secrets of the request. */
  secrets: readonly string[]
}

/** Returns the form in which openid-client calls an endpoint. */
const hrefOf = (url: string | undefined) => (url === undefined ? undefined : new URL(url).href)

const isJson = (text: string): boolean => {
  try {
    return typeof JSON.parse(text) === 'object'
  } catch {
    return false
  }
}

export class Provider {
  readonly #options: ProviderOptions
  readonly #log: Log
  readonly #now: () => number
  readonly #closing = new AbortController()
  #agent: Agent | null = null
  #client: Configuration | null = null
  #pending: Promise<Configuration> | null = null
  /** The metadata as they were fetched. */
  #metadata = ''
  /** The last key set; `fetchedAt` in seconds since 1970. */
  #keySet: { readonly jwks: JSONWebKeySet; readonly fetchedAt: number } | null = null
  #fetchedAt = Number.NEGATIVE_INFINITY
  #failure: { readonly error: OidcFailure; readonly until: number } | null = null
  /** True from a logged failure to the next success. */
  #isFailing = false
  #logoutTokens: LogoutTokens | null = null
  readonly #responses: TokenResponses
  #active = 0
  /** Calls in flight by the network of the client. */
  readonly #activeOf = new Map<string, number>()

  constructor(options: ProviderOptions, log: Log, now: () => number) {
    this.#options = options
    this.#log = log
    this.#now = now
    this.#responses = new TokenResponses(now)
  }

  /** Returns whether the last call succeeded; null before the first one. */
  get isUp(): boolean | null {
    return this.#isFailing ? false : this.#client === null ? null : true
  }

  /** Returns the client with the provider's metadata. Rejects with an `OidcFailure`. */
  client(): Promise<Configuration> {
    if (this.#client !== null) {
      if (this.#now() - this.#fetchedAt >= maxAgeMs && this.#mayDiscover) this.#discover().catch(() => {})
      return Promise.resolve(this.#client)
    }
    if (this.#pending === null && !this.#mayDiscover) return Promise.reject(this.#failure!.error)
    return this.#discover()
  }

  get #mayDiscover(): boolean {
    return this.#failure === null || this.#now() >= this.#failure.until
  }

  #discover(): Promise<Configuration> {
    this.#pending ??= this.#fetchMetadata().finally(() => {
      this.#pending = null
    })
    return this.#pending
  }

  /** Returns a client with the metadata that a fetch gives. Its calls use the other one. */
  async #configured(fetchMetadata: CustomFetch, fetch: CustomFetch = this.#fetch): Promise<Configuration> {
    const { issuer, clientId, clientSecret, clientAuth } = this.#options
    const { discovery, customFetch, allowInsecureRequests, enableNonRepudiationChecks, ...auth } = openid()
    const { ClientSecretBasic, ClientSecretPost, None } = auth
    const authentication =
      clientSecret === undefined
        ? None()
        : (clientAuth === 'basic' ? ClientSecretBasic : ClientSecretPost)(clientSecret)
    // The signature of ID tokens is verified although they come from the provider itself.
    const execute = [enableNonRepudiationChecks]
    if (issuer.startsWith('http:')) execute.push(allowInsecureRequests)
    let send = fetchMetadata
    const client = await discovery(new URL(issuer), clientId, undefined, authentication, {
      execute,
      [customFetch]: (...request: Parameters<CustomFetch>) => send(...request),
      // `#fetch` has the timeout.
      timeout: 3600
    })
    send = fetch
    client.timeout = 0
    return client
  }

  /**
   * Returns a client for one call, which fetches the key set for a key that is not in it. A client that has fetched it within the
   * last minute would not, and refuse all ID tokens after a change of the key.
   */
  async #clientForCall(call: TokenCall): Promise<Configuration> {
    await this.client()
    const metadata = async () => Response.json(JSON.parse(this.#metadata))
    const client = await this.#configured(metadata, (url, request) => this.#send(url, request, call))
    if (this.#keySet !== null) {
      const { jwks, fetchedAt } = this.#keySet
      openid().setJwksCache(client, { jwks, uat: fetchedAt - unknownKeyAge })
    }
    return client
  }

  /** Sends a request of a call. It gets the response to the same request for tokens that a call could not verify. */
  async #send(url: string, request: Parameters<CustomFetch>[1], call: TokenCall): Promise<Response> {
    if (url !== hrefOf(this.#client?.serverMetadata().token_endpoint)) return this.#fetch(url, request)
    call.request = String(request.body)
    call.secrets = secretsOfTokenRequest(request.headers, call.request)
    const kept = this.#responses.get(call.request)
    if (kept !== null) return kept
    const response = await this.#fetch(url, request)
    const text = response.status === 200 ? await response.clone().text() : ''
    if (isJson(text)) call.response = text
    return response
  }

  async #fetchMetadata(): Promise<Configuration> {
    try {
      const client = await this.#configured(this.#fetch)
      const metadata = client.serverMetadata()
      const wrong = endpoints.find((name) => !isEndpoint(metadata[name]))
      if (wrong !== undefined) throw new OidcFailure('oidc_malformed', `the metadata have no valid ${wrong}`)
      this.#client = client
      this.#metadata = JSON.stringify(metadata)
      this.#fetchedAt = this.#now()
      this.#failure = null
      this.#report(null)
      return client
    } catch (thrown) {
      const error = failureOf(thrown)
      const outage = error.isOutage ? error : new OidcFailure('oidc_malformed', error.message, error.cause)
      this.#failure = { error: outage, until: this.#now() + retryMs }
      this.#report(outage)
      throw outage
    }
  }

  /** Returns the claims of a logout token. Rejects with an `OidcFailure`. */
  async verifyLogout(token: string): Promise<LogoutClaims> {
    const client = await this.client()
    this.#logoutTokens ??= new LogoutTokens(this.#options.clientId, this.#fetch)
    return this.#logoutTokens.verify(token, client.serverMetadata())
  }

  /** Calls the provider on behalf of a client's address. Rejects with an `OidcFailure`. */
  async call<T>(
    ip: string,
    run: (client: Configuration, library: typeof import('openid-client')) => Promise<T>
  ): Promise<T> {
    const { maxConcurrent } = this.#options
    const network = networkOf(ip)
    const own = this.#activeOf.get(network) ?? 0
    const left = maxConcurrent - this.#active
    // Three times as many calls as are left: so each further client finds some, whatever the others do.
    if (left <= 0 || (own > 0 && own >= 3 * left))
      throw new OidcFailure('oidc_overloaded', `${own} calls are in flight`)
    this.#active++
    this.#activeOf.set(network, own + 1)
    const call: TokenCall = { request: null, response: null, secrets: [] }
    const forget = () => call.request !== null && this.#responses.delete(call.request)
    try {
      const result = await run(await this.#clientForCall(call), openid())
      forget()
      this.#report(null)
      return result
    } catch (thrown) {
      const failure = failureOf(thrown, call.secrets)
      if (!failure.isOutage) forget()
      else {
        this.#report(failure)
        if (call.request !== null && call.response !== null) this.#responses.keep(call.request, call.response)
      }
      throw failure
    } finally {
      this.#active--
      const others = this.#activeOf.get(network)! - 1
      if (others > 0) this.#activeOf.set(network, others)
      else this.#activeOf.delete(network)
    }
  }

  readonly #fetch: CustomFetch = async (url, { method, headers, body }) => {
    const { timeout, ca } = this.#options
    this.#agent ??= new (undici().Agent)({ connect: { timeout, ...(ca !== undefined && { ca }) } })
    const late = AbortSignal.timeout(timeout)
    try {
      const response = await undici().request(url, {
        dispatcher: this.#agent,
        method: method as 'GET',
        headers,
        // A kept connection may be closed by the provider at this moment, and a code cannot be sent twice.
        reset: true,
        body: body === undefined || body === null ? null : String(body),
        signal: AbortSignal.any([late, this.#closing.signal])
      })
      const chunks: Buffer[] = []
      let size = 0
      for await (const chunk of response.body as AsyncIterable<Buffer>) {
        size += chunk.length
        if (size > maxResponseSize) throw new OidcFailure('oidc_malformed', `more than ${maxResponseSize} bytes`)
        chunks.push(chunk)
      }
      const fields = Object.entries(response.headers).map(([name, value]) => [name, String(value)] as [string, string])
      // A redirect has no body; openid-client refuses its status.
      const content = size === 0 ? null : Buffer.concat(chunks)
      this.#keep(url, response.statusCode, content)
      return new Response(content, { status: response.statusCode, headers: fields })
    } catch (error) {
      if (error instanceof OidcFailure) throw error
      if (late.aborted) throw new OidcFailure('oidc_timeout', `no response within ${timeout} ms`)
      throw new OidcFailure('oidc_unreachable', asError(error).message, error)
    }
  }

  /** Keeps a key set for the next calls. openid-client checks it. */
  #keep(url: string, status: number, content: Buffer | null): void {
    if (status !== 200 || content === null || url !== hrefOf(this.#client?.serverMetadata().jwks_uri)) return
    try {
      this.#keySet = { jwks: JSON.parse(content.toString()) as JSONWebKeySet, fetchedAt: Math.floor(Date.now() / 1000) }
    } catch {
      // openid-client reports it.
    }
  }

  /** Logs the first of several failures, and the first success after them. */
  #report(failure: OidcFailure | null): void {
    const { issuer, clientId } = this.#options
    if (failure === null && this.#isFailing) this.#log.info({ issuer, clientId }, 'the OpenID provider responds again')
    if (failure !== null && !this.#isFailing && !this.#closing.signal.aborted) {
      const message =
        failure.reason === 'oidc_client'
          ? `the OpenID provider refuses client ${clientId}: ${failure.message}; logins get 503; ${clientAdvice(this.#options, this.#client?.serverMetadata())}`
          : `the OpenID provider failed: ${failure.message}; logins get 503 until it responds`
      this.#log.warn({ issuer, clientId, reason: failure.reason, err: failure }, message)
    }
    this.#isFailing = failure !== null
  }

  async close(): Promise<void> {
    this.#closing.abort()
    await this.#agent?.destroy()
  }
}
