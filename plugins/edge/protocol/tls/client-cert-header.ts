/** The header fields `Client-Cert` and `Client-Cert-Chain` (RFC 9440): certificates as byte sequences (RFC 9651). */
import { X509Certificate } from 'node:crypto'
import type { IncomingMessage } from 'node:http'
import { clientCert } from '../../../../config/header-names.ts'
import { ByteLru } from '../../byte-lru.ts'
import type { ClientCertificate } from './client-certificate.ts'
import { shownOf, x509Of } from './client-certificate.ts'

/** Bound of the certificates that are kept, in bytes of their headers. */
const MOST_BYTES = 1024 * 1024
/** Longest chain that is sent on. */
const MOST_ISSUERS = 8

const field = ({ raw }: X509Certificate) => `:${raw.toString('base64')}:`

/** Returns the value of `Client-Cert`. */
export const leafField = (certificate: ClientCertificate): string => field(x509Of(certificate))

/** Returns the value of `Client-Cert-Chain`: the issuers that the client has sent, without the certificate itself; '' if none. */
export function chainField(certificate: ClientCertificate): string {
  const fields: string[] = []
  const leaf = x509Of(certificate)
  for (let each = leaf.issuerCertificate; each && fields.length < MOST_ISSUERS; each = each.issuerCertificate) {
    fields.push(field(each))
  }
  return fields.join(', ')
}

/** Reads the certificates that trusted proxies forward. */
export class ForwardedCertificates {
  readonly #known = new ByteLru<ClientCertificate>(MOST_BYTES)

  /** Returns the certificate in the header of a request; null if there is none, or several, or it cannot be read. */
  of({ headers }: IncomingMessage): ClientCertificate | null {
    const value = headers[clientCert]
    if (typeof value !== 'string') return null
    const known = this.#known.get(value)
    if (known !== undefined) return known
    const certificate = parsed(value)
    if (certificate === null) return null
    this.#known.set(value, certificate, 4 * value.length)
    return certificate
  }
}

function parsed(value: string): ClientCertificate | null {
  const [, base64] = /^:([A-Za-z0-9+/]+={0,2}):$/.exec(value) ?? []
  if (base64 === undefined) return null
  const bytes = Buffer.from(base64, 'base64')
  try {
    const certificate = new X509Certificate(bytes)
    // Node also reads PEM, and ignores bytes after the certificate.
    return certificate.raw.equals(bytes) ? shownOf(certificate) : null
  } catch {
    return null
  }
}
