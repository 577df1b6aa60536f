/** Certificate, key and trusted roots of the gateway, from PEM to the context that connections are made with. Pure. */
import { createPrivateKey, X509Certificate } from 'node:crypto'
import type { SecureContext, SecureVersion } from 'node:tls'
import { createSecureContext } from 'node:tls'

export interface Pem {
  /** Authorities; without, Node's own. */
  readonly ca?: string | undefined
  /** Chain of the client certificate, its own first. */
  readonly cert?: string | undefined
  readonly key?: string | undefined
  readonly minVersion?: SecureVersion | undefined
}

/** Whole and immutable: a new certificate makes new credentials. */
export interface Credentials {
  readonly context: SecureContext
  /** Until when the client certificate is good, in seconds since 1970; null where there is none. */
  readonly expiresAt: number | null
  /** Time from which it is valid. */
  readonly validFrom: number | null
}

/** Something whose credentials change over time; whoever connects takes the newest. */
export interface CredentialSource {
  /** Null until there are any. */
  readonly credentials: Credentials | null
}

/** Throws in words that say which part is wrong: OpenSSL's own errors seldom do. */
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

/** An empty or cut file would otherwise be an authority that trusts nobody, and every call would fail. */
function certificatesIn(what: string, pem: string): X509Certificate[] {
  const blocks = pem.match(/-----BEGIN [^-]*CERTIFICATE-----[^-]*-----END [^-]*CERTIFICATE-----/g) ?? []
  const begun = pem.match(/-----BEGIN [^-]*CERTIFICATE-----/g) ?? []
  if (blocks.length === 0) throw new Error(`${what} holds no certificate`)
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
