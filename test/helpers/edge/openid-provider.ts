// A real OpenID provider (oidc-provider) on loopback, and a browser that logs in there.

import { generateKeyPairSync, randomUUID } from 'node:crypto'
import type { IncomingMessage, RequestListener, ServerResponse } from 'node:http'
import type { AdapterPayload } from 'oidc-provider'
import { Provider } from 'oidc-provider'
import type { Test } from 'tap'
import { CLOCK } from '../../../plugins/clock.ts'
import type { Seen } from '../gateway.ts'
import { startEcho, startGateway, startService } from '../gateway.ts'
import type { AskOptions, Protocol, Received } from './asking-client.ts'
import { anyClient, listenFor } from './asking-client.ts'

export const client = { id: 'gateway', secret: 'a secret: of the gateway' }

/** State that tests change while the provider runs. */
export interface ProviderState {
  /** The user who logs in; null refuses the login. */
  user: string | null
  /** Seconds. */
  accessTokenTtl: number
  rotates: boolean
  /** True: logins and logouts ask by a form, for a real browser. */
  asks: boolean
  /** Size of a further claim of each user. */
  padding: number
  /** Takes a request in place of the provider, if it returns true. */
  intercept: ((request: IncomingMessage, response: ServerResponse) => boolean) | null
}

export interface TestProvider {
  readonly issuer: string
  readonly port: number
  readonly state: ProviderState
  /** Method and path of each request. */
  readonly seen: string[]
  readonly provider: Provider
  /** Registers URIs of the client. */
  allow(redirectUri: string, logoutUri?: string): void
  /** Registers the URI to which the provider reports logouts. */
  reportTo(uri: string): void
  close(): Promise<void>
}

/** `pair`: certificate and key of a provider that speaks TLS. */
export async function startProvider(
  t: Test,
  pair?: { readonly cert: string; readonly key: string }
): Promise<TestProvider> {
  const redirects = ['https://unused.example/oidc/callback']
  const logouts: string[] = []
  const backchannel: string[] = []
  const state: ProviderState = {
    user: 'amy',
    accessTokenTtl: 3600,
    rotates: true,
    asks: false,
    padding: 0,
    intercept: null
  }
  const seen: string[] = []
  let handle: RequestListener = (_request, response) => void response.end()
  const service = await startService((request, response) => {
    seen.push(`${request.method} ${request.url?.split('?')[0]}`)
    if (state.intercept?.(request, response) !== true) handle(request, response)
  }, pair)
  t.teardown(service.close)
  const { privateKey } = generateKeyPairSync('rsa', { modulusLength: 2048 })
  const stored = new Map<string, AdapterPayload>()
  const provider = new Provider(service.url, {
    adapter: (kind: string) => adapter(kind, stored, () => ({ redirects, logouts, backchannel })),
    jwks: { keys: [{ ...privateKey.export({ format: 'jwk' }), kid: 'one', use: 'sig' }] },
    // Without the dispatcher of the provider, which refuses loopback.
    fetch: (url: string, { dispatcher: _, ...options }: RequestInit & { dispatcher?: unknown }) => fetch(url, options),
    cookies: { keys: ['a key of the tests'] },
    claims: { openid: ['sub'], email: ['email', 'email_verified'], roles: ['realm_access', 'padding'] },
    scopes: ['openid', 'offline_access', 'email', 'roles'],
    conformIdTokenClaims: false,
    features: {
      devInteractions: { enabled: false },
      rpInitiatedLogout: {
        enabled: true,
        logoutSource: (context: { body: unknown }, form: string) => confirmLogout(context, form, state.asks)
      },
      backchannelLogout: { enabled: true }
    },
    issueRefreshToken: async () => true,
    rotateRefreshToken: () => state.rotates,
    interactions: { url: (_context, { uid }) => `/interaction/${uid}` },
    ttl: {
      AccessToken: () => state.accessTokenTtl,
      IdToken: 3600,
      Grant: 3600,
      Session: 3600,
      Interaction: 3600,
      RefreshToken: 3600
    },
    findAccount: async (_context, id) => ({
      accountId: id,
      claims: async () => ({
        sub: id,
        email: `${id}@example.org`,
        email_verified: true,
        realm_access: { roles: ['reader', 'Schlüssel'] },
        padding: 'x'.repeat(state.padding)
      })
    })
  })
  provider.on('backchannel.error', (_context, error) => t.comment(error))
  provider.on('server_error', (_context, error) => t.comment(error))
  const callback = provider.callback()
  handle = (request, response) => {
    if (request.url?.startsWith('/interaction/') !== true) void callback(request, response)
    else interact(provider, state, request, response).catch((error: unknown) => t.comment(error))
  }
  return {
    issuer: service.url,
    port: service.port,
    state,
    seen,
    provider,
    allow(redirectUri, logoutUri) {
      redirects.push(redirectUri)
      if (logoutUri !== undefined) logouts.push(logoutUri)
    },
    reportTo: (uri) => void backchannel.push(uri),
    close: service.close
  }
}

async function interact(
  provider: Provider,
  { user, asks }: ProviderState,
  request: IncomingMessage,
  response: ServerResponse
) {
  if (asks && request.method === 'GET') {
    response.setHeader('content-type', 'text/html')
    response.end(`<!doctype html><form method="post"><button>Log in as ${user}</button></form>`)
    return
  }
  if (user === null) {
    await provider.interactionFinished(request, response, { error: 'access_denied', error_description: 'not today' })
    return
  }
  const { params, session, grantId } = await provider.interactionDetails(request, response)
  const accountId = session?.accountId ?? user
  const found = grantId === undefined ? undefined : await provider.Grant.find(grantId)
  const grant = found ?? new provider.Grant({ accountId, clientId: String(params.client_id) })
  grant.addOIDCScope(String(params.scope))
  const consent = { grantId: await grant.save() }
  await provider.interactionFinished(request, response, { login: { accountId }, consent })
}

/** Shows the form, or logs out without a question. */
function confirmLogout(context: { body: unknown }, form: string, asks: boolean): void {
  if (asks) {
    context.body = `<!doctype html>${form}<button form="op.logoutForm" name="logout" value="yes">Leave the provider</button>`
    return
  }
  const [, secret] = /name="xsrf" value="([^"]*)"/.exec(form) ?? []
  context.body = `xsrf=${secret}`
}

const lifetimes = new Set(['Client'])

function adapter(
  kind: string,
  stored: Map<string, AdapterPayload>,
  uris: () => { redirects: string[]; logouts: string[]; backchannel: string[] }
) {
  const key = (id: string) => `${kind}:${id}`
  const find = async (id: string): Promise<AdapterPayload | undefined> => {
    if (!lifetimes.has(kind)) return stored.get(key(id))
    if (id !== client.id) return undefined
    const { redirects, logouts, backchannel } = uris()
    return {
      client_id: client.id,
      client_secret: client.secret,
      redirect_uris: [...redirects],
      post_logout_redirect_uris: [...logouts],
      ...(backchannel[0] !== undefined && {
        backchannel_logout_uri: backchannel[0],
        backchannel_logout_session_required: true
      }),
      grant_types: ['authorization_code', 'refresh_token'],
      token_endpoint_auth_method: 'client_secret_basic'
    } as AdapterPayload
  }
  return {
    find,
    async upsert(id: string, payload: AdapterPayload) {
      stored.set(key(id), payload)
    },
    async findByUserCode() {
      return undefined
    },
    async findByUid(uid: string) {
      return [...stored.entries()].find(([id, each]) => id.startsWith(`${kind}:`) && each.uid === uid)?.[1]
    },
    async consume(id: string) {
      const payload = stored.get(key(id))
      if (payload !== undefined) payload.consumed = Math.floor(Date.now() / 1000)
    },
    async destroy(id: string) {
      stored.delete(key(id))
    },
    async revokeByGrantId(grantId: string) {
      for (const [id, each] of stored) if (each.grantId === grantId) stored.delete(id)
    }
  }
}

/** Headers of a page load. */
export const pageLoad = { 'sec-fetch-mode': 'navigate', 'sec-fetch-dest': 'document', accept: 'text/html,*/*;q=0.8' }

/** A cookie as the browser keeps it. */
interface Kept {
  value: string
  attributes: string
}

export interface Visited extends Received {
  /** URLs that the browser was sent to, in their order. */
  hops: string[]
}

/** A browser: keeps the cookies of the gateway and of the provider, and follows redirects between them. */
export class Browser {
  readonly cookies = new Map<string, Kept>()
  readonly #provider = new Map<string, string>()
  readonly #ask: (path: string, options?: AskOptions) => Promise<Received>
  readonly #host: string
  /** URL of the gateway. */
  readonly origin: string

  constructor(t: Test, protocol: Protocol, port: number, host = `localhost:${port}`) {
    const { ask } = anyClient(t, protocol, port)
    const isHttp2 = protocol === 'HTTP/2'
    this.#host = host
    this.#ask = (path, { headers, ...options } = {}) =>
      ask(path, { ...options, headers: { [isHttp2 ? ':authority' : 'host']: this.#host, ...headers } })
    this.origin = `${protocol === 'HTTP/1.1' ? 'http' : 'https'}://${host}`
  }

  /** The value of the `Cookie` header. */
  get cookie(): string {
    return [...this.cookies].map(([name, { value }]) => `${name}=${value}`).join('; ')
  }

  /** Sends one request to the gateway; follows nothing. */
  async send(path: string, { headers, ...options }: AskOptions = {}): Promise<Received> {
    const { cookie } = this
    const received = await this.#ask(path, { ...options, headers: { ...(cookie !== '' && { cookie }), ...headers } })
    for (const text of [received.headers['set-cookie'] ?? []].flat()) this.#keep(text)
    return received
  }

  #keep(text: string): void {
    const [, name = '', value = '', attributes = ''] = /^([^=]+)=([^;]*)(.*)$/.exec(text) ?? []
    if (/max-age=0\b/i.test(attributes)) this.cookies.delete(name)
    else this.cookies.set(name, { value, attributes })
  }

  /** Loads a page of the gateway, and follows redirects, at the provider also. */
  async visit(path: string, headers: Record<string, string> = pageLoad): Promise<Visited> {
    const hops: string[] = []
    let received = await this.send(path, { headers })
    for (let at = this.origin; received.status >= 300 && received.status < 400; ) {
      if (hops.length > 20) throw new Error(`redirected for ever: ${hops.join(' ')}`)
      const url = new URL(String(received.headers.location), at)
      hops.push(url.href)
      at = url.href
      received =
        url.origin === this.origin ? await this.send(url.pathname + url.search, { headers }) : await this.foreign(url)
    }
    return { ...received, hops }
  }

  /** Sends a request to the provider. */
  async foreign(url: URL, body?: URLSearchParams): Promise<Received> {
    const cookie = [...this.#provider].map(([name, value]) => `${name}=${value}`).join('; ')
    const response = await fetch(url, {
      redirect: 'manual',
      headers: { cookie },
      ...(body && { method: 'POST', body })
    })
    for (const text of response.headers.getSetCookie()) {
      const [, name = '', value = ''] = /^([^=]+)=([^;]*)/.exec(text) ?? []
      this.#provider.set(name, value)
    }
    const content = Buffer.from(await response.arrayBuffer())
    const [, secret] = /^xsrf=(.+)$/.exec(content.toString()) ?? []
    if (secret !== undefined) {
      return this.foreign(new URL('/session/end/confirm', url), new URLSearchParams({ xsrf: secret, logout: 'yes' }))
    }
    const headers = Object.fromEntries(response.headers)
    return { status: response.status, headers, trailers: {}, hints: [], body: content, isWhole: true }
  }
}

/** A secret for sessions. */
export const newSecret = (): string => `secret of a test ${randomUUID()}`

interface More {
  readonly protocol?: Protocol
  readonly oidc?: object
  readonly edge?: object
  readonly session?: object
  readonly config?: object
  readonly service?: string
  readonly routes?: readonly object[]
  /** Milliseconds that the gateway's clock is ahead. */
  readonly clock?: { ahead: number }
}

const secrets = [newSecret()]

/** A gateway whose route `app` needs a login, and whose route `open` does not. */
export async function guardedByLogin(
  t: Test,
  provider: Pick<TestProvider, 'issuer' | 'allow'>,
  { protocol = 'HTTP/1.1', oidc, edge, session, config, service, routes = [], clock }: More = {}
) {
  let url = service
  if (url === undefined) {
    const echo = await startEcho()
    t.teardown(echo.close)
    url = echo.url
  }
  const options = {
    issuer: provider.issuer,
    clientId: client.id,
    clientSecret: client.secret,
    scopes: ['openid', 'email', 'roles'],
    loginPath: '/oidc/login',
    session: { secrets, ...session },
    ...oidc
  }
  const gateway = await startGateway(
    {
      listen: listenFor(t, protocol),
      services: { any: { instances: [url] } },
      ...config,
      routes: [
        { name: 'app', match: { path: '/app' }, service: 'any', edge: { oidc: options, ...edge } },
        { name: 'open', match: { path: '/open' }, service: 'any' },
        ...routes
      ]
    },
    {
      log: true,
      before(server) {
        if (clock === undefined) return
        const now = () => performance.now() + clock.ahead
        server.decorate(CLOCK, { now, date: () => Date.now() + clock.ahead })
      }
    }
  )
  t.teardown(gateway.close)
  const browser = () => new Browser(t, protocol, gateway.port)
  const { origin } = browser()
  provider.allow(`${origin}/oidc/callback`, `${origin}/bye`)
  const lines = () => gateway.log.filter(({ msg }) => msg === 'request')
  return { ...gateway, browser, lines, options, metrics: () => gateway.server.metrics.metrics() }
}

/** The request as the service got it. */
export const seenBy = ({ body }: { body: Buffer }) => JSON.parse(body.toString()) as Seen

/** Begins a login; stops before the callback. */
export async function untilCallback(user: Browser): Promise<{ callback: string; nonce: string }> {
  const begun = await user.send('/app', { headers: pageLoad })
  const authorize = new URL(String(begun.headers.location))
  let at = authorize
  for (let hops = 0; hops < 10; hops++) {
    const { headers } = await user.foreign(at)
    at = new URL(String(headers.location), at)
    if (at.pathname === '/oidc/callback') {
      return { callback: at.pathname + at.search, nonce: authorize.searchParams.get('nonce')! }
    }
  }
  throw new Error(`no callback, but ${at}`)
}
