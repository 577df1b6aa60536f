/** Protections of a listening server. They belong to its connections, which outlive a generation. */
import type { Server } from 'node:http'
import type { Listen } from '../../../config/schema.ts'
import { markListener } from '../../listener-of.ts'
import type { Inbound } from '../../seam-inbound.ts'
import { boundConnections } from './client-limits.ts'
import { refuseConnect } from './connect.ts'
import { handleExpect } from './expect.ts'
import { boundSessions } from './http2-sessions.ts'
import { InboundTls } from './inbound/inbound-tls.ts'
import { reportRefusal } from './refusals.ts'
import { boundReaders } from './slow-reader.ts'
import { keepCertificates } from './tls/index.ts'
import type { TlsEvents } from './tls/listener-tls.ts'

interface Protection {
  /**
   * Returns a function that applies changed options, to new connections at least. Rejects, and changes nothing, if they
   * cannot be applied.
   */
  prepare(listen: Listen): Promise<() => void>
  /** Sets the service of the mesh as which a listener with `connect` accepts calls. */
  acceptAs(inbound: Inbound | null): void
  /** Stops its timers; call it after the server has closed. */
  close(): void
}

/** Marks a server that is protected. */
const PROTECTED = Symbol('jingwei.protected')

export const isProtected = (server: object): boolean => PROTECTED in server

/**
 * Protects a server from its clients: limits their connections and their time, and handles CONNECT and `Expect`. Also keeps
 * the certificates of the server current.
 */
export function protect(server: Server, configured: Listen, log: TlsEvents['log']): Protection {
  let listen = configured
  Object.assign(server, { [PROTECTED]: true })
  markListener(server, listen.name)
  // No constructor option exists for it. The number of an embedding server is kept.
  const hasOwnMost = server.maxConnections !== undefined
  server.maxConnections ??= listen.limits.connections
  // 0: no limit. By default Node silently drops fields after the first 1,000; `limits.headers` limits them.
  server.maxHeadersCount ??= 0
  server.on('drop', (from) => {
    reportRefusal(server, { reason: 'connections', ip: from?.remoteAddress })
  })
  server.on('connect', refuseConnect)
  handleExpect(server)
  boundConnections(server, () => listen)
  const boundStream = boundReaders(server, () => ({ ...listen.timeouts, ...listen.limits }))
  boundSessions(server, () => listen.timeouts, boundStream)
  const tls = keepCertificates(server, configured, log)
  const inbound = configured.connect === undefined ? null : new InboundTls(server, () => listen)
  const apply = (changed: Listen) => {
    listen = changed
    if (!hasOwnMost) server.maxConnections = listen.limits.connections
    server.headersTimeout = listen.timeouts.headers
    server.keepAliveTimeout = listen.timeouts.keepAlive
  }
  const prepare = async (changed: Listen) => {
    const applyTls = await tls.prepare(changed.tls)
    return () => {
      applyTls()
      apply(changed)
    }
  }
  return {
    prepare,
    acceptAs: (service) => inbound?.use(service),
    close: () => {
      tls.close()
      inbound?.close()
    }
  }
}
