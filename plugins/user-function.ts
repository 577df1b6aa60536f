/** Users' functions that concerns call. First the types of a function that authenticates requests. */
import type { FastifyRequest } from 'fastify'
import type { GivenConsumer } from './edge/consumers/consumer.ts'

/** An accepted request. */
export interface Accepted {
  /**
   * The caller: a consumer, or a name, which the configuration may map to a declared consumer. Null: the request is accepted
   * without a consumer.
   */
  readonly consumer: GivenConsumer | string | null
  /** Headers for the service, among those that the configuration lists. */
  readonly headers?: Readonly<Record<string, string | readonly string[]>>
  readonly refuse?: undefined
}

/** A refused request. */
export interface RefusedByFunction {
  /** Status of the response, from 400 to 499. */
  readonly refuse: number
  /** Message for the client. */
  readonly message?: string
  /** `WWW-Authenticate`, instead of that of the configuration. */
  readonly challenge?: string
  readonly consumer?: undefined
}

/** Decision of such a function; undefined and null: the request has no credentials of its kind. */
export type Authorization = Accepted | RefusedByFunction | null | undefined

export interface AuthorizerContext<O = Readonly<Record<string, unknown>>> {
  /** Options of the route, from the configuration. */
  readonly options: O
  /** Aborted after the timeout, and when the client disconnects. */
  readonly signal: AbortSignal
}

export type Authorizer<O = Readonly<Record<string, unknown>>> = (
  request: FastifyRequest,
  context: AuthorizerContext<O>
) => Authorization | Promise<Authorization>

/**
 * A user's function whose errors, also those in its timers, sockets and listeners of the signal, reject the call. Its result is
 * not checked.
 */
export type GuardedFunction = (request: FastifyRequest, context: AuthorizerContext) => Promise<unknown>

declare module 'fastify' {
  interface FastifyInstance {
    /** Users' functions that concerns call, by the path of their module; absent if the configuration has none. */
    userFunctions?: ReadonlyMap<string, GuardedFunction>
  }
}
