/** Verification of the names in a certificate. */
import { isIP } from 'node:net'
import type { PeerCertificate } from 'node:tls'
import { checkServerIdentity } from 'node:tls'
import { alternativeNames } from '../../alternative-names.ts'
import { ConnectionError } from '../core/errors.ts'

/** Verifies a certificate as Node's `checkServerIdentity` does: returns undefined if it is valid, else an error. */
export type Identify = (host: string, certificate: PeerCertificate) => Error | undefined

export function mismatch(service: string, wanted: readonly string[], text: string | undefined): ConnectionError {
  const names = `expected a certificate for ${wanted.join(' or ')}, found ${text ? `one for ${text}` : 'one without names'}`
  return new ConnectionError('JW_UPSTREAM_UNTRUSTED', new Error(`${service}: ${names}`))
}

/** Returns a verification by these names, one of which must be in the certificate, instead of the host name. */
export function anyOf(service: string, wanted: readonly string[]): Identify {
  return (_host, certificate) => {
    const { subjectaltname } = certificate
    const names = alternativeNames(subjectaltname)
    const named = wanted.some((name) => {
      if (name.includes('://')) return names.URI?.includes(name) === true
      // Without alternative names of this kind, Node would use the common name.
      if (names[isIP(name) === 0 ? 'DNS' : 'IP Address'] === undefined) return false
      return checkServerIdentity(name, certificate) === undefined
    })
    return named ? undefined : mismatch(service, wanted, subjectaltname)
  }
}
