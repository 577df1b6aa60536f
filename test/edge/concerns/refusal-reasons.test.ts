import type { Test } from 'tap'
import t from 'tap'
import { anyClient, listenFor, protocols } from '../../helpers/edge/asking-client.ts'
import { handshake } from '../../helpers/edge/websocket.ts'
import { eventually } from '../../helpers/eventually.ts'
import { connect, raw, startEcho, startGateway, startService } from '../../helpers/gateway.ts'

for (const protocol of protocols) {
  t.test(`the access line has the reason of a refused target over ${protocol}`, async (t) => {
    const echo = await startEcho()
    t.teardown(echo.close)
    const gateway = await startGateway(
      {
        listen: listenFor(t, protocol),
        services: { any: { instances: [echo.url] } },
        routes: [{ name: 'all', match: { path: '/' }, service: 'any' }]
      },
      { log: true }
    )
    t.teardown(gateway.close)
    const { ask } = anyClient(t, protocol, gateway.port)
    const lines = () => gateway.log.filter(({ msg }) => msg === 'request')
    const cases = [
      ['/a/../b', 'path_dot_segment'],
      ['/a/%2e%2E/b', 'path_dot_segment'],
      ['/a/.;/b', 'path_dot_segment'],
      ['/a;b=1/c', 'path_parameters'],
      ['/a%3bb/c', 'path_parameters'],
      ['/a\\b', 'path_backslash'],
      ['/a%5cb', 'path_backslash'],
      ['/a%2fb', 'path_encoded_slash'],
      ['/a%00b', 'path_nul'],
      ['/%c0%ae', 'path_overlong_utf8'],
      ['/a#b', 'path_fragment']
    ] as const
    for (const [index, [path, reason]] of cases.entries()) {
      t.equal((await ask(path)).status, 400, path)
      await eventually(() => lines().length > index)
      t.match(lines()[index], { error: 'JW_AMBIGUOUS_PATH', reason, status: 400 }, path)
    }
    // Over HTTP/1.1, Node's parser refuses it.
    if (protocol !== 'HTTP/2') return
    t.equal((await ask('/\u00e9')).status, 400)
    await eventually(() => lines().length > cases.length)
    t.match(lines().at(-1), { error: 'JW_BAD_TARGET', reason: 'target_characters' })
  })
}

/** Services that refuse calls, and the reasons; requests to `/wait` are held. */
function refusingServices(url: string) {
  const breaker = { errorRatio: false, slowRatio: false }
  const balance = { policy: 'round-robin', panicThreshold: '0%' }
  const healthCheck = { path: '/fail', interval: '50ms', timeout: '1s', unhealthyThreshold: 1 }
  return {
    unknown: {},
    none: { instances: [url], subsets: { blue: { tags: ['blue'] } } },
    unavailable: { instances: [url], mesh: { balance, healthCheck } },
    requests: { instances: [url], mesh: { circuitBreaker: { ...breaker, maxRequests: 1 } } },
    pending: { instances: [url], mesh: { circuitBreaker: { ...breaker, maxConnections: 1, maxPendingRequests: 0 } } },
    open: { instances: [url], mesh: { retry: false, circuitBreaker: { errorRatio: '1%', minRequests: 1 } } }
  }
}

async function refusing(t: Test, listen: object) {
  const service = await startService(({ url }, response) => {
    if (url?.endsWith('/fail')) response.writeHead(500).end()
  })
  t.teardown(service.close)
  const services = refusingServices(service.url)
  const routes = Object.keys(services).map((name) => {
    const mesh = name === 'none' ? { subset: 'blue' } : {}
    return { name, match: { path: `/${name}` }, service: name, mesh }
  })
  const discovery = { consul: { url: 'http://127.0.0.1:9' } }
  const gateway = await startGateway({ listen, discovery, services, routes }, { log: true })
  t.teardown(gateway.close)
  return gateway
}

for (const protocol of protocols) {
  t.test(`the access line has the reason of a refusal of the mesh over ${protocol}`, async (t) => {
    const gateway = await refusing(t, listenFor(t, protocol))
    const { ask, begin } = anyClient(t, protocol, gateway.port)
    const refused = async (route: string, error: string, reason: string) => {
      const { status, body } = await ask(`/${route}`)
      t.equal(status, 503)
      t.notMatch(body.toString(), reason)
      const line = () => gateway.log.find((line) => line.route === route && line.status === 503)
      await eventually(() => line() !== undefined)
      t.match(line(), { error, reason, answeredBy: 'gateway' })
    }
    await refused('unknown', 'JW_NO_INSTANCE', 'instances_unknown')
    await refused('none', 'JW_NO_INSTANCE', 'instances_none')
    await eventually(() => !gateway.server.mesh.service('unavailable').status().instances[0]!.available)
    await refused('unavailable', 'JW_NO_INSTANCE', 'instances_unavailable')
    for (const route of ['requests', 'pending']) {
      const held = begin(`/${route}/wait`)
      await eventually(() => gateway.server.mesh.service(route).status().active === 1)
      await refused(route, 'JW_OVERLOADED', `overload_${route}`)
      await held.leave()
    }
    t.equal((await ask('/open/fail')).status, 500)
    await refused('open', 'JW_CIRCUIT_OPEN', 'circuit_open')
  })
}

t.test('the access line has the reason of a WebSocket that the mesh refuses', async (t) => {
  const gateway = await refusing(t, {})
  const client = connect(gateway.port, handshake('/unknown'))
  await client.until('503')
  client.socket.destroy()
  await eventually(() => gateway.log.some(({ msg }) => msg === 'request'))
  const line = gateway.log.find(({ msg }) => msg === 'request')
  t.match(line, { status: 503, error: 'JW_NO_INSTANCE', reason: 'instances_unknown', answeredBy: 'gateway' })
})

t.test('the access line has the reason of malformed hosts, framing and targets', async (t) => {
  const gateway = await startGateway({ services: {}, routes: [] }, { log: true })
  t.teardown(gateway.close)
  const lines = () => gateway.log.filter(({ msg }) => msg === 'request')
  const cases = [
    ['GET / HTTP/1.1\r\nHost: a b\r\n', 'JW_BAD_HOST', 'host_malformed'],
    ['GET / HTTP/1.1\r\nHost:\r\n', 'JW_BAD_HOST', 'host_missing'],
    ['GET * HTTP/1.1\r\nHost: h\r\n', 'JW_BAD_TARGET', 'target_form'],
    ['POST / HTTP/1.0\r\nHost: h\r\nTransfer-Encoding: chunked\r\n', 'JW_BAD_FRAMING', 'framing_transfer_encoding'],
    ['POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 00\r\n', 'JW_BAD_FRAMING', 'framing_content_length']
  ] as const
  for (const [index, [bytes, error, reason]] of cases.entries()) {
    await raw(gateway.port, `${bytes}Connection: close\r\n\r\n`)
    await eventually(() => lines().length > index)
    t.match(lines()[index], { error, reason }, JSON.stringify(bytes))
  }
  const client = connect(gateway.port, 'BAD\r\n\r\n')
  await client.closed
  await eventually(() => lines().length > cases.length)
  t.match(lines().at(-1), { status: 400, reason: 'malformed', answeredBy: 'gateway', error: /^HPE_/, ip: '127.0.0.1' })
})
