/** Protections of a listening server: they are for connections, which outlive a configuration. */
import type { Server } from 'node:http'
import type { Listen } from '../../../config/schema.ts'
import { markListener } from '../../listener-of.ts'
import { boundConnections } from './client-limits.ts'
import { refuseTunnel } from './connect.ts'
import { meetExpectations } from './expect.ts'
import { boundSessions } from './http2-sessions.ts'
import { tellRefused } from './refusals.ts'
import { boundReaders } from './slow-reader.ts'
import { keepCertificates } from './tls/index.ts'
import type { TlsEvents } from './tls/listener-tls.ts'

interface Protection {
  /**
   * Returns the function that applies changed options, to new connections first of all. Rejected, with nothing changed, if
   * they cannot be applied.
   */
  prepare(listen: Listen): Promise<() => void>
  /** Ends its timers, after the server. */
  close(): void
}

/** Marks a server that has them, and what stands for it. */
const PROTECTED = Symbol('jingwei.protected')

export const isProtected = (server: object): boolean => PROTECTED in server

/**
 * Protects a server from its clients: bounds their connections, the time that they take, and what they may ask the server
 * itself for. Keeps its certificates current.
 */
export function protect(server: Server, configured: Listen, log: TlsEvents['log']): Protection {
  let listen = configured
  Object.assign(server, { [PROTECTED]: true })
  markListener(server, listen.name)
  // There is no constructor option for it; an embedding server's own number stands.
  const hasOwnMost = server.maxConnections !== undefined
  server.maxConnections ??= listen.limits.connections
  // By default Node keeps the first 1,000 fields of a request and drops the rest silently; `limits.headers` bounds them.
  server.maxHeadersCount ??= 0
  server.on('drop', (from) => {
    tellRefused(server, { reason: 'connections', ip: from?.remoteAddress })
  })
  server.on('connect', refuseTunnel)
  meetExpectations(server)
  boundConnections(server, () => listen)
  const boundStream = boundReaders(server, () => ({ ...listen.timeouts, ...listen.limits }))
  boundSessions(server, () => listen.timeouts, boundStream)
  const tls = keepCertificates(server, configured, log)
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
  return { prepare, close: tls.close }
}
