/** Names in a certificate, and the test whether it has the one that is wanted. */
import { isIP } from 'node:net'
import type { PeerCertificate } from 'node:tls'
import { checkServerIdentity } from 'node:tls'
import { alternativeNames } from '../../alternative-names.ts'
import { ConnectionError } from '../core/errors.ts'

/** Undefined when the peer is who it should be, as `checkServerIdentity` of Node wants it. */
export type Identify = (host: string, certificate: PeerCertificate) => Error | undefined

export function mismatch(service: string, wanted: readonly string[], text: string | undefined): ConnectionError {
  const names = `expected a certificate for ${wanted.join(' or ')}, found ${text ? `one for ${text}` : 'one without names'}`
  return new ConnectionError('JW_UPSTREAM_UNTRUSTED', new Error(`${service}: ${names}`))
}

/** One of these must be in the certificate, whatever the host is called. */
export function anyOf(service: string, wanted: readonly string[]): Identify {
  return (_host, certificate) => {
    const { subjectaltname } = certificate
    const names = alternativeNames(subjectaltname)
    const named = wanted.some((name) => {
      if (name.includes('://')) return names.URI?.includes(name) === true
      // Without alternative names of its kind, Node would look at the common name.
      if (names[isIP(name) === 0 ? 'DNS' : 'IP Address'] === undefined) return false
      return checkServerIdentity(name, certificate) === undefined
    })
    return named ? undefined : mismatch(service, wanted, subjectaltname)
  }
}
