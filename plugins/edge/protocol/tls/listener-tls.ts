/**
 * TLS of one listener: selects the certificate and the rule for client certificates of each handshake. It lives as long as
 * the listener, longer than a configuration: `prepare` takes new options, and changed files are read again. Open connections
 * are not affected.
 */
import { constants } from 'node:crypto'
import type { Socket } from 'node:net'
import type { SecureContext, SecureContextOptions, Server, TlsOptions as ServerOptions, TLSSocket } from 'node:tls'
import { isDeepStrictEqual } from 'node:util'
import type { CertificateFacts } from '../../../../config/certificates.ts'
import { certificateWarning } from '../../../../config/certificates.ts'
import { hostKey, writtenHostKey } from '../../../../config/host-name.ts'
import type { TlsOptions } from '../../../../config/schema/tls.ts'
import { ServerNames } from '../../../../config/server-names.ts'
import { atOnce, inSlices } from '../../../time-slices.ts'
import type { Certificate, CertificateEntry } from './certificate.ts'
import { CertificateFiles } from './certificate-files.ts'
import { cacheAddress } from './client-address.ts'
import { applyRule, recordRule } from './client-certificate.ts'
import type { HostRule } from './client-rules.ts'
import { ClientRules } from './client-rules.ts'
import { reportFailedHandshake, UNKNOWN_NAME } from './failed-handshakes.ts'

/** A certificate as the admin port and the metrics show it. */
export interface CertificateStatus {
  readonly listener: string
  /** Path of the certificate's file. */
  readonly certificate: string
  readonly isDefault: boolean
  /** `clients`: authorities that sign client certificates; the facts are those of the one that expires first. */
  readonly use: 'server' | 'clients'
  /** Facts about the certificate; null if no content of the file was usable yet. */
  readonly facts: CertificateFacts | null
  /** Reason why the newest content of the files is not in use; null if it is. */
  readonly error: string | null
  /** Hosts that use it, with their mode for client certificates; empty if the listener asks for none. */
  readonly clientCertificates: readonly HostRule[]
}

export interface TlsEvents {
  readonly log: Record<'info' | 'warn' | 'error', (fields: object, message: string) => void>
  readonly reloaded: (outcome: 'success' | 'failure') => void
}

type SniCallback = (this: TLSSocket, name: string, done: (error: Error | null, context?: SecureContext) => void) => void

/** Certificates and rules for handshakes, from one state of configuration and files. Immutable. */
interface Choice {
  readonly names: ServerNames<Certificate>
  readonly fallback: Certificate
  readonly rules: ClientRules
  readonly strict: boolean
}

export class ListenerTls {
  readonly name: string
  #options: TlsOptions
  #files: CertificateFiles
  #choice: Choice
  readonly #servers = new Set<Server>()
  #events: TlsEvents | null = null
  readonly #detach = new WeakMap<Server, () => void>()

  /** Throws if the configuration cannot be served; see `CertificateFiles`. */
  constructor(name: string, options: TlsOptions) {
    this.name = name
    this.#options = options
    this.#files = atOnce(CertificateFiles.read(options))
    this.#choice = choose(options, this.#files)
  }

  /** Rules for client certificates in force. */
  get rules(): ClientRules {
    return this.#choice.rules
  }

  /** Returns options for the constructor of a server, which must then be attached. */
  serverOptions(): ServerOptions {
    const current = () => this.#choice
    const select: SniCallback = function (name, done) {
      const { names, fallback, rules, strict } = current()
      const key = hostKey(name)
      const found = names.find(key)
      const rule = rules.of(key)
      applyRule(this, rule)
      // Without a context, the server's own is used, which has no certificate then: OpenSSL ends the handshake with an alert.
      if (found === undefined && strict) Reflect.set(this, UNKNOWN_NAME, true)
      done(null, found === undefined && strict ? undefined : (found ?? fallback).contextFor(rule))
    }
    return { ...this.#context(), ...this.#clients(), SNICallback: select as ServerOptions['SNICallback'] }
  }

  /** Keeps a server's certificates current until `detach`, and reports handshakes that fail. */
  attach(server: Server, events: TlsEvents): void {
    this.#events = events
    if (this.#servers.size === 0) {
      this.#watch()
      for (const entry of this.#files.entries) this.#report(entry)
    }
    this.#servers.add(server)
    const arrived = (raw: Socket) => {
      if (this.rules.ask) cacheAddress(raw)
    }
    const admitted = (socket: TLSSocket) => recordRule(socket, this.rules.fallback)
    const failed = (error: NodeJS.ErrnoException, socket: TLSSocket) =>
      reportFailedHandshake(server, error, socket, this.#choice.strict)
    // Before Node's listeners, which start HTTP or close the connection.
    server.prependListener('secureConnection', admitted).prependListener('tlsClientError', failed)
    server.prependListener('connection', arrived)
    this.#detach.set(server, () => {
      server.off('secureConnection', admitted).off('tlsClientError', failed).off('connection', arrived)
    })
    this.#apply(server)
  }

  /** Detaches a server. After the last one, the files are not watched any more. */
  detach(server: Server): void {
    if (!this.#servers.delete(server)) return
    this.#detach.get(server)?.()
    if (this.#servers.size > 0) return
    this.#files.unwatch()
  }

  /**
   * Reads the files of new options. Returns a function that applies them to later handshakes. Rejects if they are unusable.
   */
  async prepare(options: TlsOptions): Promise<() => void> {
    if (isDeepStrictEqual(options, this.#options)) return () => {}
    const files = await inSlices(CertificateFiles.read(options))
    const choice = choose(options, files)
    return () => {
      this.#files.unwatch()
      this.#options = options
      this.#files = files
      this.#choice = choice
      if (this.#servers.size > 0) this.#watch()
      for (const server of this.#servers) this.#apply(server)
    }
  }

  /** Returns whether a certificate has the name of a host; a port is ignored. */
  covers(host: string): boolean {
    return this.#choice.names.find(hostKey(host)) !== undefined
  }

  /** Returns the certificates, including unusable ones, and the authorities of clients. */
  status(): CertificateStatus[] {
    const { fallback, strict, rules, names } = this.#choice
    const hostsOf = ({ facts }: Certificate, isDefault: boolean) => [
      ...facts.names,
      ...(isDefault ? rules.hosts.filter((host) => names.find(host) === undefined) : [])
    ]
    const certificates: CertificateStatus[] = this.#files.entries.map(({ files, certificate, error }) => ({
      listener: this.name,
      certificate: files.cert,
      isDefault: !strict && certificate === fallback,
      use: 'server',
      facts: certificate?.facts ?? null,
      error,
      // A getter, since metrics are collected more often and do not need it.
      get clientCertificates() {
        return certificate === null ? [] : rules.among(hostsOf(certificate, this.isDefault))
      }
    }))
    const authorities = this.#files.authorities.map(({ path, facts, error }): CertificateStatus => {
      const shown = { certificate: path, isDefault: false, use: 'clients' } as const
      return { listener: this.name, ...shown, facts, error, clientCertificates: [] }
    })
    return [...certificates, ...authorities]
  }

  /** Returns the context for clients without a server name; with `strict` it has no certificate. */
  #context(): SecureContextOptions {
    const { minVersion, maxVersion, ciphers } = this.#options
    const { fallback, rules, strict } = this.#choice
    const { cert, key } = fallback.pair
    const { ca } = rules.fallback
    const has13 = ciphers.some((name) => name.startsWith('TLS_'))
    return {
      ...(!strict && { cert, key }),
      ...(ca !== null && { ca }),
      minVersion,
      maxVersion,
      // Without any TLS 1.3 cipher, Node would disable TLS 1.3.
      ciphers: [...(has13 ? [] : TLS13_CIPHERS), ...ciphers].join(':'),
      honorCipherOrder: false,
      // After a renegotiation, the client could have another certificate than the verified one. A resumed session does not
      // call SNICallback, and would carry a certificate that was verified for another host.
      secureOptions: constants.SSL_OP_NO_RENEGOTIATION | (rules.differ ? constants.SSL_OP_NO_TICKET : 0)
    }
  }

  #clients(): { requestCert: boolean; rejectUnauthorized: boolean } {
    const { mode } = this.#choice.rules.fallback
    return { requestCert: mode !== 'none', rejectUnauthorized: mode === 'require' }
  }

  /** Applies the context to a server. Sessions of the previous context are not resumed. */
  #apply(server: Server): void {
    server.setSecureContext(this.#context())
    Object.assign(server, this.#clients())
  }

  #watch(): void {
    this.#files.watch({
      apply: () => this.#update(),
      loaded: (entry) => {
        this.#report(entry)
        const { names, notAfter } = entry.certificate!.facts
        const expires = new Date(notAfter * 1000).toISOString()
        this.#events!.log.info(
          { ...this.#fields(entry), names: names.slice(0, SHOWN_NAMES), expires },
          'certificate loaded; new connections use it'
        )
        this.#events!.reloaded('success')
      },
      authoritiesLoaded: ({ path, facts: { notAfter } }) => {
        const expires = new Date(notAfter * 1000).toISOString()
        const message = 'authorities of client certificates loaded; new connections use them'
        this.#events!.log.info({ listener: this.name, path, expires }, message)
        this.#events!.reloaded('success')
      },
      unusable: (entry) => {
        this.#report(entry)
        this.#events!.reloaded('failure')
      },
      removed: (entry) => {
        if (entry.certificate === null) return
        this.#events!.log.info(
          this.#fields(entry),
          'certificate removed because its file was deleted; new connections no longer use it'
        )
      },
      failed: (path, reason) => {
        this.#events!.log.error(
          { listener: this.name, path, reason },
          `cannot read ${path}: its previous content stays in use`
        )
        this.#events!.reloaded('failure')
      }
    })
  }

  /** Uses the current content of the files, unless no certificate would be left. */
  #update(): void {
    const before = this.#choice
    try {
      this.#choice = choose(this.#options, this.#files)
    } catch (error) {
      const reason = (error as Error).message
      this.#events!.log.error(
        { listener: this.name, reason },
        'no usable certificate is left: the previous ones stay in use'
      )
      this.#events!.reloaded('failure')
      return
    }
    const { fallback, rules } = this.#choice
    if (fallback === before.fallback && rules.fallback.ca === before.rules.fallback.ca) return
    for (const server of this.#servers) this.#apply(server)
  }

  #fields({ files }: CertificateEntry): object {
    return { listener: this.name, certificate: files.cert, key: files.key }
  }

  /** Logs the problem of a certificate, if it has one. */
  #report(entry: CertificateEntry): void {
    const { error: reason, certificate } = entry
    const fields = this.#fields(entry)
    if (reason !== null) {
      const consequence = certificate === null ? 'it is not served' : 'the previous one stays in use'
      this.#events!.log.error({ ...fields, reason }, `certificate cannot be used: ${consequence}`)
      return
    }
    const doubt = certificate && certificateWarning(certificate.facts, Date.now())
    if (doubt) this.#events!.log.warn({ ...fields, reason: doubt }, 'certificate is in use despite a problem')
  }
}

/** Number of names of a certificate in a log line. */
const SHOWN_NAMES = 10

const TLS13_CIPHERS = ['TLS_AES_128_GCM_SHA256', 'TLS_AES_256_GCM_SHA384', 'TLS_CHACHA20_POLY1305_SHA256']

/** Returns the certificates and rules for handshakes. Throws if there is no usable certificate. */
function choose(options: TlsOptions, files: CertificateFiles): Choice {
  const usable = files.entries.flatMap(({ certificate }) => certificate ?? [])
  const names = new ServerNames<Certificate>()
  const expiresLater = (one: Certificate, than: Certificate) => one.facts.notAfter > than.facts.notAfter
  for (const certificate of usable) names.add(certificate.facts.names, certificate, expiresLater)
  const named = options.default === undefined ? undefined : names.find(writtenHostKey(options.default) ?? '')
  const fallback = named ?? usable[0]
  if (fallback === undefined) throw new Error('listen.tls: no usable certificate')
  const rules = new ClientRules(options, (file) => files.authority(file))
  return { names, fallback, rules, strict: options.strict }
}
