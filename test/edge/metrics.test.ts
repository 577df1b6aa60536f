import t from 'tap'
import { eventually } from '../helpers/eventually.ts'
import { connect, get, responding, startGateway, startRawService } from '../helpers/gateway.ts'

t.test('requests are counted by route, method and status, and no label comes from a client', async (t) => {
  const service = await startRawService(responding('HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok'))
  let requests = 0
  const silent = await startRawService((socket) => socket.once('data', () => requests++))
  t.teardown(service.close)
  t.teardown(silent.close)
  const { port, server, close } = await startGateway({
    admin: { port: 0 },
    services: { any: { instances: [service.url] }, silent: { instances: [silent.url] } },
    routes: [
      { name: 'api', match: { path: '/api' }, service: 'any' },
      { name: 'slow', match: { path: '/slow' }, service: 'silent' }
    ]
  })
  t.teardown(close)
  const text = () => server.metrics.metrics()
  await get(port, '/api')
  await get(port, '/api/x?y=1')
  await get(port, '/api', ['Content-Length: 0'], 'POST')
  await get(port, '/api/../x')
  for (let n = 0; n < 5; n++) await get(port, `/nowhere${n}`, [`Host: h${n}`], ['GET', 'PROPFIND', 'MKCOL'][n % 3])
  await get(port, '/api', [], 'PROPFIND')
  const client = connect(port, 'GET /slow HTTP/1.1\r\nHost: h\r\n\r\n')
  await eventually(() => requests === 1)
  t.match(await text(), /^jingwei_edge_connections\{listener="default"\} 1$/m)
  client.socket.destroy()
  let last = ''
  const read = async () => {
    last = await text()
  }
  for (let n = 0; n < 300 && !last.includes('status="499"'); n++) {
    await read()
    await new Promise((resolve) => setTimeout(resolve, 10))
  }
  const counts = last.split('\n').filter((line) => line.startsWith('jingwei_edge_requests_total{'))
  t.strictSame(counts.sort(), [
    'jingwei_edge_requests_total{route="(none)",method="(any)",status="404",direction="north-south"} 5',
    'jingwei_edge_requests_total{route="(none)",method="(any)",status="405",direction="north-south"} 1',
    'jingwei_edge_requests_total{route="api",method="GET",status="200",direction="north-south"} 2',
    'jingwei_edge_requests_total{route="api",method="GET",status="400",direction="north-south"} 1',
    'jingwei_edge_requests_total{route="api",method="POST",status="200",direction="north-south"} 1',
    'jingwei_edge_requests_total{route="slow",method="GET",status="499",direction="north-south"} 1'
  ])
  t.match(last, /^jingwei_edge_request_duration_seconds_count\{route="api",direction="north-south"\} 4$/m)
  t.match(last, /^jingwei_edge_request_duration_seconds_count\{route="slow",direction="north-south"\} 1$/m)
})
