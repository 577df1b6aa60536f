/** A gateway with a listener for clients and one for services of the mesh, with a scripted Consul. */
import { writeFileSync } from 'node:fs'
import type { AddressInfo } from 'node:net'
import { join } from 'node:path'
import type { ConnectionOptions } from 'node:tls'
import tls from 'node:tls'
import type { Test } from 'tap'
import t from 'tap'
import { intentionTiming } from '../../../../plugins/mesh/connect/identity/intention-query.ts'
import type { Authority, Issued } from '../../../helpers/certificates.ts'
import { authority, folderFor } from '../../../helpers/certificates.ts'
import { eventually } from '../../../helpers/eventually.ts'
import { drain, running, service } from '../../../helpers/listeners.ts'
import { scripted } from './support.ts'

intentionTiming.every = 20

export const domain = '11111111-2222.consul'
export const uriOf = (name: string, trustDomain = domain) => `spiffe://${trustDomain}/ns/default/dc/dc1/svc/${name}`
export const leafPath = (name: string) => `/v1/agent/connect/ca/leaf/${name}`
const rootsPath = '/v1/agent/connect/ca/roots'
export const matchPath = '/v1/connect/intentions/match'
const checkPath = '/v1/connect/intentions/check'

const folder = folderFor(t)
export const first = authority(folder, 'first')
export const second = authority(folder, 'second')
export const issued = (by: Authority, name: string, san = `URI:${uriOf(name)}`) => by.issue(name, { san })
export const shows = ({ cert, key }: Issued) => ({ cert, key })
export const web = issued(first, 'web')

export const intention = (source: string, action: string, precedence = 9, more = {}) => ({
  SourceNS: 'default',
  SourceName: source,
  DestinationNS: 'default',
  DestinationName: 'jingwei',
  Precedence: precedence,
  Action: action,
  ...more
})

/** A page of the admin port: a list, or an explanation. */
interface Listed {
  readonly edge: readonly string[]
  readonly [index: number]: unknown
}

export interface Scene {
  /** Listener `mesh`, beside the listener `public`. */
  readonly connect?: object
  readonly http2?: boolean
  readonly edge?: object
  readonly isReady?: boolean
  readonly listen?: object
  readonly routes?: readonly object[]
  readonly services?: object
  /** Code of a plugin. */
  readonly plugin?: string
  readonly more?: object
}

export async function scene(
  t: Test,
  { connect = {}, http2 = false, edge = {}, isReady = true, listen = {}, ...rest }: Scene = {}
) {
  const consul = await scripted(t)
  const url = await service(t)
  const say = {
    leaf: (by: Authority, name = 'jingwei') => {
      const { cert, key } = issued(by, name)
      consul.respond(leafPath(name), { CertPEM: cert, PrivateKeyPEM: key, ServiceURI: uriOf(name) }, ++index)
      return cert
    },
    roots: (...trusted: Authority[]) => {
      const Roots = trusted.map(({ cert }) => ({ RootCert: cert }))
      consul.respond(rootsPath, { TrustDomain: domain, Roots }, ++index)
    },
    rules: (...rules: object[]) => consul.respond(matchPath, { jingwei: rules }),
    otherwise: (allowed: boolean) => consul.respond(checkPath, { Allowed: allowed })
  }
  let index = 1
  if (isReady) {
    say.leaf(first)
    say.roots(first)
    say.rules()
    say.otherwise(true)
  }
  const home = folderFor(t)
  if (rest.plugin !== undefined) writeFileSync(join(home, 'plugin.mjs'), rest.plugin)
  const sections = (more: object = {}) => ({
    discovery: { consul: { url: consul.consul.url } },
    listen: [
      { name: 'public', host: '127.0.0.1', port: 0, drain },
      {
        name: 'mesh',
        host: '127.0.0.1',
        port: 0,
        connect: { service: 'jingwei', ...connect, ...more },
        http2,
        ...listen
      }
    ],
    services: rest.services ?? { any: { instances: [url] } },
    routes: rest.routes ?? [{ name: 'all', match: { path: '/' }, service: 'any', edge }],
    ...(rest.plugin !== undefined && { plugins: [{ path: './plugin.mjs' }] }),
    ...rest.more
  })
  const gateway = await running(t, home, sections())
  const admin = async (path: string) => {
    const { port } = gateway.runtime.admin!.address as AddressInfo
    const response = await fetch(`http://127.0.0.1:${port}${path}`)
    return { status: response.status, body: (await response.json()) as Record<string, unknown> & Listed }
  }
  const ready = () => eventually(async () => (await admin('/health/ready')).status === 200, 'ready')
  if (isReady) await ready()
  const port = gateway.portOf('mesh')
  return {
    ...gateway,
    consul,
    say,
    sections,
    admin,
    ready,
    port,
    ask: (by: ConnectionOptions, path?: string, headers?: Record<string, string>) => ask(port, by, path, headers)
  }
}

/** Connects and sends a request. Returns the text of the response, or the code of the error. */
export function ask(
  port: number,
  options: ConnectionOptions,
  path = '/',
  headers: Record<string, string> = {}
): Promise<string> {
  const fields = { host: 'jingwei', connection: 'close', ...headers }
  const section = Object.entries(fields).map(([name, value]) => `${name}: ${value}\r\n`)
  return new Promise((resolve) => {
    const socket = tls.connect({ port, host: '127.0.0.1', rejectUnauthorized: false, ...options })
    let text = ''
    socket.once('secureConnect', () => socket.write(`GET ${path} HTTP/1.1\r\n${section.join('')}\r\n`))
    socket.on('data', (chunk) => {
      text += chunk
    })
    socket.on('error', (error: NodeJS.ErrnoException) => resolve(error.code ?? error.message))
    socket.on('close', () => resolve(text || 'closed'))
  })
}

export const ok = /^HTTP\/1\.1 200 /
