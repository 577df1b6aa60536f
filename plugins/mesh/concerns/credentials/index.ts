/** Credentials of the gateway toward a service. */
import type { IncomingHttpHeaders } from 'node:http'
import type { MeshPolicy } from '../../../../config/schema.ts'
import { headerPairs, listItems } from '../../../http-syntax.ts'
import type { MeshConcern } from '../../concern.ts'
import { DiscardingHandler } from '../../core/handlers/discarding-handler.ts'
import type { Layer } from '../../core/layer.ts'
import type { Repeats } from '../../core/repeating/repeats.ts'
import { isReplayable } from '../../core/repeating/replay-body.ts'
import type { ServiceState } from '../../core/service-state.ts'
import { StateKey } from '../../core/service-state.ts'
import type { Dispatch, DispatchController, DispatchHandler, DispatchOptions, Logger } from '../../core/types.ts'
import { credentialsKey } from './key.ts'
import type { CredentialsOptions } from './options.ts'
import { StaticSecret } from './secret.ts'
import { endpointText } from './token-request.ts'
import { Tokens } from './tokens.ts'

const tokensKey = new StateKey<Tokens>('credentials')
const secretKey = new StateKey<StaticSecret & ServiceState>('credentials')

/** Sets the credentials in place of those of the caller. A call waits for a token if there is none. */
export const credentials: Layer = (service, { credentials: options }, { toService }) => {
  if (!options) return null
  const { oauth2 } = options
  if (oauth2 !== undefined) {
    const tokens = service.state(tokensKey, (deps) => new Tokens(service, oauth2, deps))
    return (dispatch) => {
      const sender = new TokenSender(tokens, toService, dispatch)
      return (opts, handler) => sender.send(opts, handler, true)
    }
  }
  const { name, ...made } = staticSecret(options)
  const secret = service.state(secretKey, ({ log }) => made.create(service.name, log))
  return (dispatch) => (opts, handler) => dispatch(withField(opts, name, secret.value), handler)
}

/** Returns the header of credentials that are not requested, and a function that makes its value. */
function staticSecret({ bearer, basic, header }: CredentialsOptions) {
  const of = (secret: string | undefined, file: string | undefined, format: (secret: string) => string) => {
    return (service: string, log: Logger) => new StaticSecret(secret, file, format, service, log)
  }
  if (bearer !== undefined) {
    const create = of(bearer.token, bearer.tokenFile, (token) => `Bearer ${token}`)
    return { name: 'authorization', create }
  }
  if (basic !== undefined) {
    const encode = (password: string) => `Basic ${Buffer.from(`${basic.username}:${password}`).toString('base64')}`
    return { name: 'authorization', create: of(basic.password, basic.passwordFile, encode) }
  }
  const { name, secret, secretFile } = header!
  return { name: name.toLowerCase(), create: of(secret, secretFile, (value) => value) }
}

/** Returns the options with the field in place of all fields of this name, which is in lower case. */
function withField(opts: DispatchOptions, name: string, value: string): DispatchOptions {
  const headers: string[] = []
  const given = headerPairs(opts.headers)
  for (let i = 0; i < given.length; i += 2) {
    const field = given[i]!
    if (field.length !== name.length || field.toLowerCase() !== name) headers.push(field, given[i + 1]!)
  }
  headers.push(name, value)
  return { ...opts, headers }
}

/** Sends calls with the token of a service. */
class TokenSender {
  readonly tokens: Tokens
  readonly #toService: (name: string) => Dispatch
  readonly #dispatch: Dispatch

  constructor(tokens: Tokens, toService: (name: string) => Dispatch, dispatch: Dispatch) {
    this.tokens = tokens
    this.#toService = toService
    this.#dispatch = dispatch
  }

  /** `mayRepeat`: if the service refuses the token, the call is sent once more with another one. */
  send(opts: DispatchOptions, handler: DispatchHandler, mayRepeat: boolean): boolean {
    const value = this.tokens.current(this.#toService)
    if (value !== null) return this.#sendWith(value, opts, handler, mayRepeat)
    const resumed: Dispatch = (queued, next) => {
      const late = this.tokens.current(this.#toService)
      return late === null ? this.send(queued, next, mayRepeat) : this.#sendWith(late, queued, next, mayRepeat)
    }
    this.tokens.wait(this.#toService, resumed, opts, handler)
    return true
  }

  #sendWith(value: string, opts: DispatchOptions, handler: DispatchHandler, mayRepeat: boolean): boolean {
    const next = mayRepeat ? new RefusedHandler(handler, opts, value, this) : handler
    return this.#dispatch(withField(opts, 'authorization', value), next)
  }
}

/** Most challenges and parameters of them that are read. */
const mostItems = 64

/** Returns whether challenges (RFC 9110, 11.6.1) have one of the scheme Bearer. */
const asksForBearer = (challenges: string): boolean =>
  listItems(challenges, mostItems)?.some((item) => /^bearer(?:[ \t]|$)/i.test(item)) ?? false

const idempotent = new Set(['GET', 'HEAD', 'OPTIONS', 'TRACE', 'PUT', 'DELETE'])

/**
 * Repeats a call that the service refused with 401 because of its token, if the body can be sent again. A 401 may also be the
 * answer to what the client sent, such as a wrong password: with a challenge for another scheme it is, and without any it may
 * be, so that only calls with idempotent methods are repeated.
 */
class RefusedHandler extends DiscardingHandler {
  readonly #opts: DispatchOptions
  readonly #value: string
  readonly #sender: TokenSender

  constructor(next: DispatchHandler, opts: DispatchOptions, value: string, sender: TokenSender) {
    super(next)
    this.#opts = opts
    this.#value = value
    this.#sender = sender
  }

  override onResponseStart(
    controller: DispatchController,
    status: number,
    headers: IncomingHttpHeaders,
    text?: string
  ): void {
    if (status === 401 && this.#isRefused(headers['www-authenticate'])) {
      this.#opts.call!.detachSource()
      this.discard(controller)
      this.#sender.send(this.#opts, this.next, false)
      return
    }
    this.next.onResponseStart?.(controller, status, headers, text)
  }

  /** Returns whether to repeat the call with another token. */
  #isRefused(challenge: IncomingHttpHeaders[string]): boolean {
    const isOfToken = challenge !== undefined && asksForBearer(String(challenge))
    if ((challenge !== undefined && !isOfToken) || !this.#sender.tokens.refuse(this.#value)) return false
    const { method, body, call } = this.#opts
    if (!(isOfToken || idempotent.has(method)) || call!.aborted || call!.over) return false
    return isReplayable(body, false)
  }
}

// A request whose token was refused was not processed, whatever its method.
const repeats: Repeats = ({ credentials: options }) =>
  options && options.oauth2 !== undefined ? { maxBody: null, mayRepeat: () => true } : null

/** Returns the text of `explain`, without secrets. */
function textOf({ credentials: options }: MeshPolicy): string | null {
  if (!options) return null
  const { oauth2, bearer, basic, header } = options
  if (oauth2 !== undefined) {
    return `sets Authorization: a token of ${endpointText(oauth2)} for client ${oauth2.clientId}`
  }
  if (bearer !== undefined) return 'sets Authorization: a bearer token'
  if (basic !== undefined) return `sets Authorization: user ${basic.username} and a password`
  return `sets ${header!.name}`
}

export default {
  name: 'credentials',
  keys: [credentialsKey],
  layer: credentials,
  repeats,
  explain: textOf
} satisfies MeshConcern
