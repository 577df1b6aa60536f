/** Requests about which a server has made no decision: their error, and the reasons for the access log. */
import { createError } from '@fastify/error'
import type { AuthFailure, FailureReason } from './auth-server.ts'

export const Unavailable = createError('JW_AUTH_UNAVAILABLE', 'The server for authorization is unavailable', 503)

const failures: readonly FailureReason[] = ['timeout', 'unreachable', 'malformed', 'status', 'overloaded']

/** Returns the reasons of a concern, which begin with `prefix`. */
export const undecidedReasons = (prefix: string): readonly string[] => failures.map((reason) => `${prefix}_${reason}`)

/** The error for a failed call of a concern. */
export class Undecided extends Unavailable {
  readonly reason: string

  constructor(prefix: string, { reason, cause }: AuthFailure) {
    super()
    this.reason = `${prefix}_${reason}`
    this.cause = cause
  }
}
