import { isIP } from 'node:net'
import type { CertificateStatus } from './listener-tls.ts'

/**
 * Returns curl's arguments, up to the path, for a request to a TLS listener by a name of a certificate; null if all names
 * require a client certificate. A name is needed since an address is no server name. `-k` skips verification, which a
 * certificate of a private authority would fail.
 */
export function curlByName(url: string, certificates: readonly CertificateStatus[]): string | null {
  const { hostname, port } = new URL(url)
  const named = certificates.flatMap(({ facts, use, clientCertificates }) => {
    const closed = clientCertificates.filter(({ mode }) => mode === 'require').map(({ host }) => host)
    return use === 'server' ? (facts?.names ?? []).map((name) => ({ name, isOpen: !closed.includes(name) })) : []
  })
  const open = named.find(({ name, isOpen }) => isOpen && isIP(name.replace(/[[\]]/g, '')) === 0)
  if (open === undefined) return named.length > 0 && named.every(({ isOpen }) => !isOpen) ? null : `-k ${url}`
  const name = open.name.replace(/^\*/, 'www')
  const at = port || '443'
  return `-k --resolve ${name}:${at}:${hostname} https://${name}:${at}`
}
