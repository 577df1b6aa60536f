import type { Server } from 'node:http'
import type { Server as TlsServer } from 'node:tls'
import createError from '@fastify/error'
import fp from 'fastify-plugin'
import type { TlsOptions } from '../../../../config/schema/tls.ts'
import type { Config } from '../../../../config/schema.ts'
import { meterOf } from '../../concern.ts'
import type { ClientCertificate } from './client-certificate.ts'
import { clientCertificateOf, refusalOf } from './client-certificate.ts'
import type { CertificateStatus, TlsEvents } from './listener-tls.ts'
import { ListenerTls } from './listener-tls.ts'

const Misdirected = createError(
  'JW_MISDIRECTED',
  'The connection was made for a host with other rules for client certificates',
  421
)
const Unverified = createError('JW_CLIENT_CERTIFICATE', 'The client certificate is missing or cannot be verified', 400)

declare module 'fastify' {
  interface FastifyInstance {
    /** The certificates of the listener, for the admin port; none without TLS. */
    certificates: () => readonly CertificateStatus[]
  }
  interface FastifyRequest {
    /** The client's certificate, if it has shown one and that was verified; null otherwise. */
    readonly clientCertificate: ClientCertificate | null
  }
}

/** By the section of the configuration that servers were made for. */
const listeners = new Map<string, ListenerTls>()

/** Returns the TLS of a listener. Throws if its files cannot be used. */
export function listenerTlsOf(options: TlsOptions): ListenerTls {
  const known = knownTls(options)
  if (known !== undefined) return known
  const made = new ListenerTls('default', options)
  listeners.set(JSON.stringify(options), made)
  return made
}

/** Returns the TLS of a listener; undefined for a server of somebody else's, who has made its own TLS. */
const knownTls = (options: TlsOptions | undefined) => options && listeners.get(JSON.stringify(options))

const RELOADED = 'jingwei.certificates'

/** Keeps the certificates of a server current. Returns the function that ends this. */
export function keepCertificates(server: Server, options: TlsOptions | undefined, log: TlsEvents['log']): () => void {
  const tls = knownTls(options)
  if (tls === undefined) return () => {}
  const tlsServer = server as unknown as TlsServer
  tls.attach(tlsServer, { log, reloaded: (outcome) => server.emit(RELOADED, outcome) })
  return () => {
    tls.detach(tlsServer)
    if (!tls.isUsed) listeners.delete(JSON.stringify(options))
  }
}

/** Shows certificates, and holds requests to the rules for client certificates of their hosts. */
export default fp<Config>(
  async (fastify, { listen }) => {
    fastify.decorateRequest('clientCertificate', {
      getter() {
        return clientCertificateOf(this.raw.socket)
      }
    })
    const tls = knownTls(listen.tls)
    fastify.decorate('certificates', () => tls?.status() ?? [])
    if (tls === undefined) return
    const meter = meterOf(fastify)
    const reloads = meter.counter({
      name: 'jingwei_edge_certificate_reloads_total',
      help: 'Changed certificate files that were taken over, or cannot be used.',
      labelNames: ['listener', 'outcome']
    })
    for (const outcome of ['success', 'failure']) reloads.labels(tls.name, outcome).inc(0)
    fastify.server.on(RELOADED, (outcome) => reloads.labels(tls.name, outcome).inc())
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
          for (const { listener, certificate, facts } of tls.status()) {
            if (facts !== null) set({ listener, certificate }, facts[time])
          }
        }
      })
    )
    ends.push(
      meter.gauge({
        name: 'jingwei_edge_certificates_unusable',
        help: 'Certificates whose newest files cannot be used; the ones before stay in use.',
        labelNames: ['listener'],
        collect: (set) => set({ listener: tls.name }, tls.status().filter(({ error }) => error !== null).length)
      })
    )
    fastify.addHook('onClose', async () => {
      for (const end of ends) end()
    })
    if (!tls.rules.ask) return
    fastify.addHook('onRequest', (request, _reply, done) => {
      const { rules } = tls
      const { headers, socket } = request.raw
      const host = (headers[':authority'] as string | undefined) ?? headers.host ?? ''
      const refusal = refusalOf(socket, rules.of(host))
      if (refusal === null) done()
      else done(refusal === 'misdirected' ? new Misdirected() : new Unverified())
    })
  },
  { name: 'jingwei-tls', fastify: '5.x' }
)
