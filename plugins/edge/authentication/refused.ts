/** Errors of methods of authentication, and of rules that need a caller. */
import type { FastifyErrorConstructor } from '@fastify/error'
import { createError } from '@fastify/error'

export const CredentialsMissing = createError('JW_CREDENTIALS_MISSING', 'Credentials are required', 401)

/** Returns the class of errors for refused credentials: those of `Invalid`, with their reason for the access log. */
export function refusedAs<Reason extends string>(Invalid: FastifyErrorConstructor) {
  return class extends Invalid {
    readonly reason: Reason

    constructor(reason: Reason) {
      super()
      this.reason = reason
    }
  }
}
