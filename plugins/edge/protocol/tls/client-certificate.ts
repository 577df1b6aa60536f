import type { X509Certificate } from 'node:crypto'
import type { Socket } from 'node:net'
import type { TLSSocket } from 'node:tls'
import { oneLine } from '../../../../config/certificates.ts'
import { alternativeNames } from '../../../alternative-names.ts'
import type { ClientRule } from './client-rules.ts'

/** A client's certificate that was verified in the handshake. */
export interface ClientCertificate {
  /** `CN=alice, O=Example`. */
  readonly subject: string
  readonly issuer: string
  readonly serialNumber: string
  /** By kind, as OpenSSL names them: `DNS`, `URI`, `email`, `IP Address`. */
  readonly alternativeNames: Readonly<Record<string, readonly string[]>>
  /** SHA-256 of the certificate, in hexadecimal with colons. */
  readonly fingerprint: string
}

/** Properties of a socket: the id of the rule of its handshake, and its client's certificate in the form for requests. */
const RULE = Symbol('rule of the handshake')
const CERTIFICATE = Symbol('client certificate')

/** Parts of a TLSSocket that Node's own handshake goes by. */
interface Handshaking {
  _requestCert: boolean
  _rejectUnauthorized: boolean
  readonly _handle: { setVerifyMode?(request: boolean, reject: boolean): void } | null
}

/** A connection, or the stand-in for it that a request of HTTP/2 has. */
type Connection = Socket & Partial<Pick<TLSSocket, 'authorized' | 'getPeerX509Certificate'>>

/**
 * Makes a handshake ask for a certificate, or not, by the rule of its server name; before OpenSSL asks. Where Node lacks
 * the method, a client is not asked, and hosts that require a certificate refuse its requests.
 */
export function impose(socket: TLSSocket, { id, mode }: ClientRule): void {
  Reflect.set(socket, RULE, id)
  const own = socket as unknown as Handshaking
  const [request, reject] = [mode !== 'none', mode === 'require']
  if (own._requestCert === request && own._rejectUnauthorized === reject) return
  own._handle?.setVerifyMode?.(request, reject)
  own._requestCert = request
  own._rejectUnauthorized = reject
}

/** Notes the rule of a connection without a server name, or with a resumed session, when its handshake is over. */
export function admit(socket: TLSSocket, { id }: ClientRule): void {
  if (Reflect.get(socket, RULE) === undefined) Reflect.set(socket, RULE, id)
}

/** Returns whether a connection may bring a request for a host with this rule, and the reason if not. */
export function refusalOf(socket: Connection, { id, mode }: ClientRule): 'misdirected' | 'unverified' | null {
  if (Reflect.get(socket, RULE) !== id) return 'misdirected'
  if (mode === 'none' || socket.authorized === true) return null
  const isShown = socket.getPeerX509Certificate?.() !== undefined
  return mode === 'require' || isShown ? 'unverified' : null
}

/** Returns the verified certificate of a connection's client, or null. */
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

function shownOf({
  subject,
  issuer,
  serialNumber,
  subjectAltName,
  fingerprint256
}: X509Certificate): ClientCertificate {
  return Object.freeze({
    subject: oneLine(subject),
    issuer: oneLine(issuer),
    serialNumber,
    alternativeNames: alternativeNames(subjectAltName),
    fingerprint: fingerprint256
  })
}
