// slow: starts InfluxDB
/** Metrics that are pushed, to a receiver of the test and to a real InfluxDB. */
import { once } from 'node:events'
import type { IncomingMessage, ServerResponse } from 'node:http'
import http from 'node:http'
import type { AddressInfo } from 'node:net'
import { hostname } from 'node:os'
import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import type { Test } from 'tap'
import t from 'tap'
import type { MetricData } from '../../plugins/operations/line-protocol.ts'
import { lineProtocol } from '../../plugins/operations/line-protocol.ts'
import { atOnce } from '../../plugins/time-slices.ts'
import { eventually } from '../helpers/eventually.ts'
import { get, startGateway, startService } from '../helpers/gateway.ts'
import { freePort, start } from '../helpers/processes.ts'
import { tool } from '../helpers/tools.ts'
import { startFrom } from './support.ts'

interface Pushed {
  readonly url: string
  readonly headers: IncomingMessage['headers']
  readonly body: string
}

/** A receiver; `answer` responds to each push. */
async function receiver(t: Test, answer: (response: ServerResponse, count: number) => void) {
  const pushed: Pushed[] = []
  const server = http.createServer(async (request, response) => {
    let body = ''
    for await (const chunk of request) body += String(chunk)
    pushed.push({ url: `${request.method} ${request.url}`, headers: request.headers, body })
    answer(response, pushed.length)
  })
  server.listen(0, '127.0.0.1')
  await once(server, 'listening')
  t.teardown(() => {
    server.close()
    server.closeAllConnections()
  })
  return { pushed, port: (server.address() as AddressInfo).port }
}

async function gatewayPushing(t: Test, push: object) {
  const config = { metricsPush: { interval: '50ms', ...push }, services: {}, routes: [] }
  const gateway = await startGateway(config, { log: true })
  t.teardown(gateway.close)
  const count = async (result: string) => {
    const text = await gateway.server.metrics.metrics()
    return Number(new RegExp(`jingwei_metrics_pushes_total\\{result="${result}"\\} (\\d+)`).exec(text)?.[1])
  }
  return { ...gateway, count }
}

t.test('lines have the layout of Telegraf, and hostile labels stay labels', async (t) => {
  const metrics: MetricData[] = [
    {
      name: 'a_total',
      type: 'counter',
      values: [
        { labels: { route: 'x y,z=1\\' }, value: 3 },
        { labels: { route: '' }, value: 4 }
      ]
    },
    {
      name: 'g',
      type: 'gauge',
      values: [
        { labels: { le: 'kept' }, value: 1.5 },
        { labels: {}, value: Number.NaN }
      ]
    },
    {
      name: 'h',
      type: 'histogram',
      values: [
        { metricName: 'h_bucket', labels: { route: 'r', le: 0.5 }, value: 1 },
        { metricName: 'h_bucket', labels: { route: 'r', le: '+Inf' }, value: 2 },
        { metricName: 'h_sum', labels: { route: 'r' }, value: 0.75 },
        { metricName: 'h_count', labels: { route: 'r' }, value: 2 }
      ]
    },
    {
      name: 's',
      type: 'summary',
      values: [
        { labels: { quantile: 0.9 }, value: 5 },
        { metricName: 's_count', labels: {}, value: 6 }
      ]
    },
    { name: 'n', type: 'counter', values: [{ labels: { a: 'b\nc 1=2' }, value: 1 }] }
  ]
  t.strictSame(atOnce(lineProtocol(metrics, { host: 'm 1' }, 1_700_000_000_123)).split('\n'), [
    'a_total,host=m\\ 1,route=x\\ y\\,z\\=1\\  counter=3 1700000000123000000',
    'a_total,host=m\\ 1 counter=4 1700000000123000000',
    'g,host=m\\ 1,le=kept gauge=1.5 1700000000123000000',
    'h,host=m\\ 1,route=r 0.5=1,+Inf=2,sum=0.75,count=2 1700000000123000000',
    's,host=m\\ 1 0.9=5,count=6 1700000000123000000',
    'n,a=b\\ c\\ 1\\=2,host=m\\ 1 counter=1 1700000000123000000',
    ''
  ])
})

t.test('all metrics are posted at the interval, without the admin port', async (t) => {
  const { pushed, port } = await receiver(t, (response) => response.writeHead(204).end())
  const { count, port: own } = await gatewayPushing(t, {
    url: `http://me:p%40ss@127.0.0.1:${port}/write?db=gateway`,
    headers: { 'x-scope': 'a' },
    tags: { cluster: 'eu 1' }
  })
  await get(own, '/nowhere')
  await eventually(() => pushed.some(({ body }) => body.includes('jingwei_edge_requests_total')))
  t.match(pushed[0], {
    url: 'POST /write?db=gateway',
    headers: { authorization: `Basic ${Buffer.from('me:p@ss').toString('base64')}`, 'x-scope': 'a' }
  })
  const lines = pushed.at(-1)!.body.split('\n')
  const own404 = lines.find((line) => line.startsWith('jingwei_edge_requests_total'))!
  t.match(
    own404,
    `cluster=eu\\ 1,direction=north-south,host=${hostname()},method=(any),role=gateway,route=(none),status=404 counter=1 `
  )
  t.ok(lines.some((line) => line.startsWith('nodejs_heap_size_total_bytes')))
  await eventually(async () => (await count('success')) >= 2)
  t.equal(await count('failure'), 0)
})

t.test('failures are counted, logged once, and end when the server recovers', async (t) => {
  const { pushed, port } = await receiver(t, (response, n) => {
    if (n === 1) response.writeHead(400, { 'x-influxdb-error': 'no database\u00e9' }).end('x')
    else if (n === 2) response.writeHead(302, { location: 'http://127.0.0.1:9/' }).end()
    else if (n === 3) response.destroy()
    else if (n === 4) response.writeHead(200).flushHeaders()
    else if (n > 5) response.writeHead(204).end()
    // The fifth gets no response.
  })
  const { count, log } = await gatewayPushing(t, { url: `http://127.0.0.1:${port}/write?p=hunter2`, timeout: '200ms' })
  await eventually(() => pushed.length >= 6)
  await eventually(() => log.filter(({ msg }) => /again/.test(String(msg))).length === 2)
  t.equal(await count('failure'), 4)
  t.ok((await count('success')) >= 2)
  const about = log.map(({ msg }) => String(msg)).filter((msg) => msg.includes('pushed to'))
  t.match(about, [/^metrics cannot be pushed to .*\?\*\*\*: status 400, no database/, /again$/, /timeout$/, /again$/])
  t.notMatch(JSON.stringify(log), /hunter2/)
})

t.test('a server that repeats what it was sent brings no secret into the log', async (t) => {
  const { port } = await receiver(t, (response) =>
    response
      .writeHead(401, { 'x-influxdb-error': 'no access for me:hunter2/a, hunter2-p, Token hunter2-t to db gateway' })
      .end()
  )
  const { log } = await gatewayPushing(t, {
    url: `http://me:hunter2%2Fa@127.0.0.1:${port}/write?p=hunter2-p&db=gateway`,
    headers: { 'x-token': 'Token hunter2-t' }
  })
  const told = () => log.map(({ msg }) => String(msg)).filter((msg) => msg.includes('cannot be pushed'))
  await eventually(() => told().length > 0)
  t.match(told()[0], /no access for me:\*\*\*, \*\*\*, \*\*\* to db gateway$/)
  t.notMatch(JSON.stringify(log), /hunter2/)
})

t.test('a server that is down holds up neither requests nor the end', async (t) => {
  const { port, count, close } = await gatewayPushing(t, { url: 'http://127.0.0.1:9/write' })
  await eventually(async () => (await count('failure')) >= 2)
  t.equal((await get(port, '/nowhere')).status, 404)
  await close()
})

t.test('a reload without the section ends the pushes, also while the replaced configuration serves', async (t) => {
  const { pushed, port: to } = await receiver(t, (response) => response.writeHead(204).end())
  const held: ServerResponse[] = []
  const service = await startService((_request, response) => void held.push(response))
  t.teardown(service.close)
  const sections = {
    services: { any: { instances: [service.url] } },
    routes: [{ name: 'all', match: { path: '/' }, service: 'any' }]
  }
  const metricsPush = { url: `http://127.0.0.1:${to}/write`, interval: '50ms' }
  const { runtime, write, port } = await startFrom(t, { ...sections, metricsPush })
  t.teardown(() => runtime.close())
  const reload = async (next: object) => {
    write(next)
    t.ok((await runtime.reload('test')).applied)
  }
  const response = get(port, '/')
  await eventually(() => held.length === 1 && pushed.length > 0)
  await reload(sections)
  await sleep(100)
  const { length } = pushed
  await sleep(500)
  t.equal(pushed.length, length)
  held[0]!.end()
  t.equal((await response).status, 200, 'a request that the replaced configuration has served all the time')
  await reload({ ...sections, metricsPush })
  await eventually(() => pushed.length > length)
})

t.test('InfluxDB stores what is pushed', async (t) => {
  const { path, env } = await tool('influxd')
  const [port, rpc] = [await freePort(), await freePort()]
  const folder = t.testdir({
    'influx.conf': `reporting-disabled = true
bind-address = "127.0.0.1:${rpc}"
[meta]
  dir = "${t.testdirName}/meta"
[data]
  dir = "${t.testdirName}/data"
  wal-dir = "${t.testdirName}/wal"
[http]
  bind-address = "127.0.0.1:${port}"
  auth-enabled = false
[monitor]
  store-enabled = false
`
  })
  const url = `http://127.0.0.1:${port}`
  const running = await start({
    command: path,
    args: ['-config', join(folder, 'influx.conf')],
    env,
    name: 'influxd',
    ready: async () => (await fetch(`${url}/ping`)).status === 204
  })
  t.teardown(() => running.stop())
  const query = async (q: string) =>
    (await fetch(`${url}/query?db=gateway&q=${encodeURIComponent(q)}`, { method: 'POST' })).json() as Promise<{
      results: { series?: { columns: string[]; values: unknown[][] }[] }[]
    }>
  const { count, port: own, log } = await gatewayPushing(t, { url: `${url}/write?db=gateway` })
  await eventually(
    () => log.some(({ msg }) => /status 404, database not found/.test(String(msg))),
    'the reason of InfluxDB'
  )
  await query('CREATE DATABASE gateway')
  await get(own, '/nowhere')
  await get(own, '/nowhere')
  await eventually(async () => (await count('success')) >= 2)
  const valuesOf = async (q: string) => (await query(q)).results[0]?.series?.[0]?.values[0]
  await eventually(
    async () =>
      (await valuesOf(`SELECT last(counter) FROM jingwei_edge_requests_total WHERE "status" = '404'`))?.[1] === 2
  )
  const [, observed, fast] = (await valuesOf(
    `SELECT last("count"), last("30") FROM jingwei_edge_request_duration_seconds WHERE "route" = '(none)'`
  ))!
  t.strictSame([observed, fast], [2, 2])
  const hosts = await query('SHOW TAG VALUES FROM jingwei_edge_requests_total WITH KEY = "host"')
  t.strictSame(hosts.results[0]?.series?.[0]?.values, [['host', hostname()]])
})
