// A service cannot send headers that are reserved for the gateway.
import t from 'tap'
import { connect, gatewayBefore, get, responding, startRawService } from '../../helpers/gateway.ts'

const said = [
  'X-Jingwei-Fallback: stale',
  'Proxy-Status: jingwei; error=connection_refused',
  'Proxy-Status: cdn, "Jingwei"',
  'RateLimit-Limit: 1000000',
  'RateLimit-Policy: 1000000;w=1',
  'RateLimit: limit=1',
  'X-Other: 1'
]
const response = `HTTP/1.1 200 OK\r\n${said.join('\r\n')}\r\nContent-Length: 2\r\n\r\nok`

t.test('response headers that the gateway sets itself are removed', async (t) => {
  const service = await startRawService(responding(response))
  t.teardown(service.close)
  const { port } = await gatewayBefore(t, service.url, { edge: { rateLimit: { max: 5, window: '1m' } } })
  const { headers } = await get(port, '/')
  t.match(headers, { 'ratelimit-limit': '5', 'ratelimit-remaining': '4', 'x-other': '1' })
  for (const name of ['x-jingwei-fallback', 'proxy-status', 'ratelimit-policy', 'ratelimit']) {
    t.notOk(name in headers, name)
  }
})

t.test('the same headers are forwarded if the gateway does not set them', async (t) => {
  const own = 'HTTP/1.1 200 OK\r\nProxy-Status: cdn; error=x\r\nRateLimit-Limit: 7\r\nContent-Length: 2\r\n\r\nok'
  const service = await startRawService(responding(own))
  t.teardown(service.close)
  const { port } = await gatewayBefore(t, service.url)
  t.match((await get(port, '/')).headers, { 'proxy-status': 'cdn; error=x', 'ratelimit-limit': '7' })
})

t.test('reserved fields are removed from a trailer section, too', async (t) => {
  const service = await startRawService(
    responding(
      'HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\nX-Jingwei-Fallback: stale\r\nX-Sum: 7\r\n\r\n'
    )
  )
  t.teardown(service.close)
  const { port } = await gatewayBefore(t, service.url)
  const { socket, until } = connect(port, 'GET / HTTP/1.1\r\nHost: h\r\n\r\n')
  const text = await until('x-sum: 7')
  t.notMatch(text, /x-jingwei/i)
  socket.destroy()
})
