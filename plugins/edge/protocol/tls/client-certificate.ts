import type { X509Certificate } from 'node:crypto'
import type { Socket } from 'node:net'
import type { TLSSocket } from 'node:tls'
import { oneLine } from '../../../../config/certificates.ts'
import { alternativeNames } from '../../../alternative-names.ts'
import type { ClientRule } from './client-rules.ts'

/** A client certificate that was verified in the handshake, or by a trusted proxy that forwards it. */
export interface ClientCertificate {
  /** For example `CN=alice, O=Example`. */
  readonly subject: string
  readonly issuer: string
  readonly serialNumber: string
  /** Names by kind, as OpenSSL calls them: `DNS`, `URI`, `email`, `IP Address`. */
  readonly alternativeNames: Readonly<Record<string, readonly string[]>>
  /** SHA-256 of the certificate, in hexadecimal with colons. */
  readonly fingerprint: string
}

/** Properties of a socket: the id of its handshake's rule, and the client certificate for requests. */
const RULE = Symbol('rule of the handshake')
const CERTIFICATE = Symbol('client certificate')

/** Fields of a TLSSocket that Node's handshake uses. */
interface Handshaking {
  _requestCert: boolean
  _rejectUnauthorized: boolean
  readonly _handle: { setVerifyMode?(request: boolean, reject: boolean): void } | null
}

/** A connection, or the proxy object that an HTTP/2 request has for it. */
type Connection = Socket & Partial<Pick<TLSSocket, 'authorized' | 'getPeerX509Certificate'>>

/**
 * Sets whether a handshake asks for a certificate, by the rule of its server name. If Node lacks `setVerifyMode`, the client
 * is not asked, and hosts that require a certificate refuse its requests.
 */
export function applyRule(socket: TLSSocket, { id, mode }: ClientRule): void {
  Reflect.set(socket, RULE, id)
  const own = socket as unknown as Handshaking
  const [request, reject] = [mode !== 'none', mode === 'require']
  if (own._requestCert === request && own._rejectUnauthorized === reject) return
  own._handle?.setVerifyMode?.(request, reject)
  own._requestCert = request
  own._rejectUnauthorized = reject
}

/** Records the rule of a connection without a server name, or with a resumed session, after its handshake. */
export function recordRule(socket: TLSSocket, { id }: ClientRule): void {
  if (Reflect.get(socket, RULE) === undefined) Reflect.set(socket, RULE, id)
}

/** Returns the reason to refuse a request for a host with this rule on a connection; null if it is allowed. */
export function refusalOf(socket: Connection, { id, mode }: ClientRule): 'misdirected' | 'unverified' | null {
  if (Reflect.get(socket, RULE) !== id) return 'misdirected'
  if (mode === 'none' || socket.authorized === true) return null
  const isShown = socket.getPeerX509Certificate?.() !== undefined
  return mode === 'require' || isShown ? 'unverified' : null
}

/** Returns the verified client certificate of a connection; null if there is none. */
export function clientCertificateOf(socket: Connection): ClientCertificate | null {
  if (socket.authorized !== true) return null
  const known: ClientCertificate | undefined = Reflect.get(socket, CERTIFICATE)
  if (known !== undefined) return known
  const certificate = socket.getPeerX509Certificate?.()
  if (certificate === undefined) return null
  const shown = shownOf(certificate)
  Reflect.set(socket, CERTIFICATE, shown)
  return shown
}

const sources = new WeakMap<ClientCertificate, X509Certificate>()

/** Returns the certificate itself. */
export const x509Of = (certificate: ClientCertificate): X509Certificate => sources.get(certificate)!

/** Returns a certificate as requests show it. */
export function shownOf(certificate: X509Certificate): ClientCertificate {
  const { subject, issuer, serialNumber, subjectAltName, fingerprint256 } = certificate
  const shown = Object.freeze({
    subject: oneLine(subject),
    issuer: oneLine(issuer),
    serialNumber,
    alternativeNames: alternativeNames(subjectAltName),
    fingerprint: fingerprint256
  })
  sources.set(shown, certificate)
  return shown
}
