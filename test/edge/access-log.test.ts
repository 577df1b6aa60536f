import t from 'tap'
import { eventually } from '../helpers/eventually.ts'
import { get, raw, responding, startGateway, startRawService } from '../helpers/gateway.ts'

t.test('each request has one line, refusals included, without secrets', async (t) => {
  const service = await startRawService(responding('HTTP/1.1 201 Created\r\nContent-Length: 5\r\n\r\nhello'))
  t.teardown(service.close)
  const gateway = await startGateway(
    {
      services: { any: { instances: [service.url] }, down: { instances: ['http://127.0.0.1:1'] } },
      routes: [
        { name: 'api', match: { path: '/api' }, service: 'any' },
        { name: 'quiet', match: { path: '/quiet' }, service: 'any', edge: { accessLog: false } },
        { name: 'down', match: { path: '/down' }, service: 'down' }
      ]
    },
    { log: true }
  )
  t.teardown(gateway.close)
  const { port, log } = gateway
  const lines = () => log.filter((line) => line.msg === 'request')
  const secrets = ['Authorization: Bearer hunter2', 'Cookie: sid=hunter2', 'X-Api-Key: hunter2']
  await get(port, '/api/x?token=hunter2', [...secrets, 'User-Agent: me/1', 'X-Request-Id: abc'])
  await get(port, '/quiet')
  await get(port, '/down?token=hunter2', secrets)
  await get(port, '/nowhere?token=hunter2', secrets)
  await get(port, '/api/../x?token=hunter2', secrets)
  await eventually(() => lines().length >= 4)
  const [first, ...others] = lines()
  t.match(first, {
    requestId: 'abc', method: 'GET', path: '/api/x', route: 'api', status: 201, ip: '127.0.0.1', agent: 'me/1',
    service: 'any', instance: service.url, attempts: 1, bytesSent: 5, durationMs: Number
  }) // biome-ignore format: as in the line
  t.notOk(first && 'error' in first)
  t.match(others, [
    { route: 'down', status: 502, path: '/down', error: 'JW_UPSTREAM_REFUSED' },
    { route: null, status: 404, path: '/nowhere', error: 'JW_NO_ROUTE' },
    { route: 'api', status: 400, path: '/api/../x', error: 'JW_AMBIGUOUS_PATH' }
  ])
  t.equal(lines().length, 4)
  t.notMatch(JSON.stringify(log), /hunter2/)
})

t.test('the credentials of a target in absolute form are masked', async (t) => {
  const gateway = await startGateway({ services: {}, routes: [] }, { log: true })
  t.teardown(gateway.close)
  const { port, log } = gateway
  const lines = () => log.filter((line) => line.msg === 'request')
  for (const credentials of ['me:hunter2', 'me@home:hunter2', 'hunter2', 'me:hunter2?x', 'me:hunter2#x']) {
    await raw(port, `GET http://${credentials}@host/nowhere?q HTTP/1.1\r\nHost: host\r\nConnection: close\r\n\r\n`)
  }
  await eventually(() => lines().length === 5)
  t.match(lines()[0], { path: 'http://***@host/nowhere' })
  t.notMatch(JSON.stringify(log), /hunter2/)
})

t.test('with the access log off, requests without a route are not logged either', async (t) => {
  const gateway = await startGateway({ edge: { accessLog: false }, services: {}, routes: [] }, { log: true })
  t.teardown(gateway.close)
  t.equal((await get(gateway.port, '/nowhere')).status, 404)
  await new Promise((resolve) => setTimeout(resolve, 20))
  t.strictSame(
    gateway.log.filter((line) => line.msg === 'request'),
    []
  )
})

t.test('the line of a path that the router cannot decode has the id that the client received', async (t) => {
  const gateway = await startGateway({ services: {}, routes: [] }, { log: true })
  t.teardown(gateway.close)
  const { status, headers } = await get(gateway.port, '/%zz', ['X-Request-Id: abc'])
  t.match([status, headers['x-request-id']], [400, 'abc'])
  await eventually(() => gateway.log.some(({ msg }) => msg === 'request'))
  const [line] = gateway.log.filter(({ msg }) => msg === 'request')
  t.match(line, {
    requestId: 'abc',
    route: null,
    status: 400,
    ip: '127.0.0.1',
    answeredBy: 'gateway',
    reason: 'bad-path'
  })
})
