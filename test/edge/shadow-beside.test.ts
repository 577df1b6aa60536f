/** Concerns in shadow mode whose server does not respond: the request goes on, and the decision is recorded when it arrives. */
import { hash } from 'node:crypto'
import type { IncomingMessage, ServerResponse } from 'node:http'
import { join } from 'node:path'
import type { Test } from 'tap'
import t from 'tap'
import { loadConfig, parseConfig } from '../../plugins/config.ts'
import type { Protocol } from '../helpers/edge/asking-client.ts'
import { anyClient, listenFor, protocols } from '../helpers/edge/asking-client.ts'
import { echo, open, startWebSocketService } from '../helpers/edge/websocket.ts'
import { eventually } from '../helpers/eventually.ts'
import { startService, startWith } from '../helpers/gateway.ts'
import { folder } from '../helpers/plugins.ts'

const late = 'a concern in shadow mode decided after the response'

/** Waits for the test; then refuses, with headers that must not reach the client. */
const authorizer = `
export default async (request, { signal }) => {
  const { authorization } = request.headers
  await new Promise((resolve) => {
    globalThis.heldFunctions.push(resolve)
    signal.addEventListener('abort', resolve)
  })
  return { refuse: 403, message: request.headers.authorization === authorization ? 'no' : 'credentials are gone', challenge: 'Own' }
}
`
declare global {
  var heldFunctions: (() => void)[]
}
globalThis.heldFunctions = []

interface Held {
  readonly request: IncomingMessage
  readonly response: ServerResponse
  readonly body: string
}

/** Starts a gateway whose server for decisions responds when the test lets it. */
async function start(t: Test, edge: (url: string) => object, protocol: Protocol = 'HTTP/1.1', own?: string) {
  const held: Held[] = []
  const server = await startService(async (request, response) => {
    let body = ''
    for await (const chunk of request) body += chunk
    held.push({ request, response, body })
  })
  t.teardown(server.close)
  const service = await startService((request, response) => {
    response.writeHead(200, {
      'x-authorization': request.headers.authorization ?? 'none',
      'x-user': String(request.headers['x-user'])
    })
    request.pipe(response)
  })
  t.teardown(service.close)
  const config = {
    admin: false,
    listen: listenFor(t, protocol),
    services: { any: { instances: [own ?? service.url] }, decider: { instances: [server.url] } },
    routes: [{ name: 'all', match: { path: '/' }, service: 'any' }],
    consumers: [{ name: 'kim', keyAuth: { hash: `sha256:${hash('sha256', 'k')}` } }],
    edge: edge(server.url)
  }
  const root = await folder(t, { 'authorizer.mjs': authorizer, 'gateway.yaml': JSON.stringify(config) })
  const gateway = await startWith(await loadConfig(join(root, 'gateway.yaml'), {}), { log: true })
  t.teardown(gateway.close)
  t.teardown(() => {
    for (const { response } of held) response.destroy()
    for (const end of globalThis.heldFunctions) end()
  })
  const recorded = () => gateway.log.flatMap(({ shadow }) => (shadow ?? []) as object[])
  const counted = async (concern: string) => {
    const text = await gateway.server.metrics.metrics()
    const series = `jingwei_edge_shadow_refusals_total{concern="${concern}",route="all"} `
    return Number(
      text
        .split('\n')
        .find((line) => line.startsWith(series))
        ?.slice(series.length)
    )
  }
  const lines = (text: string) => gateway.log.filter(({ msg }) => msg === text)
  return { ...gateway, held, recorded, counted, lines }
}

const body = 'x'.repeat(200_000)
const bearer = { authorization: 'Bearer tok' }
const beside = { keyAuth: {}, authentication: { failures: false } }
const timeout = '60s'
const shadow = { mode: 'shadow', timeout }

const cases: readonly (readonly [concern: string, reason: string, edge: (url: string) => object])[] = [
  ['forward-auth', 'forward_auth_refused', (url) => ({ forwardAuth: { url, ...shadow, responseHeaders: ['x-user'] } })],
  ['forward-auth', 'forward_auth_refused', (url) => ({ forwardAuth: { url, ...shadow, forwardBody: true, maxBodySize: '1mb' } })],
  ['uma', 'uma_denied', (url) => ({ uma: { url, ...shadow, audience: 'api', permissions: ['a'] } })],
  ['introspection', 'introspection_inactive', (url) => ({ ...beside, introspection: { url, clientId: 'a', clientSecret: 'b', ...shadow } })],
  ['authorizer', 'authorizer_refused', () => ({ ...beside, authorizer: { module: './authorizer.mjs', ...shadow, hideHeaders: ['authorization'] } })],
  ['forward-auth', 'forward_auth_refused', () => ({ forwardAuth: { service: 'decider', ...shadow } })]
] // biome-ignore format: a list

/** Refuses in the way of each kind of server. */
function refuse({ response }: Held, concern: string): void {
  if (concern === 'introspection') response.end('{"active":false}')
  else if (concern === 'uma') response.writeHead(403).end('{"error":"access_denied"}')
  else response.writeHead(403, { 'set-cookie': 'a=b', 'www-authenticate': 'Own' }).end('refused')
}

for (const protocol of protocols) {
  for (const [index, [concern, reason, edge]] of cases.entries()) {
    t.test(`over ${protocol}, ${concern} (${index}) in shadow mode holds no request`, async (t) => {
      const gateway = await start(t, edge, protocol)
      const { ask } = anyClient(t, protocol, gateway.port)
      globalThis.heldFunctions = []
      const headers = { ...bearer, 'x-api-key': 'k', 'x-user': 'forged' }
      const response = await ask('/', { method: 'POST', headers, body })
      t.equal(response.status, 200)
      t.equal(response.body.toString(), body)
      t.ok(response.isWhole)
      t.equal(response.headers['x-authorization'], 'Bearer tok', 'the service may still check credentials')
      if (index === 0) t.equal(response.headers['x-user'], 'undefined', 'no client sets the header')
      for (const name of ['set-cookie', 'www-authenticate']) t.equal(response.headers[name], undefined)
      await eventually(() => gateway.lines('request').length === 1)
      t.equal(
        gateway.lines('request')[0]!.consumer,
        concern === 'introspection' || concern === 'authorizer' ? 'kim' : undefined
      )
      t.equal(gateway.lines('request')[0]!.reason, undefined)
      t.equal(await gateway.counted(concern), 0)
      if (concern === 'authorizer') globalThis.heldFunctions[0]!()
      else {
        await eventually(() => gateway.held.length === 1)
        if (index === 1) t.equal(gateway.held[0]!.body, body)
        refuse(gateway.held[0]!, concern)
      }
      await eventually(async () => (await gateway.counted(concern)) === 1)
      t.match(gateway.lines(late), [
        { requestId: gateway.lines('request')[0]!.requestId, shadow: [{ concern, reason }] }
      ])
      t.equal((await ask('/', { headers })).status, 200)
    })
  }
}

t.test('decisions in flight are bounded, and further ones are recorded as such', async (t) => {
  const gateway = await start(t, (url) => ({ forwardAuth: { url, ...shadow, maxConcurrent: 2 } }))
  const { ask } = anyClient(t, 'HTTP/1.1', gateway.port)
  for (let i = 0; i < 5; i++) t.equal((await ask('/')).status, 200)
  await eventually(() => gateway.recorded().length >= 3)
  for (const each of gateway.recorded())
    t.match(each, { error: 'JW_AUTH_UNAVAILABLE', reason: 'forward_auth_overloaded' })
  await eventually(() => gateway.held.length > 0)
  t.ok(gateway.held.length <= 2)
})

t.test('a client that leaves ends the decision, which is not recorded', async (t) => {
  const service = await startService(() => {})
  t.teardown(service.close)
  for (const [concern, , edge] of cases.filter(([name]) => name === 'forward-auth' || name === 'uma')) {
    const gateway = await start(t, edge, 'HTTP/1.1', service.url)
    const client = anyClient(t, 'HTTP/1.1', gateway.port)
    const call = client.begin('/', { headers: bearer })
    await eventually(() => gateway.held.length === 1)
    let isClosed = false
    gateway.held[0]!.request.socket.once('close', () => (isClosed = true))
    await call.leave()
    await eventually(() => isClosed, 'the call to end')
    await eventually(() => gateway.lines('request').length === 1)
    t.match(gateway.lines('request')[0], { status: 499 })
    t.strictSame(gateway.recorded(), [])
    t.equal(await gateway.counted(concern), 0)
  }
})

t.test('a WebSocket opens at once, and its access line has the decision', async (t) => {
  const service = await startWebSocketService({ onPeer: echo })
  t.teardown(service.close)
  const gateway = await start(t, (url) => ({ forwardAuth: { url, ...shadow } }), 'HTTP/1.1', service.url)
  const { peer } = await open(gateway.port, '/x')
  await eventually(() => gateway.held.length === 1)
  refuse(gateway.held[0]!, 'forward-auth')
  await eventually(async () => (await gateway.counted('forward-auth')) === 1)
  peer.send(1, 'hello')
  t.equal((await peer.frame(0)).payload.toString(), 'hello')
  peer.close(1000)
  await eventually(() => gateway.lines('request').length === 1)
  t.match(gateway.lines('request')[0], { status: 101, shadow: [{ concern: 'forward-auth' }] })
})

t.test('what a decision in shadow mode cannot set is warned of, and is no consumer for other concerns', async (t) => {
  const checked = (edge: object) => {
    const warnings: string[] = []
    const config = {
      services: { any: { instances: ['http://127.0.0.1:1'] } },
      routes: [{ name: 'all', match: { path: '/' }, service: 'any' }],
      edge
    }
    parseConfig(
      JSON.stringify(config),
      'gateway.yaml',
      {},
      ({ path, message }) => void warnings.push(`${path}: ${message}`)
    )
    return warnings
  }
  const forwardAuth = {
    url: 'http://127.0.0.1:1',
    responseHeaders: ['x-user'],
    clientHeaders: ['x-a'],
    consumer: 'x-name'
  }
  t.strictSame(checked({ forwardAuth }), [])
  t.strictSame(
    checked({ forwardAuth: { ...forwardAuth, mode: 'shadow' } }),
    ['responseHeaders', 'clientHeaders', 'consumer'].map(
      (key) => `edge.forwardAuth.${key}: not set with mode: shadow, in which no request waits for the decision`
    )
  )
  const acl = { allow: ['staff'] }
  t.throws(
    () => checked({ acl, forwardAuth: { ...forwardAuth, mode: 'shadow' } }),
    /nothing on this route identifies the consumer/
  )
})

t.test('the only method of a route names the caller, also in shadow mode', async (t) => {
  const edge = (url: string) => ({ introspection: { url, clientId: 'a', clientSecret: 'b', ...shadow } })
  const gateway = await start(t, edge)
  const response = anyClient(t, 'HTTP/1.1', gateway.port).ask('/', { headers: bearer })
  await eventually(() => gateway.held.length === 1)
  gateway.held[0]!.response.end('{"active":true,"sub":"ann"}')
  t.equal((await response).status, 200)
  await eventually(() => gateway.lines('request').length === 1)
  t.match(gateway.lines('request')[0]!.consumer, /ann/)
})
