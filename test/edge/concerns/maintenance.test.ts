// Maintenance mode: who is refused, with what, over HTTP/1.1 and HTTP/2; and the ways to switch it.
import { createHash } from 'node:crypto'
import { rmSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import type { Test } from 'tap'
import t from 'tap'
import type { ConfigError } from '../../../config/load.ts'
import { parseConfig } from '../../../plugins/config.ts'
import { http2Client } from '../../helpers/edge/direct-clients.ts'
import { eventually } from '../../helpers/eventually.ts'
import { connect, get, parse, startEcho, startGateway } from '../../helpers/gateway.ts'
import { selfSigned } from '../../helpers/self-signed.ts'

const echo = await startEcho()
t.teardown(echo.close)
const services = { any: { instances: [echo.url] } }
const routes = [
  { name: 'all', match: { path: '/' }, service: 'any' },
  { name: 'open', match: { path: '/open' }, service: 'any', edge: { maintenance: false } },
  { name: 'fixed', match: { path: '/fixed' }, response: { body: 'fixed' } }
]

async function start(t: Test, maintenance: object, more: object = {}) {
  const { edge = {}, ...rest } = more as { edge?: object }
  const gateway = await startGateway({ services, routes, edge: { maintenance, ...edge }, ...rest }, { log: true })
  t.teardown(gateway.close)
  return gateway
}

t.test('refuses with the error of the table', async (t) => {
  const { port, log } = await start(t, { retryAfter: '90s' })
  for (const path of ['/', '/fixed']) {
    const got = await get(port, path)
    t.equal(got.status, 503)
    t.match(got.headers, { 'retry-after': '90', 'content-type': 'application/json; charset=utf-8' })
    t.match(JSON.parse(got.body), {
      statusCode: 503,
      code: 'JW_MAINTENANCE',
      message: 'The service is under maintenance'
    })
  }
  t.equal((await get(port, '/open')).status, 200)
  t.match(await get(port, '/', [], 'HEAD'), { status: 503, body: '', headers: { 'retry-after': '90' } })
  t.match(await get(port, '/', ['Content-Length: 5'], 'POST'), { status: 503 })
  t.match(log.filter(({ msg }) => msg === 'request')[0], {
    status: 503,
    error: 'JW_MAINTENANCE',
    answeredBy: 'gateway'
  })
  t.notOk(log.find(({ level }) => level === 50))
})

t.test('with a body of its own, and keep-alive', async (t) => {
  const page = '<h1>später</h1>'
  const own = { body: page, contentType: 'text/html; charset=utf-8' }
  const { port, log, server } = await start(t, own, { admin: { host: '127.0.0.1', port: 0 } })
  const bytes = Buffer.from(page).toString('latin1')
  t.match(await get(port, '/'), {
    status: 503,
    body: bytes,
    headers: {
      'retry-after': '60',
      'cache-control': 'no-store',
      'content-type': own.contentType,
      'content-length': '16'
    }
  })
  t.match(await get(port, '/', [], 'HEAD'), { status: 503, body: '', headers: { 'content-length': '16' } })
  const client = connect(port)
  const post = 'POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n'
  client.send(`${post}GET /open HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n`)
  t.strictSame((await client.closed).text.match(/HTTP\/1\.1 \d+/g), ['HTTP/1.1 503', 'HTTP/1.1 200'])
  t.match(log.filter(({ msg }) => msg === 'request')[0], { error: 'JW_MAINTENANCE', answeredBy: 'gateway' })
  t.match(
    (await server.admin!.inject('/metrics')).body,
    /jingwei_edge_refusals_total\{concern="maintenance",route="all",code="JW_MAINTENANCE"\} 3/
  )
  t.equal((await server.admin!.inject('/health/ready')).statusCode, 200)
})

t.test('over HTTP/2', async (t) => {
  for (const [own, type, body] of [
    [{ json: { back: 'at noon' } }, 'application/json; charset=utf-8', '{"back":"at noon"}'],
    [{}, 'application/json; charset=utf-8', null]
  ] as const) {
    const { port } = await start(t, own, { listen: { tls: selfSigned(t), http2: true } })
    const ask = await http2Client(t, port)
    for (const sent of [undefined, 'body']) {
      const got = await ask('/', { ':method': sent === undefined ? 'GET' : 'POST' }, sent)
      t.match(got, { status: 503, headers: { 'retry-after': '60', 'content-type': type } })
      if (body !== null) t.equal(got.body, body)
      else t.equal(JSON.parse(got.body).code, 'JW_MAINTENANCE')
    }
    t.match(await ask('/', { ':method': 'HEAD' }), { status: 503, body: '' })
    t.equal((await ask('/open')).status, 200)
  }
})

t.test('addresses and headers that are allowed', async (t) => {
  const allow = {
    addresses: ['192.0.2.0/24'],
    headers: { 'X-Preview': 'secret', 'x-other': 'b', 'user-agent': 'operator' }
  }
  const { port } = await start(t, { allow }, { listen: { trustProxy: ['127.0.0.1'] } })
  const status = async (...headers: string[]) => (await get(port, '/', headers)).status
  t.equal(await status('X-Forwarded-For: 192.0.2.7'), 200)
  t.equal(await status('X-Forwarded-For: 192.0.3.7'), 503)
  t.equal(await status('x-preview: secret'), 200)
  t.equal(await status('x-other: b'), 200)
  for (const header of ['x-preview: secre', 'x-preview: secret2', 'x-preview:', 'x-other: secret', 'x_preview: secret'])
    t.equal(await status(header), 503, header)
  t.equal(await status('x-preview: a', 'x-preview: secret'), 503)
  // Of several fields of this header, Node shows the first only.
  t.equal(await status('user-agent: operator'), 200)
  t.equal(await status('user-agent: operator', 'user-agent: other'), 503)
  const untrusted = await start(t, { allow })
  t.equal((await get(untrusted.port, '/', ['X-Forwarded-For: 192.0.2.7'])).status, 503)
})

for (const protocol of ['HTTP/1.1', 'HTTP/2'] as const) {
  t.test(`services do not get the header by which a request passes, over ${protocol}`, async (t) => {
    const allow = { headers: { 'X-Preview': 'secret', 'user-agent': 'operator' }, addresses: ['192.0.2.0/24'] }
    const keyAuth = { header: 'apikey' }
    const consumers = [{ name: 'ann', keyAuth: { hash: `sha256:${createHash('sha256').update('ann').digest('hex')}` } }]
    for (const [own, edge] of [
      [{}, {}],
      [{ enabled: false }, {}],
      [{ enabled: false }, { admin: true }],
      [{ mode: 'shadow' }, {}],
      [{ allow: { ...allow, consumers: ['ann'] } }, { keyAuth }]
    ] as const) {
      const { admin, ...concerns } = edge as { admin?: true; keyAuth?: object }
      const listen = { trustProxy: ['127.0.0.1'], ...(protocol === 'HTTP/2' && { tls: selfSigned(t), http2: true }) }
      const more = { edge: concerns, consumers, listen, ...(admin && { admin: { host: '127.0.0.1', port: 0 } }) }
      const { port } = await start(t, { allow, ...own }, more)
      const seenBy = async (fields: Record<string, string>) => {
        const given = { apikey: 'ann', 'x-tenant': 'a', ...fields }
        const got =
          protocol === 'HTTP/2'
            ? await (await http2Client(t, port))('/', given)
            : await get(
                port,
                '/',
                Object.entries(given).map((field) => field.join(': '))
              )
        t.equal(got.status, 200, JSON.stringify([own, fields]))
        return JSON.parse(got.body).headers
      }
      const first = await seenBy({ 'x-preview': 'secret', x_preview: 'secret', 'user-agent': 'me' })
      t.match(first, { 'x-tenant': 'a', 'user-agent': 'me', 'x-preview': undefined, x_preview: undefined })
      t.equal((await seenBy({ 'user-agent': 'operator' }))['user-agent'], undefined)
      const byAddress = { 'x-forwarded-for': '192.0.2.7' }
      t.equal((await seenBy({ ...byAddress, 'x-preview': 'secret' }))['x-preview'], undefined, 'passed by its address')
      t.equal(
        (await seenBy({ ...byAddress, 'x-preview': 'other' }))['x-preview'],
        'other',
        'another value is no secret'
      )
    }
  })
}

t.test('consumers that are allowed', async (t) => {
  const keyOf = (name: string) => `sha256:${createHash('sha256').update(name).digest('hex')}`
  const consumers = ['ann', 'bob'].map((name) => ({ name, keyAuth: { hash: keyOf(name) } }))
  const edge = { keyAuth: { header: 'apikey' } }
  for (const own of [{}, { body: 'later' }]) {
    const { port } = await start(t, { allow: { consumers: ['ann'] }, ...own }, { consumers, edge })
    t.equal((await get(port, '/', ['apikey: ann'])).status, 200)
    t.equal((await get(port, '/', ['apikey: bob'])).status, 503)
    t.equal((await get(port, '/', ['apikey: bob', 'Content-Length: 3'], 'POST')).status, 503)
    t.equal((await get(port, '/')).status, 401)
  }
  const { port } = await start(t, {}, { consumers, edge })
  t.equal((await get(port, '/')).status, 503, 'without consumers, before authentication')
})

t.test('preflights, and the headers of CORS', async (t) => {
  const { port } = await start(t, { body: 'later' }, { edge: { cors: { origin: ['https://a.example'] } } })
  const origin = 'Origin: https://a.example'
  t.equal((await get(port, '/', [origin, 'Access-Control-Request-Method: GET'], 'OPTIONS')).status, 204)
  t.match(await get(port, '/', [origin]), {
    status: 503,
    headers: { 'access-control-allow-origin': 'https://a.example' }
  })
})

t.test('handshakes are refused', async (t) => {
  for (const own of [{}, { body: 'later' }]) {
    const { port } = await start(t, own)
    const fields = [
      'Upgrade: websocket',
      'Connection: upgrade',
      'Sec-WebSocket-Version: 13',
      'Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA=='
    ]
    const client = connect(port, `GET / HTTP/1.1\r\nHost: h\r\n${fields.join('\r\n')}\r\n\r\n`)
    t.equal(parse(await client.until('\r\n\r\n')).status, 503)
    client.socket.destroy()
  }
})

t.test('a file switches it', async (t) => {
  const file = join(t.testdir({}), 'on')
  const { port, log } = await start(t, { whileFile: file })
  const status = async () => (await get(port, '/')).status
  t.equal(await status(), 200)
  writeFileSync(file, '')
  await eventually(async () => (await status()) === 503, 'the mode to be on')
  rmSync(file)
  await eventually(async () => (await status()) === 200, 'the mode to be off')
  t.strictSame(
    log.filter(({ msg }) => String(msg).startsWith('maintenance')).map(({ level }) => level),
    [40, 30]
  )
})

t.test('off', async (t) => {
  const { port } = await start(t, { enabled: false, body: 'x' })
  t.equal((await get(port, '/')).status, 200)
})

t.test('shadow mode', async (t) => {
  for (const own of [{}, { body: 'later' }]) {
    const { port, log } = await start(t, { mode: 'shadow', ...own })
    const got = await get(port, '/')
    t.equal(got.status, 200)
    t.equal(got.headers['retry-after'], undefined)
    t.match(
      log.find(({ msg }) => msg === 'request'),
      { shadow: [{ concern: 'maintenance', error: 'JW_MAINTENANCE' }] }
    )
  }
})

t.test('explain', async (t) => {
  const admin = { host: '127.0.0.1', port: 0 }
  const told = async (maintenance: object, query = '') => {
    const { server } = await start(t, maintenance, { admin })
    const { decisions } = (await server.admin!.inject(`/admin/explain?path=/${query}`)).json() as {
      decisions: string[][]
    }
    return decisions.find(([name]) => name === 'maintenance')?.[1]
  }
  t.equal(await told({}), 'refuses with 503 JW_MAINTENANCE')
  t.equal(await told({ enabled: false }), 'off: enabled is false')
  t.equal(await told({ whileFile: '/none/x' }), 'off: /none/x does not exist')
  t.equal(await told({ allow: { addresses: ['127.0.0.1'] } }), 'allows 127.0.0.1 during the maintenance')
})

t.test('faults', async (t) => {
  const folder = t.testdir({ 'a.html': '' })
  const faultsOf = (maintenance: string) => {
    const warnings: string[] = []
    try {
      parseConfig(
        `services: { a: { instances: ["http://h"] } }\nedge: { maintenance: ${maintenance} }\nroutes: [{ name: a, match: { path: / }, service: a }]\n`,
        join(folder, 'gateway.yaml'),
        {},
        ({ path, message }) => warnings.push(`warning: ${path}: ${message}`)
      )
      return warnings
    } catch (error) {
      return (error as ConfigError).faults.map(
        ({ line, column, path, message }) => `${line}:${column}: ${path}: ${message}`
      )
    }
  }
  t.strictSame(faultsOf('{ file: a.html, whileFile: on }'), [])
  t.strictSame(faultsOf('{ body: a, file: a.html }'), [
    '2:33: edge.maintenance.file: a response has either "body" or "file"'
  ])
  t.strictSame(faultsOf('{ contentType: a/b }'), [
    '2:24: edge.maintenance.contentType: no effect without a body: write "body", "json" or "file"'
  ])
  t.match(faultsOf('{ file: b.html }'), [/edge\.maintenance\.file: no such file: .*; did you mean "a\.html"\?/])
  t.match(faultsOf('{ allow: { addresses: [x] } }'), [/^2:\d+: edge\.maintenance\.allow\.addresses\[0\]: /])
  t.match(faultsOf('{ allow: { consumers: [x] } }'), [/allow: nothing|consumer/])
  t.strictSame(faultsOf('{ status: 500, whitelist: [] }'), [
    '2:24: edge.maintenance.status: unknown key; it is always 503',
    '2:37: edge.maintenance.whitelist: unknown key; write allow: { addresses: […] }'
  ])
  t.match(faultsOf('{ whileFile: none/on }'), [/^warning: edge\.maintenance\.whileFile: no such folder: /])
  t.strictSame(faultsOf('{ enabled: false, whileFile: on }'), [
    'warning: edge.maintenance.whileFile: no effect with enabled: false'
  ])
})
