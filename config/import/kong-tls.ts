/** Certificates and authorities of Kong, as files, and the listener that has them. */
import type { Draft } from './draft.ts'
import type { Foreign } from './foreign.ts'
import type { Settings } from './yaml-text.ts'

const isPem = (text: string) => text.includes('-----BEGIN')
const ended = (text: string) => `${text.trimEnd()}\n`

export class Certificates {
  readonly #draft: Draft
  readonly #certificates: ReadonlyMap<string, Foreign>
  readonly #authorities: ReadonlyMap<string, Foreign>
  /** True if the file has certificates for clients, so that there is a listener for https. */
  readonly isSecure: boolean

  constructor(root: Foreign, draft: Draft) {
    this.#draft = draft
    const byId = (key: string) => new Map(root.maps(key).map((each) => [each.text('id') ?? each.where, each]))
    this.#certificates = byId('certificates')
    this.#authorities = byId('ca_certificates')
    for (const each of this.#authorities.values()) each.skip('id', 'cert', 'cert_digest', 'tags')
    this.isSecure = this.#ofClients().length > 0
  }

  /** Returns the certificates with server names. */
  #ofClients(): Foreign[] {
    return [...this.#certificates.values()].filter((each) => {
      return each.has('snis') && isPem(each.text('cert') ?? '') && isPem(each.text('key') ?? '')
    })
  }

  #pair(certificate: Foreign, name: string): Settings {
    const [cert, key] = [certificate.text('cert') ?? '', certificate.text('key') ?? '']
    certificate.skip('id', 'tags', 'snis', 'cert_alt', 'key_alt')
    return {
      cert: isPem(cert) ? this.#draft.file(name, '-cert.pem', ended(cert)) : cert,
      key: isPem(key) ? this.#draft.file(name, '-key.pem', ended(key)) : key
    }
  }

  /** Returns `mesh.tls` of a service. */
  tlsOf(service: Foreign, name: string, settings: Settings): Settings | null {
    const note = (text: string) => this.#draft.note(settings, `${service.where}.${text}`)
    if (service.flag('tls_verify') === false)
      note('tls_verify: certificates are always verified; write mesh.tls.ca with the certificate of the service')
    const authorities = service.texts('ca_certificates').flatMap((id) => {
      const cert = this.#authorities.get(id)?.text('cert') ?? ''
      if (!isPem(cert)) note(`ca_certificates: ${id} is not in this file: write mesh.tls.ca`)
      return isPem(cert) ? [cert.trimEnd()] : []
    })
    const value = service.value('client_certificate')
    const id =
      typeof value === 'object' ? service.map('client_certificate')?.text('id') : service.text('client_certificate')
    const certificate = id === undefined ? undefined : this.#certificates.get(id)
    if (id !== undefined && certificate === undefined)
      note(`client_certificate: ${id} is not in this file: write mesh.tls.cert and mesh.tls.key`)
    const sans = service.map('tls_sans')
    const san = [...(sans?.texts('dnsnames') ?? []), ...(sans?.texts('uris') ?? [])]
    service.skip('tls_verify_depth')
    const tls = {
      ...(authorities.length > 0 && { ca: this.#draft.file(name, '-ca.pem', `${authorities.join('\n')}\n`) }),
      ...(certificate !== undefined && this.#pair(certificate, `${name}-client`)),
      ...(san.length > 0 && { san })
    }
    return Object.keys(tls).length === 0 ? null : tls
  }

  /** Writes the listeners, if the file has certificates for clients: ports 8000 and 8443, as Kong has them unless told otherwise. */
  finish(redirects: boolean): void {
    const certificates = this.#ofClients().map((each) => {
      const snis = each.value('snis')
      const first = Array.isArray(snis) ? (snis as unknown[])[0] : undefined
      const named = typeof first === 'object' && first !== null ? (first as Settings).name : first
      return this.#pair(each, String(named ?? 'site'))
    })
    if (certificates.length === 0) return
    const https: Settings = { name: 'https', port: 8443, http2: true, tls: { certificates } }
    this.#draft.listeners.push({ name: 'http', port: 8000, ...(redirects && { redirect: 'https' }) }, https)
    this.#draft.note(https, 'certificates: ports 8000 and 8443 are assumed')
  }
}
