import type { Test } from 'tap'
import t from 'tap'
import { ask, get, startEcho, startGateway } from '../../helpers/gateway.ts'

async function routed(t: Test) {
  const echo = await startEcho()
  t.teardown(echo.close)
  const routes = [
    { name: 'all', match: { path: '/' } },
    { name: 'traced', match: { path: '/traced', methods: ['GET', 'TRACE'] } }
  ].map((route) => ({ ...route, service: 'any' }))
  const gateway = await startGateway({ services: { any: { instances: [echo.url] } }, routes })
  t.teardown(gateway.close)
  return gateway.port
}

t.test('Max-Forwards is decremented for OPTIONS and TRACE only', async (t) => {
  const port = await routed(t)
  const left = async (method: string, value: string, path = '/traced') =>
    (await ask(port, path, [`Max-Forwards: ${value}`], method)).headers['max-forwards']
  t.equal(await left('OPTIONS', '5', '/'), '4')
  t.equal(await left('OPTIONS', '1', '/'), '0')
  t.equal(await left('TRACE', '10'), '9')
  t.equal(await left('OPTIONS', '1000000000', '/'), '999999999')
  for (const many of ['2147483649', '9'.repeat(30)])
    t.equal(await left('TRACE', many), '2147483647', 'larger values become the maximum')
  t.equal(await left('GET', '0'), '0')
  t.equal(await left('OPTIONS', 'many', '/'), 'many', 'a value that is not a number is forwarded unchanged')
  t.equal((await ask(port, '/', [], 'OPTIONS')).headers['max-forwards'], undefined)
})

t.test(
  'at 0 the gateway responds to OPTIONS with the methods of the route, and to TRACE with the request',
  async (t) => {
    const port = await routed(t)
    const options = await get(port, '/x', ['Max-Forwards: 0'], 'OPTIONS')
    t.equal(options.status, 204)
    t.equal(options.headers.allow, 'GET, HEAD, POST, PUT, PATCH, DELETE, OPTIONS')
    const secrets = ['Cookie: a=1', 'Authorization: Bearer x', 'X-Api-Key: y']
    const trace = await get(port, '/traced?q', ['Max-Forwards: 0', 'X-Plain: caf\xe9', ...secrets], 'TRACE')
    t.equal(trace.status, 200)
    t.equal(trace.headers['content-type'], 'message/http')
    t.equal(
      trace.body,
      'TRACE /traced?q HTTP/1.1\r\nHost: h\r\nMax-Forwards: 0\r\nX-Plain: caf\xe9\r\nConnection: close\r\n\r\n'
    )
  }
)

t.test('the gateway responds to OPTIONS *', async (t) => {
  const port = await routed(t)
  for (const target of ['*', 'http://h']) {
    const { status, headers } = await get(port, target, [], 'OPTIONS')
    t.equal(status, 204, target)
    t.equal(headers.allow, 'DELETE, GET, HEAD, OPTIONS, PATCH, POST, PUT, TRACE')
  }
  t.equal((await get(port, '*')).status, 400)
})
