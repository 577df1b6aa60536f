// slow: takes about 5 s
/** The admin port: accepted hosts and origins, and hidden secrets. */
import http from 'node:http'
import type { AddressInfo } from 'node:net'
import { hostname } from 'node:os'
import { join } from 'node:path'
import type { Test } from 'tap'
import t from 'tap'
import { viewOf } from '../../plugins/mesh/core/service-status.ts'
import { raw, startGateway } from '../helpers/gateway.ts'
import { runToEnd } from '../helpers/processes.ts'

async function adminOf(t: Test, config: object) {
  const gateway = await startGateway(config, { log: true })
  t.teardown(gateway.close)
  await gateway.server.admin!.listen({ host: '127.0.0.1', port: 0 })
  const { port } = gateway.server.admin!.server.address() as AddressInfo
  const get = (headers: Record<string, string>, path = '/metrics') =>
    new Promise<{ status: number; text: string }>((resolve, reject) => {
      const request = http.get({ host: '127.0.0.1', port, path, headers, agent: false }, (response) => {
        let text = ''
        response.setEncoding('utf8').on('data', (chunk: string) => {
          text += chunk
        })
        response.once('end', () => resolve({ status: response.statusCode!, text }))
      })
      request.once('error', reject)
    })
  return { gateway, port, get }
}

t.test('the admin port accepts its own names and addresses as Host, and configured ones', async (t) => {
  const { port, get } = await adminOf(t, {
    admin: { port: 0, hosts: ['gateway.internal', '*.svc.example', '10.1.2.3'] }
  })
  const own = [
    `127.0.0.1:${port}`, '127.0.0.1', 'localhost', `LOCALHOST:${port}`, 'localhost.', `[::1]:${port}`, '[::ffff:127.0.0.1]',
    hostname(), `${hostname().toUpperCase()}:${port}`, 'gateway.internal', `Gateway.Internal.:${port}`, 'a.svc.example',
    'a.b.svc.example:8081', '10.1.2.3:80'
  ] // biome-ignore format: a list
  for (const host of own) t.equal((await get({ host })).status, 200, host)
  const others = [
    'evil.example', `evil.example:${port}`, 'localhost.evil.example', '127.0.0.1.evil.example', '10.1.2.4', '[::2]:80',
    'svc.example', 'evilsvc.example', 'gateway.internal.evil.example', ':80', '[', '[]', 'a:b:c', '127.0.0.1@evil.example'
  ] // biome-ignore format: a list
  for (const path of ['/metrics', '/health/ready', '/health/live', '/admin/routes', '/admin/explain?path=/', '/none']) {
    for (const host of others) {
      const { status, text } = await get({ host }, path)
      t.equal(status, 421, `${path} ${JSON.stringify(host)}`)
      t.match(JSON.parse(text), { statusCode: 421, code: 'JW_ADMIN_HOST' })
    }
  }
  t.match(
    await raw(port, 'GET /metrics HTTP/1.1\r\nHost:\r\nConnection: close\r\n\r\n'),
    /^HTTP\/1\.1 421 /,
    'an empty Host is refused'
  )
  t.match(
    await raw(port, 'GET /health/live HTTP/1.0\r\n\r\n'),
    /^HTTP\/1\.1 200 /,
    'a health check without a Host is served'
  )
})

t.test('the admin port refuses requests from other web sites', async (t) => {
  const { port, get } = await adminOf(t, { admin: { port: 0 } })
  const host = `localhost:${port}`
  for (const origin of ['https://evil.example', 'null', 'http://localhost.evil.example', '']) {
    const { status, text } = await get({ host, origin })
    t.equal(status, 403, origin)
    t.match(JSON.parse(text), { code: 'JW_ADMIN_CROSS_SITE' })
  }
  for (const destination of ['empty', 'script', 'image', 'iframe']) {
    const headers = { host, 'sec-fetch-site': 'cross-site', 'sec-fetch-dest': destination }
    t.equal((await get(headers)).status, 403, destination)
  }
  t.equal((await get({ host, origin: `http://${host}` })).status, 200)
  t.equal((await get({ host, 'sec-fetch-site': 'same-origin', 'sec-fetch-dest': 'empty' })).status, 200)
  t.equal((await get({ host, 'sec-fetch-site': 'none', 'sec-fetch-dest': 'document' })).status, 200)
  t.equal(
    (await get({ host, 'sec-fetch-site': 'cross-site', 'sec-fetch-dest': 'document' })).status,
    200,
    'a link of another site is allowed'
  )
  const form = `Host: ${host}\r\nSec-Fetch-Site: cross-site\r\nSec-Fetch-Dest: document\r\nContent-Length: 0\r\n`
  t.match(
    await raw(port, `POST /admin/reload HTTP/1.1\r\n${form}Connection: close\r\n\r\n`),
    /^HTTP\/1\.1 403 /,
    'a form of another site is refused'
  )
})

t.test('pages on other ports of the host change nothing through the admin port', async (t) => {
  const maintenance = { enabled: false }
  const edge = { maintenance }
  const own = { name: 'a', match: { path: '/' }, service: 'a', edge }
  const { port, get } = await adminOf(t, { admin: { port: 0, hosts: ['gw.example'] }, services, routes: [own] })
  const host = `localhost:${port}`
  const on = (fields: string) =>
    raw(
      port,
      `POST /admin/maintenance/on?all=true HTTP/1.1\r\n${fields}\r\nContent-Length: 0\r\nConnection: close\r\n\r\n`
    )
  const isOn = async () => JSON.parse((await get({ host }, '/admin/maintenance')).text).routes[0].on as boolean
  for (const fields of [
    `Host: ${host}\r\nOrigin: http://localhost:8080`,
    `Host: ${host}\r\nOrigin: http://localhost`,
    `Host: ${host}\r\nOrigin: https://${host.replace(/\d+$/, '443')}`,
    `Host: ${host}\r\nOrigin: http://127.0.0.1:${port}`,
    `Host: ${host}\r\nOrigin: http://localhost:8080\r\nSec-Fetch-Site: same-site`,
    `Host: ${host}\r\nSec-Fetch-Site: same-site`,
    `Host: gw.example:${port}\r\nOrigin: https://gw.example`,
    `Host: gw.example:${port}\r\nOrigin: https://gw.example\r\nSec-Fetch-Site: same-site`
  ]) {
    const text = await on(fields)
    t.match(text, /^HTTP\/1\.1 403 /, fields)
    t.match(text, /JW_ADMIN_CROSS_SITE/)
    t.equal(await isOn(), false, fields)
  }
  t.equal((await get({ host, origin: 'http://localhost:8080' }, '/admin/maintenance')).status, 200, 'it may ask')
  for (const fields of [
    `Host: ${host}`,
    `Host: ${host}\r\nOrigin: http://${host}`,
    `Host: LOCALHOST:${port}\r\nOrigin: http://${host}`,
    'Host: gw.example\r\nOrigin: https://gw.example',
    // A proxy with TLS that changes Host.
    `Host: 127.0.0.1:${port}\r\nOrigin: https://gw.example\r\nSec-Fetch-Site: same-origin`
  ]) {
    t.match(await on(fields), /^HTTP\/1\.1 200 /, fields)
    t.equal(await isOn(), true, fields)
  }
})

const routes = [
  { name: 'match', match: { path: '/m', headers: { 'x-gate': 'hunter2' } }, service: 'a' },
  {
    name: 'split',
    match: { path: '/s' },
    split: [
      { service: 'a', weight: 1 },
      { service: 'a', match: { headers: { 'x-gate': 'hunter2' }, cookies: { gate: 'hunter2' }, consumers: ['alice'] } }
    ]
  }
]
const services = { a: { instances: ['http://127.0.0.1:9'] } }

t.test('values of headers and cookies that routes match are not shown', async (t) => {
  const { get } = await adminOf(t, { admin: { port: 0 }, services, routes })
  for (const path of ['/admin/routes', '/admin/services', '/admin/explain?path=/m&header=x-gate:hunter2', '/metrics']) {
    t.notMatch((await get({}, path)).text, /hunter2/, path)
  }
  const shown = JSON.parse((await get({}, '/admin/routes')).text)
  t.match(shown[0].match, { path: '/m', headers: { 'x-gate': '***' } })
  t.match(shown[1].split[1].match, { headers: { 'x-gate': '***' }, cookies: { gate: '***' }, consumers: ['alice'] })
  t.strictSame(shown[1].split[0], { service: 'a', weight: 1 })

  const file = join(t.testdir({ 'gateway.yaml': JSON.stringify({ services, routes }) }), 'gateway.yaml')
  const { stdout } = await runToEnd('node', [join(import.meta.dirname, '../../app.ts'), 'routes', file])
  t.match(stdout, /\/m x-gate:\*\*\*/)
  t.notMatch(stdout, /hunter2/)
})

t.test('credentials in URLs are shown neither on the admin port nor in the log', async (t) => {
  const secret = 'user:hunter2@127.0.0.1:9'
  // A key may have any name, or none.
  const key = 'token=hunter2&code=hunter2&hunter2'
  const { gateway, get } = await adminOf(t, {
    admin: { port: 0 },
    discovery: { consul: { url: `http://${secret}` } },
    redis: { url: `redis://${secret}` },
    services: { a: {} },
    routes: [
      { name: 'all', match: { path: '/' }, service: 'a' },
      {
        name: 'discovered',
        match: { path: '/discovered' },
        service: 'a',
        edge: { jwt: { issuer: 'http://id', discovery: `http://${secret}/metadata?${key}` } }
      }
    ],
    edge: {
      jwt: { jwks: `http://${secret}/keys?${key}` },
      rateLimit: { max: 1, window: '1s', store: 'redis' }
    }
  })
  const token = `${Buffer.from('{"alg":"RS256","kid":"1"}').toString('base64url')}.e30.AA`
  for (const path of ['/', '/discovered']) {
    await fetch(new URL(path, gateway.url), { headers: { authorization: `Bearer ${token}` } })
  }
  while (!gateway.log.some(({ msg }) => /Consul/.test(String(msg)))) await new Promise((done) => setTimeout(done, 20))
  for (const path of ['keys', 'metadata']) {
    const url = `http://***@127.0.0.1:9/${path}?***`
    while (!gateway.log.some((line) => line.url === url)) await new Promise((done) => setTimeout(done, 20))
    t.match((await get({}, '/metrics')).text, `jingwei_edge_key_set_up{url="${url}"} 0`)
  }
  t.notMatch(JSON.stringify(gateway.log), /hunter2/)
  for (const path of [
    '/admin/routes',
    '/admin/services',
    '/admin/services/a',
    '/admin/explain?path=/discovered',
    '/health/ready',
    '/metrics'
  ]) {
    t.notMatch((await get({}, path)).text, /hunter2/, path)
  }
  t.match(await get({}, '/admin/services/none'), { status: 404 })
})

t.test('readiness does not collect the status of instances', async (t) => {
  const { gateway, get } = await adminOf(t, { admin: { port: 0 }, services })
  const { mesh } = gateway.server
  mesh.status = () => t.fail('the status of all services was collected') as never
  mesh.service('a').status = () => t.fail('the status of a service was collected') as never
  const { status, text } = await get({}, '/health/ready')
  t.equal(status, 200)
  const { a } = JSON.parse(text).services
  t.ok(a.discoveryAgeMs >= 0)
  const { confirmedAt } = a
  t.strictSame(
    { ...a, discoveryAgeMs: 0 },
    { source: 'static', instances: 1, confirmedAt, discoveryAgeMs: 0, error: null }
  )
})

/** Values of a document under names of times, such as `confirmedAt`, with their paths. */
function timesIn(value: unknown, path = ''): [path: string, value: unknown][] {
  if (typeof value !== 'object' || value === null) return []
  return Object.entries(value).flatMap(([name, inner]) => {
    const at = `${path}/${name}`
    return /(At|Since|Until|Expires|Time)$|^(since|until|expires|time)$/.test(name) ? [[at, inner]] : timesIn(inner, at)
  })
}

t.test('times are ISO dates, and fields of durations have their unit in the name', async (t) => {
  const began = Date.now()
  const on = {
    circuitBreaker: {}, retry: {}, outlierDetection: {}, healthCheck: { path: '/' }, limit: { rate: 9 }, hedge: { after: '1s' },
    adaptiveConcurrency: {}, fallback: [{ stale: {} }], collapse: true, balance: 'peak-ewma', fault: { header: true }
  } // biome-ignore format: a list
  const { gateway, get } = await adminOf(t, {
    admin: { port: 0 },
    discovery: { consul: { url: 'http://127.0.0.1:9' } },
    services: { a: { instances: ['http://127.0.0.1:9'], mesh: on }, lost: {} },
    routes: [{ name: 'all', match: { path: '/' }, service: 'a' }]
  })
  await fetch(gateway.url)
  for (const [path, wanted] of [
    ['/admin/services', 2],
    ['/admin/services/a', 1],
    ['/health/ready', 2],
    ['/admin/explain?path=/', 1]
  ] as const) {
    const { text } = await get({}, path)
    const times = timesIn(JSON.parse(text))
    t.equal(times.length, wanted, path)
    for (const [at, value] of times) {
      if (/lost|\/1\//.test(at)) t.equal(value, null, `${path}: ${at} of a source without a response`)
      else {
        t.match(value, /^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z$/, `${path}: ${at}`)
        const ms = Date.parse(String(value))
        t.ok(ms >= began && ms <= Date.now(), `${path}: ${at} is ${value}`)
      }
    }
    // A number of milliseconds without a unit in its name would be of some clock.
    const bare = [...text.matchAll(/"(\w*(?:[aA]t|[tT]ime|[sS]ince))":-?\d/g)].map(([, name]) => name)
    t.strictSame(bare, [], path)
  }
})

t.test('the age of a confirmation is the same by the calendar and by the clock of the mesh', async (t) => {
  const source = { kind: 'consul', confirmedAt: 4000, error: null }
  const before = Date.now()
  const confirmed = Date.parse(viewOf(source, 65_000).confirmedAt!)
  t.ok(confirmed >= before - 61_000 && confirmed <= Date.now() - 61_000)
  t.equal(viewOf({ ...source, confirmedAt: null }, 65_000).confirmedAt, null)
})
