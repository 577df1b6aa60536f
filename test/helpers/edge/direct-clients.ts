// Clients for routes to which the gateway responds itself, over HTTP/1.1 and HTTP/2.
import { once } from 'node:events'
import type { IncomingHttpHeaders } from 'node:http'
import http2 from 'node:http2'
import type { Test } from 'tap'
import { startGateway } from '../gateway.ts'
import { selfSigned } from '../self-signed.ts'

export interface Got {
  readonly status: number
  readonly headers: IncomingHttpHeaders & Record<string, unknown>
  /** One character a byte. */
  readonly body: string
}

export type Ask = (path: string, headers?: http2.OutgoingHttpHeaders, body?: string) => Promise<Got>

/** Returns a client of an HTTP/2 session over TLS. */
export async function http2Client(t: Test, port: number, authority = 'localhost'): Promise<Ask> {
  const session = http2.connect(`https://${authority}:${port}`, {
    rejectUnauthorized: false,
    host: '127.0.0.1'
  } as http2.SecureClientSessionOptions)
  t.teardown(() => session.destroy())
  session.on('error', () => {})
  await once(session, 'connect')
  return async (path, headers = {}, body) => {
    const stream = session.request(
      { ':path': path, ':authority': authority, ...headers },
      { endStream: body === undefined }
    )
    if (body !== undefined) stream.end(body)
    let text = ''
    stream.on('data', (chunk: Buffer) => {
      text += chunk.toString('latin1')
    })
    const [fields] = (await once(stream, 'response')) as [http2.IncomingHttpHeaders]
    if (!stream.readableEnded) await once(stream, 'end')
    return { status: Number(fields[':status']), headers: fields, body: text }
  }
}

/** Starts a gateway with these routes; closed with the test. */
export async function startRoutes(t: Test, routes: readonly object[], more: object = {}) {
  const gateway = await startGateway({ routes, ...more }, { log: true })
  t.teardown(gateway.close)
  return gateway
}

/** As `startRoutes`, with TLS and HTTP/2; returns its client, too. */
export async function startSecure(t: Test, routes: readonly object[], more: object = {}) {
  const gateway = await startRoutes(t, routes, { listen: { tls: selfSigned(t), http2: true }, ...more })
  return { ...gateway, ask: await http2Client(t, gateway.port) }
}
