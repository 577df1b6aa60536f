import type { IncomingMessage, Server } from 'node:http'
import type { Server as TlsServer } from 'node:tls'
import createError from '@fastify/error'
import fp from 'fastify-plugin'
import type { TlsOptions } from '../../../../config/schema/tls.ts'
import type { Config } from '../../../../config/schema.ts'
import { meterOf } from '../../concern.ts'
import type { ClientCertificate } from './client-certificate.ts'
import { clientCertificateOf, refusalOf } from './client-certificate.ts'
import { ClientRules } from './client-rules.ts'
import { verificationError } from './failed-handshakes.ts'
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

/** By the section of the configuration that a server is being made for. */
const listeners = new WeakMap<TlsOptions, ListenerTls>()

/** Returns the TLS for a server of this configuration. Throws if its files cannot be used. */
export function listenerTlsOf(options: TlsOptions): ListenerTls {
  const made = listeners.get(options) ?? new ListenerTls('default', options)
  listeners.set(options, made)
  return made
}

/** Property of a server, which its facades inherit: its `ListenerTls`. A server that embeds the gateway has none. */
const TLS = Symbol('jingwei.tls')

const RELOADED = 'jingwei.certificates'

interface Certificates {
  /** Returns the function that takes other options. Rejected if they cannot be served. */
  prepare(options: TlsOptions | undefined): Promise<() => void>
  close(): void
}

/** Keeps the certificates of a server current. */
export function keepCertificates(
  server: Server,
  configured: TlsOptions | undefined,
  log: TlsEvents['log']
): Certificates {
  const tls = configured && listeners.get(configured)
  if (tls === undefined) return { prepare: async () => () => {}, close: () => {} }
  const tlsServer = server as unknown as TlsServer
  Object.assign(server, { [TLS]: tls })
  tls.attach(tlsServer, { log, reloaded: (outcome) => server.emit(RELOADED, outcome) })
  return {
    prepare: async (options) => (options === undefined ? () => {} : tls.prepare(options)),
    close: () => tls.detach(tlsServer)
  }
}

/** Returns the reason why a request may not come on its connection, by the rules for client certificates; null if it may. */
export function refusalOn(server: object, { headers, socket }: IncomingMessage): ReturnType<typeof refusalOf> {
  const tls: ListenerTls | undefined = Reflect.get(server, TLS)
  if (tls === undefined || !tls.rules.ask) return null
  const host = (headers[':authority'] as string | undefined) ?? headers.host ?? ''
  return refusalOf(socket, tls.rules.of(host))
}

/** Shows certificates, and holds requests to the rules for client certificates of their hosts. */
export default fp<Config>(
  async (fastify, { listen }) => {
    fastify.decorateRequest('clientCertificate', {
      getter() {
        return clientCertificateOf(this.raw.socket)
      }
    })
    const tls: ListenerTls | undefined = Reflect.get(fastify.server, TLS)
    fastify.decorate('certificates', () => tls?.status() ?? [])
    if (tls === undefined || listen.tls === undefined) return
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
    // Those of this configuration, which may not be in use yet.
    if (!new ClientRules(listen.tls, () => '').ask) return
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
