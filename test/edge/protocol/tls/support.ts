// A TLS listener with certificates of its own, and clients that report the certificate and the response.
import { copyFileSync, mkdirSync, renameSync } from 'node:fs'
import http2 from 'node:http2'
import { join } from 'node:path'
import type { ConnectionOptions, PeerCertificate } from 'node:tls'
import tls from 'node:tls'
import type { Test } from 'tap'
import type { Authority, Issued, IssueOptions } from '../../../helpers/certificates.ts'
import { authority, folderFor } from '../../../helpers/certificates.ts'
import type { GatewayOptions, RunningGateway } from '../../../helpers/gateway.ts'
import { parse, startEcho, startGateway } from '../../../helpers/gateway.ts'

export interface Scene {
  readonly folder: string
  readonly ours: Authority
  /** Issues a certificate for names, in openssl's notation or as a list of DNS names. */
  issue(name: string, names?: readonly string[], options?: IssueOptions): Issued
  path(name: string): string
}

/** An authority, and a folder for its certificates. */
export function scene(t: Test): Scene {
  const folder = folderFor(t)
  const made = folderFor(t)
  const ours = authority(made, 'ours')
  return {
    folder,
    ours,
    issue: (name, names = [name], options = {}) =>
      ours.issue(name, { san: names.map((each) => `DNS:${each}`).join(), ...options }),
    path: (name) => join(folder, name)
  }
}

/** Replaces a file by rename. */
export function put(from: string, to: string): void {
  copyFileSync(from, `${to}.new`)
  renameSync(`${to}.new`, to)
}

/** Writes a certificate and its key into a folder, under these names. */
export function lay({ certFile, keyFile }: Issued, folder: string, cert = 'tls.crt', key = 'tls.key'): void {
  mkdirSync(folder, { recursive: true })
  put(keyFile, join(folder, key))
  put(certFile, join(folder, cert))
}

export interface Gateway extends RunningGateway {
  /** Value of a metric's series as exposed; undefined if absent. */
  metric(series: string): Promise<number | undefined>
}

/** A gateway in front of an echo service, with this `listen.tls`. */
export async function listening(
  t: Test,
  tlsOptions: object,
  more: object = {},
  options: GatewayOptions = {}
): Promise<Gateway> {
  const echo = await startEcho()
  t.teardown(echo.close)
  const gateway = await startGateway(
    {
      listen: { tls: tlsOptions, http2: true },
      admin: { port: 0 },
      services: { any: { instances: [echo.url] } },
      routes: [{ name: 'all', match: { path: '/' }, service: 'any' }],
      ...more
    },
    { log: true, ...options }
  )
  t.teardown(gateway.close)
  const metric = async (series: string) => {
    const text = await gateway.server.metrics.metrics()
    const line = text.split('\n').find((each) => each.startsWith(`${series} `))
    return line === undefined ? undefined : Number(line.slice(series.length + 1))
  }
  return { ...gateway, metric }
}

export interface Handshake {
  /** Common name of the presented certificate. */
  shown: string | undefined
  protocol: string | null
  cipher: string
  reused: boolean
  session: Buffer | undefined
  error: string | undefined
  /** Response to the request, if any. */
  status: number
  body: string
}

/** Makes a handshake and a request over HTTP/1.1. Never fails: `error` has the code. */
export function shake(port: number, options: ConnectionOptions = {}, host = 'localhost'): Promise<Handshake> {
  const result: Handshake = {
    shown: undefined,
    protocol: null,
    cipher: '',
    reused: false,
    session: undefined,
    error: undefined,
    status: 0,
    body: ''
  }
  return new Promise((resolve) => {
    let text = ''
    const socket = tls.connect({ port, host: '127.0.0.1', rejectUnauthorized: false, ...options })
    socket.on('secureConnect', () => {
      const { subject } = socket.getPeerCertificate() as Partial<PeerCertificate>
      result.shown = subject?.CN as string | undefined
      result.protocol = socket.getProtocol()
      result.cipher = socket.getCipher().name
      result.reused = socket.isSessionReused()
      socket.write(`GET / HTTP/1.1\r\nHost: ${host}\r\nConnection: close\r\n\r\n`)
    })
    socket.on('session', (session) => {
      result.session = session
    })
    socket.on('data', (chunk: Buffer) => {
      text += chunk.toString('latin1')
    })
    socket.on('error', (error: NodeJS.ErrnoException) => {
      result.error ??= error.code ?? error.message
    })
    socket.on('close', () => {
      if (text !== '') Object.assign(result, parse(text))
      else result.error ??= 'closed'
      resolve(result)
    })
  })
}

/** Sends one request over an HTTP/2 session. */
export function askOver(
  session: http2.ClientHttp2Session,
  authority: string
): Promise<{ status: number; body: string }> {
  return new Promise((resolve, reject) => {
    const stream = session.request({ ':path': '/', ':authority': authority })
    let status = 0
    let body = ''
    stream.on('response', (headers) => {
      status = Number(headers[':status'])
    })
    stream.on('data', (chunk: Buffer) => {
      body += chunk.toString()
    })
    stream.on('error', reject)
    stream.on('close', () => resolve({ status, body }))
  })
}

/** Opens an HTTP/2 session; closed when the test ends. */
export async function sessionTo(t: Test, port: number, options: http2.SecureClientSessionOptions = {}) {
  const session = http2.connect(`https://127.0.0.1:${port}`, { rejectUnauthorized: false, ...options })
  session.on('error', () => {})
  t.teardown(() => session.destroy())
  await new Promise((resolve) => session.once('connect', resolve))
  return session
}
