/** Pure conversion of PEM (certificate, key and trusted authorities) to the TLS context of connections. */
import { createPrivateKey, X509Certificate } from 'node:crypto'
import type { SecureContext, SecureVersion } from 'node:tls'
import { createSecureContext } from 'node:tls'

export interface Pem {
  /** Trusted authorities; default: Node's own. */
  readonly ca?: string | undefined
  /** Chain of the client certificate, which comes first. */
  readonly cert?: string | undefined
  readonly key?: string | undefined
  readonly minVersion?: SecureVersion | undefined
}

/** Immutable credentials; a new certificate makes new ones. */
export interface Credentials {
  readonly context: SecureContext
  /** Time at which the client certificate expires, in seconds since 1970; null without one. */
  readonly expiresAt: number | null
  /** Time from which the client certificate is valid, in seconds since 1970. */
  readonly validFrom: number | null
}

/** Source of credentials that change over time; new connections use the newest. */
export interface CredentialSource {
  /** Newest credentials; null before the first. */
  readonly credentials: Credentials | null
}

/** Builds credentials; its errors name the faulty part, which OpenSSL's own rarely do. */
export function credentialsOf({ ca, cert, key, minVersion = 'TLSv1.2' }: Pem): Credentials {
  if (ca !== undefined) certificatesIn('ca', ca)
  let expiresAt: number | null = null
  let validFrom: number | null = null
  if (cert !== undefined || key !== undefined) {
    if (cert === undefined || key === undefined) throw new Error('a client certificate needs both cert and key')
    const own = certificatesIn('cert', cert)[0]!
    if (!own.checkPrivateKey(privateKey(key))) throw new Error('the key does not belong to the certificate')
    expiresAt = Date.parse(own.validTo) / 1000
    validFrom = Date.parse(own.validFrom) / 1000
  }
  return { context: createSecureContext({ ca, cert, key, minVersion }), expiresAt, validFrom }
}

/** Parses certificates strictly: an empty or truncated `ca` would trust no certificate, and every call would fail. */
function certificatesIn(what: string, pem: string): X509Certificate[] {
  const blocks = pem.match(/-----BEGIN [^-]*CERTIFICATE-----[^-]*-----END [^-]*CERTIFICATE-----/g) ?? []
  const begun = pem.match(/-----BEGIN [^-]*CERTIFICATE-----/g) ?? []
  if (blocks.length === 0) throw new Error(`${what} contains no certificate`)
  if (blocks.length < begun.length) throw new Error(`${what} ends in the middle of a certificate`)
  try {
    return blocks.map((block) => new X509Certificate(block))
  } catch (error) {
    throw new Error(`${what} holds a malformed certificate: ${(error as Error).message}`)
  }
}

function privateKey(pem: string) {
  try {
    return createPrivateKey(pem)
  } catch (error) {
    throw new Error(`the key cannot be read: ${(error as Error).message}`)
  }
}
