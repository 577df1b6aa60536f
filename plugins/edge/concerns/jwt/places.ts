/** Finds the token of a request in the places of `edge.jwt.from`, and removes it from the request to the service. */
import type { FastifyRequest } from 'fastify'
import {
  cookieValues,
  hasSeveralAuthorizations,
  headerValues,
  queryValues,
  removeCookie,
  removeHeader,
  removeQuery
} from '../../authentication/credentials.ts'
import type { JwtOptions } from './options.ts'
import { TokenInvalid } from './reasons.ts'

/** A token as it was found, or the reason to refuse the request. */
export type Found = string | TokenInvalid

const isAuthorization = (header: string) => header.toLowerCase() === 'authorization'

/** Returns whether tokens may be in `Authorization`. */
export const readsAuthorization = ({ header }: JwtOptions['from']): boolean =>
  header !== false && isAuthorization(header)

/** Returns the scheme without which a request has no token; null if its token may be in another place, or is optional. */
export function requiredScheme({ from, optional }: JwtOptions): string | null {
  const isElsewhere = !readsAuthorization(from) || from.query !== undefined || from.cookie !== undefined
  return isElsewhere || optional ? null : 'Bearer'
}

export class Places {
  /** `authorization`, if tokens may be there: other methods may use it, too. */
  readonly carrier: 'authorization' | undefined
  /** Header with the token, if it is not `Authorization`. */
  readonly #header: string | undefined
  readonly #query: string | undefined
  readonly #cookie: string | undefined
  readonly #hides: boolean | undefined
  /** True if tokens may only be in `Authorization`. */
  readonly #isUsual: boolean

  constructor({ from, hideCredentials }: Pick<JwtOptions, 'from' | 'hideCredentials'>) {
    const { header, query, cookie } = from
    this.carrier = readsAuthorization(from) ? 'authorization' : undefined
    this.#header = header === false || this.carrier !== undefined ? undefined : header
    this.#query = query
    this.#cookie = cookie
    this.#hides = hideCredentials
    this.#isUsual = this.carrier !== undefined && query === undefined && cookie === undefined
  }

  /** Returns the token of a request; null if it has none. */
  find(request: FastifyRequest): Found | null {
    const bearer = this.carrier === undefined ? null : bearerToken(request)
    if (this.#isUsual) return bearer
    if (typeof bearer === 'object' && bearer !== null) return bearer
    const others = [
      ...(this.#header === undefined ? [] : headerValues(request, this.#header).map(withoutScheme)),
      ...(this.#query === undefined ? [] : queryValues(request, this.#query)),
      ...(this.#cookie === undefined ? [] : cookieValues(request, this.#cookie))
    ].filter((text) => text !== '') // An empty cookie is one that was cleared.
    // With several tokens, gateway and service could use different ones.
    if (others.length + (bearer === null ? 0 : 1) > 1) return new TokenInvalid('jwt_repeated')
    return bearer ?? others[0] ?? null
  }

  /** Returns whether the token of a request is in `Authorization`. */
  isInCarrier({ headers: { authorization } }: FastifyRequest): boolean {
    return this.#isUsual || (authorization !== undefined && isBearer(authorization))
  }

  remove(request: FastifyRequest, isVerified: boolean): void {
    if (this.#isUsual && isVerified && this.#hides !== true) return
    if (this.carrier !== undefined && (this.#hides === true || !isVerified)) removeHeader(request, this.carrier)
    if (this.#hides !== false || !isVerified) this.removeOthers(request)
  }

  /** Removes tokens from all places but `Authorization`. */
  removeOthers(request: FastifyRequest): void {
    if (this.#header !== undefined) removeHeader(request, this.#header)
    if (this.#query !== undefined) removeQuery(request, this.#query)
    if (this.#cookie !== undefined) removeCookie(request, this.#cookie)
  }
}

const isBearer = (value: string) => /^bearer /i.test(value)

/** Returns the text after `Bearer` and any number of spaces (RFC 6750, 2.1). */
function afterScheme(value: string): string {
  let at = 'Bearer '.length
  while (value.charCodeAt(at) === 32) at++
  return value.slice(at)
}

const withoutScheme = (value: string) => (isBearer(value) ? afterScheme(value) : value)

/** Returns the token in `Authorization`; null if there is none. */
function bearerToken(request: FastifyRequest): Found | null {
  const { authorization } = request.headers
  if (authorization === undefined) return null
  // Node shows the first field only; the token may be in another one.
  if (hasSeveralAuthorizations(request)) return new TokenInvalid('jwt_repeated')
  return isBearer(authorization) ? afterScheme(authorization) : null
}
