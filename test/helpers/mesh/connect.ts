/** Services in Consul Connect, each behind a real sidecar: Consul's own proxy. */
import { createServer } from 'node:http'
import https from 'node:https'
import type { AddressInfo } from 'node:net'
import tls from 'node:tls'
import type { Test } from 'tap'
import type { Consul } from '../consul.ts'
import type { Running } from '../processes.ts'
import { freePort, isListening, start, waitFor } from '../processes.ts'
import { tool } from '../tools.ts'

const passing = { TTL: '10m', Status: 'passing' }

/** A plain HTTP service on loopback that responds with its name and the request; every third connection is closed. */
export async function plain(t: Test, name: string) {
  let count = 0
  const server = createServer((request, response) => {
    count++
    if (count % 3 === 0) response.setHeader('connection', 'close')
    response.setHeader('x-instance', name)
    response.write(`${name} `)
    request.pipe(response)
  })
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve))
  t.teardown(() => {
    server.close()
    server.closeAllConnections()
  })
  return { port: (server.address() as AddressInfo).port, count: () => count }
}

/** `consul connect proxy` until the test ends, listening on a port of loopback. */
export async function proxy(t: Test, consul: Consul, args: string[], port: number): Promise<Running> {
  const { path, env } = await tool('consul')
  const token = consul.masterToken === undefined ? [] : [`-token=${consul.masterToken}`]
  const running = await start({
    command: path,
    args: ['connect', 'proxy', `-http-addr=${consul.url}`, ...token, ...args],
    env,
    name: 'consul connect proxy',
    ready: () => isListening(port)
  })
  t.teardown(() => running.stop())
  return running
}

/** Registers the service with a sidecar on a free port, and starts the sidecar. */
export async function behindSidecar(t: Test, consul: Consul, name: string, servicePort: number, id = name) {
  const port = await freePort()
  await consul.api('PUT', '/v1/agent/service/register', {
    ID: id,
    Name: name,
    Port: servicePort,
    Address: '127.0.0.1',
    Check: passing,
    Connect: {
      SidecarService: {
        Port: port,
        Address: '127.0.0.1',
        Check: passing,
        Proxy: { Config: { bind_address: '127.0.0.1', bind_port: port } }
      }
    }
  })
  const running = await proxy(t, consul, [`-sidecar-for=${id}`], port)
  return { port, url: `https://127.0.0.1:${port}`, running }
}

/** A Connect-native service: it has a leaf certificate of its own and requires one of its callers, without an agent. */
export async function native(t: Test, consul: Consul, name: string) {
  const leaf = (await consul.api('GET', `/v1/agent/connect/ca/leaf/${name}`)).body as Record<string, string>
  const roots = (await consul.api('GET', '/v1/agent/connect/ca/roots')).body as { Roots: { RootCert: string }[] }
  const callers: (string | undefined)[] = []
  const server = https.createServer(
    {
      cert: leaf.CertPEM!,
      key: leaf.PrivateKeyPEM!,
      ca: roots.Roots.map(({ RootCert }) => RootCert),
      requestCert: true
    },
    (request, response) => {
      callers.push((request.socket as tls.TLSSocket).getPeerCertificate().subjectaltname)
      response.setHeader('connection', 'close')
      response.end(name)
    }
  )
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve))
  t.teardown(() => {
    server.close()
    server.closeAllConnections()
  })
  const { port } = server.address() as AddressInfo
  const service = { Name: name, Port: port, Address: '127.0.0.1', Check: passing, Connect: { Native: true } }
  await consul.api('PUT', '/v1/agent/service/register', service)
  return { port, callers }
}

/** A proxy that is registered as the sidecar of one service and shows the certificate of another. */
export async function impostor(t: Test, consul: Consul, name: string, as: string, servicePort: number) {
  const port = await freePort()
  const listen = [`-service=${as}`, `-service-addr=127.0.0.1:${servicePort}`, `-listen=127.0.0.1:${port}`]
  await proxy(t, consul, listen, port)
  await consul.api('PUT', '/v1/agent/service/register', {
    ID: `${name}-impostor`,
    Name: `${name}-impostor`,
    Kind: 'connect-proxy',
    Port: port,
    Address: '127.0.0.1',
    Check: passing,
    Proxy: { DestinationServiceName: name }
  })
  return { port, url: `https://127.0.0.1:${port}` }
}

export async function intend(consul: Consul, source: string, destination: string, action: 'allow' | 'deny') {
  const body = { SourceName: source, DestinationName: destination, SourceType: 'consul', Action: action }
  const { body: made } = await consul.api('POST', '/v1/connect/intentions', body)
  const { ID: id } = made as { ID: string }
  return { remove: () => consul.api('DELETE', `/v1/connect/intentions/${id}`) }
}

/** Returns the issuer of the certificate that a port presents. */
export function issuerAt(port: number): Promise<string> {
  return new Promise((resolve, reject) => {
    const socket = tls.connect({ port, host: '127.0.0.1', rejectUnauthorized: false }, () => {
      resolve(String(socket.getPeerCertificate().issuer.CN))
      socket.destroy()
    })
    socket.once('error', reject)
  })
}

/** A new key for Consul's authority: a new root, signed over by the old one. */
export async function rotate(consul: Consul, privateKey: string): Promise<void> {
  const roots = async () => {
    const { body } = await consul.api('GET', '/v1/connect/ca/roots')
    return (body as { Roots: unknown[] }).Roots.length
  }
  const before = await roots()
  const Config = { PrivateKey: privateKey, LeafCertTTL: '72h', RotationPeriod: '2160h' }
  const { status, body } = await consul.api('PUT', '/v1/connect/ca/configuration', { Provider: 'consul', Config })
  if (status !== 200) throw new Error(`Consul: ${status} ${body}`)
  await waitFor('the new root', async () => (await roots()) > before)
}
