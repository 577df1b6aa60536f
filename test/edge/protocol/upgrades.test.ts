// slow: installs packages
// Handshakes for paths without a configured route go to other listeners: real plugins, named in the configuration.
import { once } from 'node:events'
import { writeFileSync } from 'node:fs'
import { join } from 'node:path'
import type { Test } from 'tap'
import t from 'tap'
import { echo, handshake, opcodes, open, startWebSocketService } from '../../helpers/edge/websocket.ts'
import { eventually } from '../../helpers/eventually.ts'
import { connect, parse, raw, startGateway } from '../../helpers/gateway.ts'
import { ecosystemPackages } from '../../helpers/packages.ts'

async function serving(t: Test, plugins: (folder: string, upstream: string) => string[], more: object = {}) {
  const proxied = await startWebSocketService({ onPeer: echo })
  const configured = await startWebSocketService({ onPeer: echo })
  const folder = await ecosystemPackages()
  const files = t.testdir({})
  const paths = plugins(folder, proxied.url).map((source, index) => {
    const path = join(files, `plugin-${index}.mjs`)
    writeFileSync(path, source)
    return { path }
  })
  const gateway = await startGateway(
    {
      listen: { drain: { delay: '0ms' } },
      services: { ws: { instances: [configured.url] } },
      routes: [{ name: 'ws', match: { path: '/ws' }, service: 'ws' }],
      plugins: paths,
      ...more
    },
    { log: true }
  )
  t.teardown(async () => {
    await proxied.close()
    await configured.close()
    await gateway.close()
  })
  return { ...gateway, proxied, configured }
}

const httpProxy = (_folder: string, upstream: string) => `
import httpProxy from '@fastify/http-proxy'
export default async function (fastify) {
  await fastify.register(httpProxy, { prefix: '/proxied', upstream: '${upstream}', websocket: true })
}`
const ownWebSockets = (folder: string) => `
import { createRequire } from 'node:module'
const websocket = createRequire('${folder}/')('@fastify/websocket')
export default async function (fastify) {
  await fastify.register(websocket)
  await fastify.register(async (own) => {
    own.get('/own', { websocket: true }, (socket) => socket.on('message', (data) => socket.send('own ' + data)))
  })
}`
const bareListener = `
export default async function (fastify) {
  fastify.server.on('upgrade', (request, socket) => {
    if (request.url !== '/bare') return
    setImmediate(() => {
      socket.end('HTTP/1.1 418 Bare\\r\\nContent-Length: 0\\r\\nConnection: close\\r\\n\\r\\n')
    })
  })
}`

async function speaks(t: Test, port: number, path: string, expected: string): Promise<void> {
  const socket = new WebSocket(`ws://127.0.0.1:${port}${path}`)
  await once(socket, 'open')
  socket.send('hello')
  const [message] = (await once(socket, 'message')) as [MessageEvent]
  const { data } = message
  t.equal(typeof data === 'string' ? data : await (data as Blob).text(), expected, path)
  socket.close()
  await once(socket, 'close')
}

t.test('@fastify/http-proxy gets the handshakes below its prefix, the gateway those of its routes', async (t) => {
  const { port, proxied, configured, log } = await serving(t, (folder, upstream) => [httpProxy(folder, upstream)])
  await speaks(t, port, '/proxied/x', 'hello')
  await speaks(t, port, '/ws', 'hello')
  t.equal(proxied.requests.length, 1)
  t.equal(configured.requests.length, 1)
  const { peer } = await open(port, '/ws', [], Buffer.alloc(0))
  peer.send(opcodes.text, 'still')
  t.equal((await peer.frame(0)).payload.toString(), 'still')
  peer.socket.destroy()
  t.equal(parse(await raw(port, handshake('/nowhere'))).status, 404)
  await eventually(() => log.filter(({ msg, route }) => msg === 'request' && route === 'ws').length === 2)
})

t.test('@fastify/websocket serves its own routes', async (t) => {
  const { port, configured } = await serving(t, (folder) => [ownWebSockets(folder)])
  await speaks(t, port, '/own', 'own hello')
  await speaks(t, port, '/ws', 'hello')
  t.equal(configured.requests.length, 1)
  t.equal(parse(await raw(port, handshake('/nowhere'))).status, 404)
})

t.test('both plugins and a listener of another plugin can be used together', async (t) => {
  const { port, log } = await serving(t, (folder, upstream) => [
    bareListener,
    httpProxy(folder, upstream),
    ownWebSockets(folder)
  ])
  await speaks(t, port, '/proxied/x', 'hello')
  await speaks(t, port, '/own', 'own hello')
  await speaks(t, port, '/ws', 'hello')
  t.match(await raw(port, handshake('/ws/../x')), /^HTTP\/1\.1 400 /)
  t.strictSame(
    log.filter(({ level }) => (level as number) >= 50),
    []
  )
})

t.test('a slow listener gets its time, and one that fails closes its socket', async (t) => {
  const { port, log } = await serving(t, () => [
    bareListener,
    `export default async function (fastify) {
      fastify.server.on('upgrade', (request) => {
        if (request.url === '/fails') throw new Error('a slip')
      })
    }`
  ])
  t.match(await raw(port, handshake('/bare')), /^HTTP\/1\.1 418 Bare/)
  t.equal(await raw(port, handshake('/fails')), '')
  t.match(
    log.find(({ level }) => level === 50),
    { err: { message: 'a slip' } }
  )
  t.equal(parse(await raw(port, handshake('/unknown'))).status, 404, 'the gateway responds if no listener does')
  const client = connect(port, handshake('/ws'))
  await client.until('101')
  client.socket.destroy()
})

t.test('concerns of configured routes run first', async (t) => {
  const { port } = await serving(t, (folder, upstream) => [httpProxy(folder, upstream)], {
    edge: { jwt: { secret: 'x'.repeat(32) } }
  })
  t.equal(parse(await raw(port, handshake('/ws'))).status, 401)
})
