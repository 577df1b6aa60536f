/** `edge.metrics`: requests by consumer, with a bound on the series. */
import t from 'tap'
import { anyClient, listenFor, protocols } from '../../helpers/edge/asking-client.ts'
import { claims, secret, token } from '../../helpers/edge/tokens.ts'
import { handshake, startWebSocketService } from '../../helpers/edge/websocket.ts'
import { eventually } from '../../helpers/eventually.ts'
import { connect, gatewayBefore, startEcho } from '../../helpers/gateway.ts'

const bearer = (sub: string) => ({ authorization: `Bearer ${token(claims({ sub }))}` })
const countsOf = (text: string) =>
  Object.fromEntries(
    [...text.matchAll(/^jingwei_edge_consumer_requests_total\{consumer="(.*)",status="(.*)"\} (\d+)$/gm)].map(
      ([, consumer, status, count]) => [`${consumer} ${status}`, Number(count)]
    )
  )

for (const protocol of protocols) {
  t.test(`requests are counted by consumer over ${protocol}`, async (t) => {
    const echo = await startEcho()
    t.teardown(echo.close)
    const { port, server } = await gatewayBefore(t, echo.url, {
      listen: listenFor(t, protocol),
      admin: { port: 0 },
      edge: { jwt: { secret }, metrics: { consumers: 2 }, acl: { denyConsumers: ['bob'] } }
    })
    const { ask } = anyClient(t, protocol, port)
    const long = 'x'.repeat(300)
    for (const sub of [long, 'ann', 'ann', 'bob', 'carl', 'dora', 'ann', '(other)'])
      await ask('/', { headers: bearer(sub) })
    await ask('/')
    const expected = { 'ann 2xx': 3, 'bob 4xx': 1, '(other) 2xx': 4, '(none) 4xx': 1 }
    await eventually(async () => Object.keys(countsOf(await server.metrics.metrics())).length === 4)
    t.same(countsOf(await server.metrics.metrics()), expected)
  })
}

t.test('a WebSocket is counted when it ends; without the setting, there are no such series', async (t) => {
  const service = await startWebSocketService()
  t.teardown(service.close)
  const metricsOf = async (edge: object) => {
    const { port, server } = await gatewayBefore(t, service.url, {
      admin: { port: 0 },
      edge: { jwt: { secret }, ...edge }
    })
    const client = connect(port, handshake('/', [`Authorization: ${bearer('ann').authorization}`]))
    await client.until('\r\n\r\n')
    client.socket.destroy()
    await eventually(async () => /requests_total\{[^}]*status="101"/.test(await server.metrics.metrics()))
    return server.metrics.metrics()
  }
  t.same(countsOf(await metricsOf({ metrics: { consumers: 1 } })), { 'ann 1xx': 1 })
  t.notMatch(await metricsOf({}), 'consumer_requests')
})
