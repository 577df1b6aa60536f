/** Sidecars as processes. */
import { writeFileSync } from 'node:fs'
import { join } from 'node:path'
import type { Test } from 'tap'
import { authority, folderFor } from './certificates.ts'
import type { Client } from './e2e/gateway.ts'
import { asProcess, clientOf } from './e2e/gateway.ts'
import type { Running } from './processes.ts'
import { start } from './processes.ts'

export interface Sidecar {
  readonly running: Running
  readonly file: string
  /** Ports by the names of listeners. */
  readonly ports: Readonly<Record<string, number>>
  /** Its admin port. */
  readonly admin: Client
  readonly adminUrl: string
}

/** The sections of a sidecar's file, with free ports where none is given. */
export interface SidecarSections {
  readonly outbound?: readonly object[]
  readonly inbound?: object
  readonly sidecar?: object
  readonly services?: object
  readonly mesh?: object
  readonly discovery?: object
}

export function sidecarText({ outbound = [], inbound, sidecar, services = {}, ...more }: SidecarSections): string {
  const listeners = {
    outbound: outbound.map((each) => ({ ...('path' in each ? {} : { port: 0 }), ...each })),
    ...(inbound && { inbound: { host: '127.0.0.1', port: 0, ...inbound } })
  }
  const drain = { delay: 0, timeout: '2s' }
  return JSON.stringify({
    admin: { host: '127.0.0.1', port: 0 },
    services,
    ...more,
    sidecar: { ...listeners, drain, ...sidecar }
  })
}

const bin = join(import.meta.dirname, '../../plugins/bin.ts')

/** Starts `jingwei sidecar` until the test ends. */
export async function startSidecar(t: Test, sections: SidecarSections, env: NodeJS.ProcessEnv = {}): Promise<Sidecar> {
  const file = join(folderFor(t), 'sidecar.yaml')
  writeFileSync(file, sidecarText(sections))
  return startSidecarFile(t, file, env)
}

export async function startSidecarFile(
  t: Test,
  file: string,
  env: NodeJS.ProcessEnv = {},
  flags: string[] = []
): Promise<Sidecar> {
  const running = await start({
    command: 'node',
    args: [...flags, bin, 'sidecar', '--config', file],
    env: { ...process.env, ...env },
    name: 'jingwei sidecar',
    ready: /jingwei is up/,
    timeout: 60_000
  })
  t.teardown(() => running.stop())
  const output = running.output()
  const listening = output.matchAll(/^ {2}sidecar {2}https?:\/\/[^ ]+:(\d+) \(([^)]+)\)$/gm)
  const ports = Object.fromEntries(Array.from(listening, ([, port, name]) => [name!, Number(port)]))
  const adminUrl = /^ {2}metrics {2}(http:\/\/[^/]+)/m.exec(output)?.[1] ?? ''
  return { running, file, ports, adminUrl, admin: clientOf('http://127.0.0.1:1', adminUrl) }
}

/** Certificates of a mesh: of the local service's sidecar, and of its callers. */
export function meshCertificates(t: Test) {
  const folder = folderFor(t)
  const ca = authority(folder, 'mesh')
  const orders = ca.issue('orders', { san: 'DNS:orders.mesh' })
  const gateway = ca.issue('gateway', { san: 'DNS:gateway.mesh' })
  const stranger = authority(folder, 'other').issue('gateway', { san: 'DNS:gateway.mesh' })
  const inbound = {
    cert: orders.certFile,
    key: orders.keyFile,
    clientCertificate: { mode: 'require', ca: ca.file }
  }
  const callsWith = ({ certFile, keyFile } = gateway) => ({
    tls: { ca: ca.file, cert: certFile, key: keyFile, serverName: 'orders.mesh' }
  })
  return { inbound, callsWith, gateway, stranger, ca }
}

export interface Pair {
  readonly inbound: Sidecar
  readonly outbound: Sidecar
  readonly port: number
}

/** A sidecar at each end of the calls to a service. */
export async function sidecarsFor(t: Test, url: string, mesh: object = {}, local: object = {}): Promise<Pair> {
  const certificates = meshCertificates(t)
  const inbound = await startSidecar(t, { inbound: { url, tls: certificates.inbound, http2: true, mesh: local } })
  const instances = [`https://127.0.0.1:${inbound.ports.inbound}`]
  const services = { orders: { instances, mesh: { ...certificates.callsWith(), ...mesh } } }
  const outbound = await startSidecar(t, { services, outbound: [{ service: 'orders' }, {}] })
  return { inbound, outbound, port: outbound.ports['outbound-orders']! }
}

/** A gateway that calls the service by its local sidecar. */
export const gatewayBefore = (t: Test, { port }: Pair, listen: object = {}) =>
  asProcess(t, {
    services: { orders: { sidecar: `http://127.0.0.1:${port}`, mesh: { mode: 'sidecar', retry: false } } },
    routes: [{ name: 'all', match: { path: '/' }, service: 'orders', edge: { bodyLimit: false } }],
    listen
  })
