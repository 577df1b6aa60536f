/** An https service, and a mesh that calls it with the given TLS options. */
import { once } from 'node:events'
import type { ServerOptions } from 'node:https'
import { createServer } from 'node:https'
import type { AddressInfo } from 'node:net'
import type { TLSSocket } from 'node:tls'
import type { Test } from 'tap'
import type { MeshPolicy, ServiceConfig } from '../../../config/schema.ts'
import type { Logger } from '../../../plugins/mesh/core/types.ts'
import type { Mesh, MeshOptions } from '../../../plugins/mesh/mesh.ts'
import { meshOf, service } from '../../helpers/mesh/mesh.ts'

export interface Handshake {
  sni: string | false | null
  /** Common name of the client's certificate. */
  client: string | undefined
  protocol: string | null
  resumed: boolean
}

/** Responds `hello`; `handshakes` records each established connection. */
export async function secure(t: Test, options: ServerOptions) {
  const handshakes: Handshake[] = []
  const server = createServer(options, (_request, response) => void response.end('hello'))
  server.on('secureConnection', (socket: TLSSocket) => {
    const { subject } = socket.getPeerCertificate()
    const client = subject?.CN === undefined ? undefined : String(subject.CN)
    const resumed = socket.isSessionReused()
    handshakes.push({ sni: socket.servername, client, protocol: socket.getProtocol(), resumed })
    socket.on('error', () => {})
  })
  server.listen(0, '127.0.0.1')
  await once(server, 'listening')
  t.teardown(() => {
    server.close()
    server.closeAllConnections()
  })
  const { port } = server.address() as AddressInfo
  return { server, port, handshakes, url: `https://127.0.0.1:${port}` }
}

export type Tls = Partial<Exclude<MeshPolicy['tls'], false | undefined>>

export function calling(t: Test, url: string, tls: Tls | undefined, options: MeshOptions = {}, policy = {}) {
  const policies = { ...(tls && { tls: { minVersion: 'TLSv1.2' as const, ...tls } }), ...policy }
  const config: ServiceConfig = service('orders', [url], policies)
  return meshOf(t, [config], options)
}

/** Returns the body, or the code of the error. */
export async function call(mesh: Mesh, headers: Record<string, string> = {}): Promise<string> {
  try {
    const { body } = await mesh.request({ origin: 'http://orders.mesh', path: '/', method: 'GET', headers })
    return await body.text()
  } catch (error) {
    return String((error as { code?: string }).code ?? error)
  }
}

/** A log that keeps its lines. */
export function logged() {
  const lines: { level: string; fields: Record<string, unknown>; message: string }[] = []
  const to = (level: string) => (fields: object, message: string) =>
    void lines.push({ level, fields: { ...fields }, message })
  const log: Logger = { info: to('info'), warn: to('warn'), error: to('error') }
  return { log, lines, of: (level: string) => lines.filter((line) => line.level === level) }
}
