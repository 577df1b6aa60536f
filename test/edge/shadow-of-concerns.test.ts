/** Bundled concerns in shadow mode that need more than the contract's: the service gets the bytes of the request. */
import type { Test } from 'tap'
import t from 'tap'
import type { Protocol } from '../helpers/edge/asking-client.ts'
import { anyClient, listenFor, protocols } from '../helpers/edge/asking-client.ts'
import { echo, open, startWebSocketService } from '../helpers/edge/websocket.ts'
import { eventually } from '../helpers/eventually.ts'
import { connect, startEcho, startGateway, startService } from '../helpers/gateway.ts'

async function start(t: Test, protocol: Protocol, edge: object, route: object = {}, url?: string) {
  const service = await startEcho()
  t.teardown(service.close)
  const gateway = await startGateway(
    {
      listen: listenFor(t, protocol),
      services: { any: { instances: [url ?? service.url] } },
      routes: [{ name: 'all', match: { path: '/' }, service: 'any', ...route }],
      edge
    },
    { log: true }
  )
  t.teardown(gateway.close)
  const lineOf = async (index: number) => {
    const lines = () => gateway.log.filter(({ msg }) => msg === 'request')
    await eventually(() => lines().length > index)
    return lines()[index]!
  }
  const counted = async () => {
    const text = await gateway.server.metrics.metrics()
    return text
      .split('\n')
      .filter((line) => /^jingwei_edge_(refusals|shadow_refusals|shed|graphql_refused)_total\{.* [1-9]/.test(line))
  }
  return { ...gateway, lineOf, counted }
}

const shadowed = (concern: string, count: number) =>
  `jingwei_edge_shadow_refusals_total{concern="${concern}",route="all"} ${count}`

for (const protocol of protocols) {
  t.test(`over ${protocol}, bodyLimit in shadow mode passes larger bodies on`, async (t) => {
    const gateway = await start(t, protocol, { bodyLimit: { max: '10b', mode: 'shadow' } })
    const { ask } = anyClient(t, protocol, gateway.port)
    const body = 'x'.repeat(300_000)
    const lengths: Record<string, string>[] = [{ 'content-length': String(body.length) }, {}]
    for (const [index, headers] of lengths.entries()) {
      const response = await ask('/', { method: 'POST', headers, body })
      t.equal(response.status, 200)
      t.equal(JSON.parse(response.body.toString()).body, body)
      t.match(await gateway.lineOf(index), { shadow: [{ concern: 'body-limit', error: 'JW_BODY_TOO_LARGE' }] })
    }
    t.equal((await ask('/', { method: 'POST', body: 'short' })).status, 200)
    t.strictSame(await gateway.counted(), [shadowed('body-limit', 2)])
  })

  t.test(`over ${protocol}, bodyLimit can be a mapping that refuses`, async (t) => {
    const gateway = await start(t, protocol, { bodyLimit: { max: '10b' } })
    const { ask } = anyClient(t, protocol, gateway.port)
    t.equal((await ask('/', { method: 'POST', body: 'x'.repeat(11) })).status, 413)
    t.equal((await ask('/', { method: 'POST', body: 'x'.repeat(10) })).status, 200)
  })

  t.test(`over ${protocol}, graphql in shadow mode passes on what it would refuse`, async (t) => {
    const graphql = { mode: 'shadow', maxBody: '1kb', maxDepth: 1, persistedQueries: { automatic: '1mb' } }
    const gateway = await start(t, protocol, { graphql })
    const { ask } = anyClient(t, protocol, gateway.port)
    const json = { 'content-type': 'application/json' }
    const large = JSON.stringify({ query: '{a}', variables: { text: 'x'.repeat(300_000) } })
    const hash = 'a'.repeat(64)
    const missing = JSON.stringify({ extensions: { persistedQuery: { version: 1, sha256Hash: hash } } })
    const cases = [
      ['{"query":"{a{b{c}}}"}', json, 'JW_GRAPHQL_LIMIT', 'graphql_depth'],
      ['{"query":', json, 'JW_GRAPHQL_REQUEST', 'graphql_body'],
      ['{"query":"{a}"}', { 'content-type': 'text/plain' }, 'JW_GRAPHQL_TYPE', 'graphql_media_type'],
      [large, { ...json, 'content-length': String(large.length) }, 'JW_BODY_TOO_LARGE', 'graphql_body_size'],
      [large, json, 'JW_BODY_TOO_LARGE', 'graphql_body_size'],
      [missing, json, 'PERSISTED_QUERY_NOT_FOUND', 'graphql_persisted_missing']
    ] as const
    for (const [index, [body, headers, error, reason]] of cases.entries()) {
      const response = await ask('/', { method: 'POST', headers, body })
      t.equal(response.status, 200, reason)
      t.equal(JSON.parse(response.body.toString()).body, body, reason)
      t.match(await gateway.lineOf(index), { shadow: [{ concern: 'graphql', error, reason }] })
    }
    t.equal((await ask('/', { method: 'POST', headers: json, body: '{"query":"{a}"}' })).status, 200)
    t.strictSame(await gateway.counted(), [shadowed('graphql', cases.length)])
  })

  t.test(`over ${protocol}, overload in shadow mode refuses no request`, async (t) => {
    const overload = { requests: 1, eventLoopDelay: false, mode: 'shadow' }
    const gateway = await start(t, protocol, { overload }, { edge: { shedPriority: 'low' } })
    const { ask } = anyClient(t, protocol, gateway.port)
    // floor(90 % of 1) is 0: a route of low priority is always over the limit.
    t.equal((await ask('/')).status, 200)
    t.match(await gateway.lineOf(0), { shadow: [{ concern: 'overload', error: 'JW_OUT_OF_CAPACITY' }] })
    t.strictSame(await gateway.counted(), [shadowed('overload', 1)])
    t.ok(gateway.server.edgeOrder.namesOn({ edge: {} }).includes('overload (shadow)'))
  })

  t.test(`over ${protocol}, cors in shadow mode leaves CORS to the service`, async (t) => {
    const cors = { origin: 'https://good.example', mode: 'shadow' }
    const gateway = await start(t, protocol, { cors })
    const { ask } = anyClient(t, protocol, gateway.port)
    const preflight = { 'access-control-request-method': 'PUT' }
    const cases = [
      ['OPTIONS', { origin: 'https://bad.example', ...preflight }, true],
      ['OPTIONS', { origin: 'https://good.example', ...preflight }, false],
      ['GET', { origin: 'https://bad.example' }, false],
      ['GET', { origin: 'https://good.example' }, false],
      ['GET', {}, false]
    ] as const
    for (const [index, [method, headers, isRefused]] of cases.entries()) {
      const response = await ask('/', { method, headers })
      t.equal(response.status, 200)
      t.equal(JSON.parse(response.body.toString()).method, method, 'the service has the request')
      t.equal(response.headers['access-control-allow-origin'], undefined)
      const shadow = isRefused ? [{ concern: 'cors', error: 'JW_ORIGIN_REFUSED', reason: 'cors_origin' }] : undefined
      t.strictSame((await gateway.lineOf(index)).shadow, shadow)
    }
    t.strictSame(await gateway.counted(), [shadowed('cors', 1)])
  })
}

t.test(
  'in shadow mode the CORS headers of the service reach the client, and a route without OPTIONS gets none',
  async (t) => {
    const service = await startService((_request, response) => {
      response.setHeader('access-control-allow-origin', 'https://own.example').end()
    })
    t.teardown(service.close)
    const match = { path: '/', methods: ['GET'] }
    const cors = { origin: 'https://good.example', mode: 'shadow' }
    const gateway = await start(t, 'HTTP/1.1', { cors }, { match }, service.url)
    const { ask } = anyClient(t, 'HTTP/1.1', gateway.port)
    t.equal((await ask('/')).headers['access-control-allow-origin'], 'https://own.example')
    const headers = { origin: 'https://good.example', 'access-control-request-method': 'GET' }
    t.equal((await ask('/', { method: 'OPTIONS', headers })).status, 405, 'as without cors')
  }
)

t.test('in shadow mode a WebSocket of another origin opens', async (t) => {
  const service = await startWebSocketService({ onPeer: echo })
  t.teardown(service.close)
  const gateway = await start(
    t,
    'HTTP/1.1',
    { cors: { origin: 'https://good.example', mode: 'shadow' } },
    {},
    service.url
  )
  const { peer } = await open(gateway.port, '/x', ['Origin: https://bad.example'])
  peer.send(1, 'hello')
  t.equal((await peer.frame(0)).payload.toString(), 'hello')
  peer.close(1000)
  t.match(await gateway.lineOf(0), { status: 101, shadow: [{ concern: 'cors', error: 'JW_ORIGIN_REFUSED' }] })
})

t.test('a client that disconnects within a body that a concern has read in part ends its request only', async (t) => {
  const auth = await startService((_request, response) => response.end())
  t.teardown(auth.close)
  let received = 0
  const service = await startService((request, response) => {
    request.on('data', (chunk: Buffer) => (received += chunk.length))
    request.once('end', () => response.end())
  })
  t.teardown(service.close)
  const edges = [
    { forwardAuth: { url: auth.url, forwardBody: true, maxBodySize: '64kb', mode: 'shadow' } },
    { graphql: { maxBody: '64kb', mode: 'shadow' } }
  ]
  for (const edge of edges) {
    received = 0
    const gateway = await start(t, 'HTTP/1.1', edge, {}, service.url)
    const client = await connect(gateway.port)
    const head = ['POST / HTTP/1.1', 'Host: x', 'Content-Type: application/json', 'Transfer-Encoding: chunked']
    client.socket.write(`${head.join('\r\n')}\r\n\r\n11170\r\n${'x'.repeat(70_000)}\r\n`)
    await eventually(() => received === 70_000)
    client.socket.destroy()
    t.match(await gateway.lineOf(0), { status: 499, error: 'JW_CLIENT_GONE' })
    const { ask } = anyClient(t, 'HTTP/1.1', gateway.port)
    t.equal((await ask('/')).status, 200, 'the gateway runs')
  }
})
