import type { IncomingMessage, Server } from 'node:http'
import type { Server as TlsServer } from 'node:tls'
import createError from '@fastify/error'
import fp from 'fastify-plugin'
import { clientCert } from '../../../../config/header-names.ts'
import type { TlsOptions } from '../../../../config/schema/tls.ts'
import type { Config } from '../../../../config/schema.ts'
import { listenerNameOf, listeningOf } from '../../../listener-of.ts'
import { meterOf } from '../../concern.ts'
import { Peers } from '../peers.ts'
import { ForwardedCertificates } from './client-cert-header.ts'
import type { ClientCertificate } from './client-certificate.ts'
import { clientCertificateOf, refusalOf } from './client-certificate.ts'
import { asksForCertificates, believesHeader } from './client-rules.ts'
import { verificationError } from './failed-handshakes.ts'
import type { CertificateStatus, TlsEvents } from './listener-tls.ts'
import { ListenerTls } from './listener-tls.ts'

const Misdirected = createError(
  'JW_MISDIRECTED',
  'This connection cannot be used for the host: its rules for client certificates differ',
  421
)
const Unverified = createError('JW_CLIENT_CERTIFICATE', 'The client certificate is missing or cannot be verified', 400)

declare module 'fastify' {
  interface FastifyInstance {
    /** Returns the certificates of the listeners, for the admin port; empty without TLS. */
    certificates: () => readonly CertificateStatus[]
    /** Returns whether a listener has a certificate for a host. */
    hasCertificate: (host: string) => boolean
  }
  interface FastifyRequest {
    /** The verified client certificate; null if there is none. */
    readonly clientCertificate: ClientCertificate | null
  }
}

/** Instances by the options from which a server is made. */
const made = new WeakMap<TlsOptions, ListenerTls>()

/** Returns the TLS of a listener. Throws if its files are unusable. */
export function listenerTlsOf(name: string, options: TlsOptions): ListenerTls {
  const tls = made.get(options) ?? new ListenerTls(name, options)
  made.set(options, tls)
  return tls
}

/** Property of a server with its `ListenerTls`. An embedding server has none. */
const TLS = Symbol('jingwei.tls')

const RELOADED = 'jingwei.certificates'

interface Certificates {
  /** Returns a function that applies new options. Rejects, and changes nothing, if they are unusable. */
  prepare(options: TlsOptions | undefined): Promise<() => void>
  close(): void
}

/** Keeps the certificates of a server up to date. */
export function keepCertificates(
  server: Server,
  { tls: options }: Config['listen'],
  log: TlsEvents['log']
): Certificates {
  const tls = options && made.get(options)
  if (tls === undefined) return { prepare: async () => () => {}, close: () => {} }
  const tlsServer = server as unknown as TlsServer
  Reflect.set(server, TLS, tls)
  tls.attach(tlsServer, { log, reloaded: (outcome) => server.emit(RELOADED, outcome, tls.name) })
  return {
    prepare: async (changed) => (changed === undefined ? () => {} : await tls.prepare(changed)),
    close: () => tls.detach(tlsServer)
  }
}

/** Returns the reason to refuse a request by the rules for client certificates; null if it is allowed. */
export function refusalOn(server: Server, request: IncomingMessage): ReturnType<typeof refusalOf> {
  const { headers, socket } = request
  const all = listeningOf(server)
  const name = listenerNameOf(request)
  const listener = all.length === 1 ? all[0] : all.find((each) => each.name === name)
  const tls: ListenerTls | undefined = listener && Reflect.get(listener.server, TLS)
  if (tls === undefined || !tls.rules.ask) return null
  const host = (headers[':authority'] as string | undefined) ?? headers.host ?? ''
  return refusalOf(socket, tls.rules.of(host))
}

/** Exposes the certificates, their metrics and `request.clientCertificate`, and enforces the rules for client certificates. */
export default fp<Config>(
  async (fastify, config) => {
    const peers = config.listeners.some(believesHeader) ? new Peers(config) : null
    const forwarded = new ForwardedCertificates()
    fastify.decorateRequest('clientCertificate', {
      getter() {
        // Of such a proxy, the certificate of the connection would be the proxy's own.
        const isForwarded = peers?.trustedHeadersOf(this.raw)?.names.has(clientCert)
        return isForwarded ? forwarded.of(this.raw) : clientCertificateOf(this.raw.socket)
      }
    })
    const served = listeningOf(fastify.server).flatMap(
      ({ server }) => (Reflect.get(server, TLS) as ListenerTls | undefined) ?? []
    )
    fastify.decorate('certificates', () => served.flatMap((tls) => tls.status()))
    fastify.decorate('hasCertificate', (host) => served.some((tls) => tls.covers(host)))
    if (served.length === 0) return
    const meter = meterOf(fastify)
    const reloads = meter.counter({
      name: 'jingwei_edge_certificate_reloads_total',
      help: 'Reloads of changed certificate files, by listener and outcome.',
      labelNames: ['listener', 'outcome']
    })
    for (const { name } of served) for (const outcome of ['success', 'failure']) reloads.labels(name, outcome).inc(0)
    fastify.server.on(RELOADED, (outcome, name) => reloads.labels(name, outcome).inc())
    const labelNames = ['listener', 'certificate']
    const times = [
      ['jingwei_edge_certificate_expiry_timestamp_seconds', 'Time until which the certificate is valid.', 'notAfter'],
      [
        'jingwei_edge_certificate_not_before_timestamp_seconds',
        'Time from which the certificate is valid.',
        'notBefore'
      ]
    ] as const
    const ends = times.map(([name, help, time]) =>
      meter.gauge({
        name,
        help,
        labelNames,
        collect: (set) => {
          for (const { listener, certificate, facts } of fastify.certificates()) {
            if (facts !== null) set({ listener, certificate }, facts[time])
          }
        }
      })
    )
    ends.push(
      meter.gauge({
        name: 'jingwei_edge_certificates_unusable',
        help: 'Certificates and client authority files whose newest content cannot be used; the previous content stays in use.',
        labelNames: ['listener'],
        collect: (set) => {
          for (const tls of served) {
            set({ listener: tls.name }, tls.status().filter(({ error }) => error !== null).length)
          }
        }
      })
    )
    fastify.addHook('onClose', async () => {
      for (const end of ends) end()
    })
    // Decided by this configuration, which may not be in use yet.
    if (!asksForCertificates({}, config.listeners)) return
    fastify.addHook('onRequest', (request, _reply, done) => {
      const refusal = refusalOn(fastify.server, request.raw)
      if (refusal === null) return done()
      if (refusal === 'misdirected') return done(new Misdirected())
      request.failureCause = verificationError(request.raw.socket)
      done(new Unverified())
    })
  },
  { name: 'jingwei-tls', fastify: '5.x' }
)
