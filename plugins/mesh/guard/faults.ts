import type { Caller } from '../../seam.ts'
import { isMadeToRespond } from '../../thrown.ts'
import { InterceptorFailed } from '../core/errors.ts'
import type { FaultOwners, Logger } from '../core/types.ts'

/** A plugin's interceptor in one chain. */
export interface Guard {
  readonly name: string
  /** Name of the plugin that added the interceptor; null if unknown. */
  readonly plugin: string | null
  readonly per: 'request' | 'attempt'
  readonly service: string
  /** Longest time in milliseconds for which the interceptor may hold a call without continuing it. */
  readonly holdMs: number
  readonly log: Logger
  readonly owners: FaultOwners | null
}

/** Distinguishes errors of an interceptor in one call from errors of other layers that it passes on. */
export class Faults {
  readonly #guard: Guard
  readonly #caller: Caller | undefined
  /** Errors of other layers. */
  #foreign: Set<Error> | null = null
  /** Errors of the interceptor, and the callback that threw them. */
  #own: Map<Error, string> | null = null
  #logged = false

  constructor(guard: Guard, caller: Caller | undefined) {
    this.#guard = guard
    this.#caller = caller
  }

  /** Records an error of another layer. */
  foreign(error: Error): void {
    if (this.#own?.has(error)) return
    this.#foreign ??= new Set()
    this.#foreign.add(error)
  }

  /** Records an error of the interceptor, which its handler may still handle. */
  own(error: Error, where: string): void {
    if (this.#foreign?.has(error) || this.#own?.has(error)) return
    this.#own ??= new Map()
    this.#own.set(error, where)
  }

  /** Returns the name of the callback that threw the error. */
  originOf(error: Error): string | undefined {
    return this.#own?.get(error)
  }

  /**
   * Returns the error for the layer above, and logs it if it is a fault. An error with a `statusCode` is a response
   * that the interceptor chose, as in Fastify; it is a fault only if it is a 5xx and was not created to be a response.
   */
  passOn(error: Error, where: string): Error {
    if (this.#foreign?.has(error)) return error
    const failure = error instanceof InterceptorFailed ? error : new InterceptorFailed(this.#guard, where, error)
    const { statusCode } = error as { statusCode?: unknown }
    const chosen = typeof statusCode === 'number' && statusCode >= 400 && statusCode <= 599
    if (!chosen || (statusCode >= 500 && !isMadeToRespond(error))) this.#log(failure)
    return chosen ? error : failure
  }

  /** Logs the first fault of a call. */
  #log(failure: InterceptorFailed): void {
    if (this.#logged) return
    this.#logged = true
    const requestId = this.#caller?.id
    const fields = { ...failure.fields, ...(requestId !== undefined && { requestId }), err: failure.cause }
    this.#guard.log.error(fields, failure.message)
  }
}
