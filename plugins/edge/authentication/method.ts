/** A method of authentication, as a concern defines it. */
import type { FastifyReply, FastifyRequest } from 'fastify'

/** A refusal of credentials, or of a request without them. */
export interface Refusal {
  readonly error: Error
  /** For the access log. */
  readonly reason: string | null
  /** Replaces the challenge of the method. */
  readonly challenge?: string
  /** Responds in place of the error, such as by a redirect to a login. Rejects with an error for the client. */
  readonly respond?: ((reply: FastifyReply) => Promise<void>) | undefined
  /** True if the failure does not count against the address. */
  readonly isUncounted?: boolean
  /** True if the client has too many attempts at a time. */
  readonly isExcess?: boolean
}

/** Thrown by `verify` of a method that finds out only then that the request has no credentials of its kind. */
export class NoCredentials extends Error {}

/** A way to authenticate requests: `C` are credentials as they were found. */
export interface Method<C> {
  /** Value of `WWW-Authenticate` for a request without credentials. */
  readonly challenge: string
  /** True if a bearer token that no method has verified is removed, too: for methods that verify tokens in other places. */
  readonly removesBearer?: boolean
  /** Header with the credentials. Methods may share it: it is not removed if one of them has verified it. */
  readonly carrier?: string
  /** Returns whether the credentials that were verified are in the carrier. Absent: they are. */
  isInCarrier?(request: FastifyRequest): boolean
  /** True if `verify` may wait for another server. Then it must neither read the body nor change the reply. */
  readonly mayTakeLong?: true
  /** True if a request without these credentials is let in. */
  readonly isOptional?: boolean
  /** Returns the credentials of a request; null if it has none of this kind. */
  find(request: FastifyRequest): C | null
  /** Returns whether the credentials have been verified before. Then they are accepted from addresses with too many failures. */
  isKnown?(credentials: C): boolean
  /**
   * Verifies credentials and sets the consumer. Throws or rejects if they are not valid. `reply` is null for an example of
   * `explain`, which has no body.
   */
  verify(credentials: C, request: FastifyRequest, reply: FastifyReply | null): void | Promise<void>
  /** Returns the refusal for an error of `verify`; for null, the one for a request without credentials. */
  refusal(error: unknown, request: FastifyRequest): Refusal
  /** Removes the credentials from the request. `isVerified`: they were verified. */
  remove(request: FastifyRequest, isVerified: boolean): void
  /** Removes credentials that were not verified from all places but the carrier. Absent: there are no other places. */
  removeOthers?(request: FastifyRequest): void
}
