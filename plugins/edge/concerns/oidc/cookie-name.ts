import { hash } from 'node:crypto'
import type { OidcOptions } from './options.ts'

/** Returns the name of a client at its provider, for keys and cookies. */
export const partyId = (issuer: string, clientId: string): string =>
  hash('sha256', JSON.stringify([issuer, clientId]), 'hex').slice(0, 32)

/** Returns the name of the session's cookie, without prefix. */
export const cookieName = ({
  issuer,
  clientId,
  session
}: Pick<OidcOptions, 'issuer' | 'clientId' | 'session'>): string =>
  session.cookie ?? `jw-${partyId(issuer, clientId).slice(0, 8)}`
