// slow: takes about 25 s
/** Services reach the gateway through the mesh: real Consul, its own proxy as the caller, its authority and intentions. */
import { randomBytes } from 'node:crypto'
import { once } from 'node:events'
import { readFileSync } from 'node:fs'
import { writeFile } from 'node:fs/promises'
import http from 'node:http'
import http2 from 'node:http2'
import type { AddressInfo } from 'node:net'
import { join } from 'node:path'
import tls from 'node:tls'
import type { Test } from 'tap'
import t from 'tap'
import { intentionTiming } from '../../plugins/mesh/connect/identity/intention-query.ts'
import { folderFor } from '../helpers/certificates.ts'
import type { Consul } from '../helpers/consul.ts'
import { startConsul } from '../helpers/consul.ts'
import { appFile, inProcess } from '../helpers/e2e/gateway.ts'
import { running } from '../helpers/listeners.ts'
import { behindSidecar, intend, plain, proxy } from '../helpers/mesh/connect.ts'
import { freePort, freePorts, runToEnd, start, waitFor } from '../helpers/processes.ts'
import { tool } from '../helpers/tools.ts'

intentionTiming.every = 100

const examples = join(import.meta.dirname, '../../config/examples')

async function consulFor(t: Test, options = {}): Promise<Consul> {
  const consul = await startConsul(options)
  t.teardown(consul.stop)
  return consul
}

/** Responds with the request's body, and with its headers as JSON in `x-seen`; echoes WebSockets. */
async function echo(t: Test): Promise<string> {
  const server = http.createServer((request, response) => {
    response.setHeader('x-seen', JSON.stringify(request.headers))
    request.pipe(response)
  })
  server.on('upgrade', (_request, socket) => {
    socket.on('error', () => {})
    socket.write('HTTP/1.1 101 Switching Protocols\r\nconnection: upgrade\r\nupgrade: websocket\r\n')
    socket.write('sec-websocket-accept: ICX+Yqv66kxgM0FcWaLWlFLwTAI=\r\n\r\n')
    socket.pipe(socket)
  })
  server.listen(0, '127.0.0.1')
  await once(server, 'listening')
  t.teardown(() => {
    server.close()
    server.closeAllConnections()
  })
  return `http://127.0.0.1:${(server.address() as AddressInfo).port}`
}

/** A gateway with a listener for clients and one for services, which Consul knows as the service `jingwei`. */
async function gatewayFor(t: Test, consul: Consul, { http2 = false, token = '', edge = {} } = {}) {
  const url = await echo(t)
  const gateway = await running(t, folderFor(t), {
    discovery: { consul: { url: consul.url, ...(token !== '' && { token }) } },
    listen: [
      { name: 'public', host: '127.0.0.1', port: 0, drain: { delay: 0, timeout: '1s' } },
      { name: 'mesh', host: '127.0.0.1', port: 0, connect: { service: 'jingwei' }, http2 }
    ],
    services: { any: { instances: [url] } },
    routes: [{ name: 'all', match: { path: '/' }, service: 'any', edge }]
  })
  const port = gateway.portOf('mesh')
  const registered = {
    Name: 'jingwei',
    Port: port,
    Address: '127.0.0.1',
    Check: { TTL: '10m', Status: 'passing' },
    Connect: { Native: true }
  }
  await consul.api('PUT', '/v1/agent/service/register', registered)
  return { ...gateway, port }
}

/** Starts the sidecar of a service, with the gateway as its upstream; returns a client of that upstream. */
async function callerFor(t: Test, consul: Consul, service: string) {
  const port = await freePort()
  await proxy(t, consul, [`-service=${service}`, `-upstream=jingwei:127.0.0.1:${port}`], port)
  const url = `http://127.0.0.1:${port}`
  const send = async (options: RequestInit = {}, path = '/x') => {
    const response = await fetch(url + path, { ...options, headers: { connection: 'close', ...options.headers } })
    return { status: response.status, headers: response.headers, body: Buffer.from(await response.arrayBuffer()) }
  }
  const until = (status: number, path = '/x') =>
    waitFor(`${status}`, async () => (await send({}, path)).status === status)
  return { port, send, until }
}

/** Returns the leaf certificate of a service, and the roots. */
async function credentialsOf(consul: Consul, service: string) {
  const leaf = (await consul.api('GET', `/v1/agent/connect/ca/leaf/${service}`)).body as Record<string, string>
  const roots = (await consul.api('GET', '/v1/agent/connect/ca/roots')).body as { Roots: { RootCert: string }[] }
  return { cert: leaf.CertPEM!, key: leaf.PrivateKeyPEM!, ca: roots.Roots.map(({ RootCert }) => RootCert) }
}

const trusting = { checkServerIdentity: () => undefined }

for (const withHttp2 of [false, true]) {
  t.test(`the proxy of Consul as the caller, with http2: ${withHttp2}`, async (t) => {
    const consul = await consulFor(t)
    const { metrics } = await gatewayFor(t, consul, { http2: withHttp2 })
    const [web, batch] = [await callerFor(t, consul, 'web'), await callerFor(t, consul, 'batch')]
    await web.until(200)
    const { headers } = await web.send({ headers: { 'x-forwarded-client-cert': 'URI=spiffe://x/svc/admin' } })
    const seen = JSON.parse(headers.get('x-seen')!)
    t.match(
      seen['x-forwarded-client-cert'],
      /^By=spiffe:\/\/[\w.-]+\/ns\/default\/dc\/dc1\/svc\/jingwei;Hash=[\da-f]{64};URI=spiffe:\/\/[\w.-]+\/ns\/default\/dc\/dc1\/svc\/web$/
    )
    const sent = randomBytes(1024 * 1024)
    const { status, body } = await web.send({ method: 'POST', body: sent })
    t.equal(status, 200)
    t.ok(body.equals(sent), 'the same bytes')

    const deny = await intend(consul, 'web', 'jingwei', 'deny')
    await web.until(403)
    t.match(JSON.parse((await web.send()).body.toString()), { code: 'JW_CALLER_DENIED' })
    t.equal((await batch.send()).status, 200, 'another service')
    const denied = /^jingwei_edge_callers_refused_total\{listener="mesh",reason="denied"\} (\d+)$/m
    t.ok(Number(denied.exec(await metrics())?.[1]) > 0)
    await deny.remove()
    await web.until(200)
    await intend(consul, '*', '*', 'deny')
    await web.until(403)
    await batch.until(403)
    await intend(consul, 'web', 'jingwei', 'allow')
    await web.until(200)
    t.equal((await batch.send()).status, 403, 'the wildcard')

    const socket = http.request({
      port: web.port,
      host: '127.0.0.1',
      headers: {
        connection: 'upgrade',
        upgrade: 'websocket',
        'sec-websocket-version': '13',
        'sec-websocket-key': 'AAAAAAAAAAAAAAAAAAAAAA=='
      }
    })
    socket.end()
    const [response, tunnel] = (await once(socket, 'upgrade')) as [http.IncomingMessage, tls.TLSSocket]
    t.equal(response.statusCode, 101)
    const frame = Buffer.concat([Buffer.from([0x82, 0x84, 0, 0, 0, 0]), Buffer.from('ping')])
    tunnel.write(frame)
    const [back] = (await once(tunnel, 'data')) as [Buffer]
    t.ok(back.equals(frame), 'the frame came back')
    tunnel.destroy()
  })
}

t.test('HTTP/2, and limits by the calling service', async (t) => {
  const consul = await consulFor(t)
  const edge = { rateLimit: { max: 2, window: '1h', by: 'consumer' } }
  const { port, metrics } = await gatewayFor(t, consul, { http2: true, edge })
  const statuses: Record<string, number[]> = {}
  for (const service of ['web', 'batch']) {
    const credentials = await credentialsOf(consul, service)
    const session = http2.connect(`https://127.0.0.1:${port}`, { ...credentials, ...trusting })
    t.teardown(() => session.destroy())
    await once(session, 'connect')
    statuses[service] = []
    for (let count = 0; count < 3; count++) {
      const stream = session.request({ ':path': '/x', ':method': 'POST' })
      stream.end('hello')
      const [head] = (await once(stream, 'response')) as [http2.IncomingHttpHeaders]
      statuses[service].push(Number(head[':status']))
      const text = Buffer.concat(await stream.toArray()).toString()
      if (count < 2) t.equal(text, 'hello')
    }
  }
  t.same(statuses, { web: [200, 200, 429], batch: [200, 200, 429] })
  t.match(await metrics(), 'jingwei_edge_connections{listener="mesh"} 2')
})

t.test('the gateway calls another gateway; a token with the minimal policy; Consul unavailable', async (t) => {
  const consul = await consulFor(t, { acl: true })
  const rules = (service: string) =>
    `service "${service}" { policy = "write" } service_prefix "" { policy = "read" } node_prefix "" { policy = "read" }`
  const { port } = await gatewayFor(t, consul, { token: await consul.createToken(rules('jingwei')) })
  const allow = await intend(consul, 'gateway', 'jingwei', 'allow')
  const outer = await inProcess(t, {
    consul: consul.url,
    token: await consul.createToken(rules('gateway')),
    services: { jingwei: {} } as never,
    mesh: { mode: 'connect', identity: { service: 'gateway' }, retry: false, intentions: false } as never
  })
  await outer.until('jingwei', [port])
  await waitFor('the permission', async () => (await outer.send('/jingwei')).status === 200)
  const sent = randomBytes(64 * 1024).toString('base64')
  t.equal((await outer.send('/jingwei', { method: 'POST', body: sent })).text, sent)
  await allow.remove()
  await waitFor('the default policy', async () => (await outer.send('/jingwei')).status === 403)
  await intend(consul, 'gateway', 'jingwei', 'allow')
  await waitFor('the permission', async () => (await outer.send('/jingwei')).status === 200)
  const stranger = await credentialsOf(consul, 'stranger')

  await consul.kill()
  for (let count = 0; count < 5; count++) {
    t.equal((await outer.send('/jingwei')).status, 200, 'the last known intentions')
  }
  const socket = tls.connect({ port, host: '127.0.0.1', ...stranger, ...trusting })
  socket.write('GET / HTTP/1.1\r\nhost: jingwei\r\nconnection: close\r\n\r\n')
  t.match(Buffer.concat(await socket.toArray()).toString(), /^HTTP\/1\.1 403 .*JW_CALLER_DENIED/s, 'never seen before')
})

t.test('the example in-mesh.yaml, registered by in-mesh.json', async (t) => {
  const consul = await consulFor(t)
  const orders = await plain(t, 'orders')
  await behindSidecar(t, consul, 'orders', orders.port)
  const ports = await freePorts(3)
  const [PORT, MESH_PORT, ADMIN_PORT] = ports.map(String) as [string, string, string]
  const gateway = await start({
    command: process.execPath,
    args: [appFile, '-c', join(examples, 'in-mesh.yaml')],
    env: { PORT, MESH_PORT, ADMIN_PORT, CONSUL_URL: consul.url },
    name: 'gateway',
    ready: /health +http\S+/
  })
  t.teardown(gateway.stop)
  const file = join(folderFor(t), 'in-mesh.json')
  const registration = readFileSync(join(examples, 'in-mesh.json'), 'utf8')
  await writeFile(file, registration.replace('8443', MESH_PORT).replace('8081', ADMIN_PORT))
  const { path, env } = await tool('consul')
  await runToEnd(path, ['services', 'register', `-http-addr=${consul.url}`, file], { env })
  const web = await callerFor(t, consul, 'web')
  await web.until(200, '/orders')
  t.match((await web.send({}, '/stock')).body.toString(), /^orders /)
  const byClient = async (to: string) => (await fetch(`http://127.0.0.1:${PORT}${to}`)).status
  t.same([await byClient('/orders'), await byClient('/stock')], [200, 404])
  const lineOf = (path: string, direction: string) => {
    const lines = gateway.output().split('\n')
    const shown = lines.find((line) => line.includes(`"path":"${path}"`) && line.includes(`"direction":"${direction}"`))
    return shown === undefined ? null : JSON.parse(shown)
  }
  // The output that is kept is limited.
  await waitFor('the lines', () => lineOf('/stock', 'north-south') !== null && lineOf('/stock', 'east-west') !== null)
  t.match(lineOf('/stock', 'east-west'), { listener: 'mesh', consumer: 'web', service: 'orders', status: 200 })
  t.match(lineOf('/stock', 'north-south'), { listener: 'public', status: 404, consumer: undefined })
  const deny = await intend(consul, 'web', 'jingwei', 'deny')
  await web.until(403, '/orders')
  t.equal(await byClient('/orders'), 200)
  await deny.remove()
  await web.until(200, '/orders')
})
