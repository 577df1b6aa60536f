// slow: takes about 7 s
// The eight small plugins of config/examples/plugins, each with the real gateway.
import { createHmac } from 'node:crypto'
import { readdirSync, readFileSync } from 'node:fs'
import type { IncomingHttpHeaders, ServerResponse } from 'node:http'
import http2 from 'node:http2'
import { join } from 'node:path'
import type { Test } from 'tap'
import t from 'tap'
import { loadWithoutPlugins, parseConfig } from '../../plugins/config.ts'
import { eventually } from '../helpers/eventually.ts'
import type { Gateway } from '../helpers/plugins.ts'
import { folder, listen, service } from '../helpers/plugins.ts'
import { freePort } from '../helpers/processes.ts'
import { selfSigned } from '../helpers/self-signed.ts'

const examples = join(import.meta.dirname, '../../config/examples/plugins')

t.test('each example has at most ten lines, besides imports and comments', async (t) => {
  const files = readdirSync(examples).filter((file) => file.endsWith('.ts'))
  t.equal(files.length, 8)
  for (const file of files) {
    const lines = readFileSync(join(examples, file), 'utf8').split('\n')
    const code = lines.filter((line) => line.trim() !== '' && !/^(import |\/\*\*| \*|\/\/)/.test(line))
    t.ok(code.length <= 10, `${file} has ${code.length} lines`)
  }
})

async function gatewayWith(
  t: Test,
  plugin: string,
  entry: object,
  origin: string,
  more: object = {}
): Promise<Gateway> {
  const root = await folder(t, {})
  const text = JSON.stringify({
    listen: { port: 0 },
    admin: false,
    mesh: { retry: false },
    services: { orders: { instances: [origin] } },
    routes: [
      { name: 'orders', match: { path: '/orders' }, service: 'orders', ...('scope' in entry && { plugins: [plugin] }) },
      { name: 'plain', match: { path: '/plain' }, service: 'orders' }
    ],
    plugins: [{ path: join(examples, `${plugin}.ts`), ...entry }],
    ...more
  })
  return listen(t, parseConfig(text, join(root, 'gateway.yaml'), {}))
}

async function ask(url: string, init: RequestInit = {}) {
  const response = await fetch(url, init)
  return { status: response.status, headers: response.headers, text: await response.text() }
}

t.test('api-keys: maps keys to consumers, by which a limit counts, and removes the key', async (t) => {
  let seen: IncomingHttpHeaders = {}
  const origin = await service(t, (request, response) => {
    seen = request.headers
    response.end('ok')
  })
  const entry = { scope: 'routes', provides: ['consumer'], options: { keys: { one: 'amy', two: 'bob' } } }
  const { url } = await gatewayWith(t, 'api-keys', entry, origin, {
    routes: [
      {
        name: 'orders',
        match: { path: '/orders' },
        service: 'orders',
        plugins: ['api-keys'],
        edge: { rateLimit: { max: 1, window: '1h', by: 'consumer' } }
      },
      { name: 'plain', match: { path: '/plain' }, service: 'orders' }
    ]
  })
  const statusOf = async (key?: string) =>
    (await ask(`${url}/orders`, { headers: key === undefined ? {} : { 'x-api-key': key } })).status
  t.same([await statusOf(), await statusOf('wrong'), await statusOf('__proto__')], [401, 401, 401])
  t.same([await statusOf('one'), await statusOf('one'), await statusOf('two')], [200, 429, 200])
  t.notOk('x-api-key' in seen)
  t.equal((await ask(`${url}/plain`)).status, 200, 'other routes are open')
})

t.test(
  'upstream-status: shows the status of the service, also of an error, but no status of the gateway',
  async (t) => {
    let status = 200
    const origin = await service(t, (request, response) => {
      if (status === 0) request.socket.destroy()
      else response.writeHead(status).end('x')
    })
    const { url } = await gatewayWith(t, 'upstream-status', {}, origin)
    const statuses = async () => {
      const response = await ask(`${url}/orders`)
      return [response.status, response.headers.get('x-upstream-status')]
    }
    t.same(await statuses(), [200, 'orders 200'])
    status = 503
    t.same(await statuses(), [503, 'orders 503'])
    status = 0
    t.same(await statuses(), [502, null])
  }
)

t.test('without-field: removes the field on this route, at any depth, for every Accept-Encoding', async (t) => {
  let seen: IncomingHttpHeaders = {}
  const origin = await service(t, (request, response) => {
    seen = request.headers
    const type = request.url!.includes('text') ? 'text/plain' : 'application/json; charset=utf-8'
    const body = '{"id":1,"secret":"s","items":[{"id":2,"secret":"s"}]}'
    response.writeHead(request.url!.includes('304') ? 304 : 200, {
      'content-type': type,
      'content-length': body.length
    })
    response.end(request.method === 'HEAD' ? undefined : body)
  })
  const entry = { scope: 'routes', options: { field: 'secret' } }
  const { url } = await gatewayWith(t, 'without-field', entry, origin)
  const headers = { 'accept-encoding': 'gzip', range: 'bytes=0-10' }
  const without = await ask(`${url}/orders`, { headers })
  t.equal(without.text, '{"id":1,"items":[{"id":2}]}')
  t.equal(without.headers.get('content-length'), String(without.text.length))
  t.match(seen, { 'accept-encoding': 'identity', range: undefined })
  t.match((await ask(`${url}/plain`, { headers })).text, /secret/)
  t.match(seen, { 'accept-encoding': 'gzip', range: 'bytes=0-10' })
  t.match((await ask(`${url}/orders?text`)).text, /secret/)
  const headOnly = await ask(`${url}/orders`, { method: 'HEAD' })
  t.same([headOnly.status, headOnly.headers.get('content-length')], [200, null])
  t.same((await ask(`${url}/orders?304`)).status, 304)
})

t.test('without-field: a malformed JSON body fails with 500', async (t) => {
  const origin = await service(t, (_request, response) => {
    response.writeHead(200, { 'content-type': 'application/json' }).end('{"secret":')
  })
  const entry = { scope: 'routes', options: { field: 'secret' } }
  const { url } = await gatewayWith(t, 'without-field', entry, origin)
  t.match(await ask(`${url}/orders`), { status: 500, text: /JW_PLUGIN_FAILED/ })
})

for (const protocol of ['HTTP/1.1', 'HTTP/2']) {
  t.test(`without-field-in-lines: streams each line as it arrives: ${protocol}`, async (t) => {
    let pending: ServerResponse | undefined
    const origin = await service(t, (_request, response) => {
      pending = response
      response.writeHead(200, { 'content-type': 'application/x-ndjson' })
      response.write('{"id":0}\n{"id":1,"secret":"')
    })
    const entry = { scope: 'routes', options: { field: 'secret' } }
    const listening = protocol === 'HTTP/2' ? { listen: { port: 0, tls: selfSigned(t), http2: true } } : {}
    const { url } = await gatewayWith(t, 'without-field-in-lines', entry, origin, listening)
    const stream = await opened(t, `${url}/orders`, protocol)
    let text = ''
    stream.on('data', (chunk: Buffer) => {
      text += chunk.toString()
    })
    await eventually(() => pending !== undefined)
    pending!.write('é"}\n{"id":')
    await eventually(() => text === '{"id":0}\n{"id":1}\n')
    pending!.write('2,"secret":1}\n\n')
    await eventually(() => text === '{"id":0}\n{"id":1}\n{"id":2}\n\n')
    const ended = new Promise((resolve) => stream.once('end', resolve))
    pending!.end('{"id":3,"secret":2}')
    await ended
    t.equal(text, '{"id":0}\n{"id":1}\n{"id":2}\n\n{"id":3}')
  })
}

async function opened(t: Test, url: string, protocol: string): Promise<NodeJS.ReadableStream> {
  if (protocol === 'HTTP/1.1') {
    const { body } = await fetch(url)
    const { Readable } = await import('node:stream')
    return Readable.fromWeb(body as never)
  }
  const session = http2.connect(url, { rejectUnauthorized: false })
  t.teardown(() => session.close())
  return session.request({ ':path': new URL(url).pathname })
}

t.test('body-schema: a valid body reaches the service unchanged, others are rejected', async (t) => {
  const seen: string[] = []
  const origin = await service(t, (request, response) => {
    let body = ''
    request.on('data', (chunk: Buffer) => {
      body += chunk.toString()
    })
    request.on('end', () => {
      seen.push(`${request.headers['content-length'] ?? 'chunks'} ${body}`)
      response.end('ok')
    })
  })
  const schema = {
    type: 'object',
    required: ['a'],
    properties: { a: { type: 'integer' } },
    additionalProperties: false
  }
  const { url } = await gatewayWith(t, 'body-schema', { scope: 'routes', options: { schema } }, origin, {
    edge: { bodyLimit: '1kb' }
  })
  const statusOf = async (body: NonNullable<RequestInit['body']>, init: object = {}) => {
    const headers = { 'content-type': 'application/json' }
    return (await ask(`${url}/orders`, { method: 'POST', headers, body, ...init })).status
  }
  t.equal(await statusOf('{"a":  1 }'), 200)
  t.equal(await statusOf(new Blob(['{"a":2}']).stream(), { duplex: 'half' }), 200)
  t.equal(await statusOf('{"a":"x"}'), 422)
  t.equal(await statusOf('{'), 400)
  t.equal(await statusOf(''), 400)
  t.equal(await statusOf(JSON.stringify({ a: 1, b: 'x'.repeat(2000) })), 413)
  t.same(seen, ['10 {"a":  1 }', 'chunks {"a":2}'])
})

t.test('home: calls two services at the same time, and fails with 502 if one is down', async (t) => {
  const waiting: ServerResponse[] = []
  const both = await service(t, (request, response) => {
    response.setHeader('content-type', 'application/json')
    waiting.push(response)
    if (waiting.length < 2) return
    for (const each of waiting.splice(0)) each.end(JSON.stringify({ requested: each.req.url }))
    void request
  })
  const up = { services: { orders: { instances: [both] }, users: { instances: [both] } }, routes: [] }
  const { url } = await gatewayWith(t, 'home', {}, both, up)
  const { text } = await ask(`${url}/home/a%26b`)
  t.same(JSON.parse(text), { profile: { requested: '/users/a%26b' }, orders: { requested: '/orders?user=a%26b' } })
  const down = {
    ...up,
    services: { orders: { instances: [`http://127.0.0.1:${await freePort()}`] }, users: { instances: [both] } }
  }
  const broken = await gatewayWith(t, 'home', {}, both, down)
  t.match(await ask(`${broken.url}/home/x`), { status: 502, text: /JW_UPSTREAM_REFUSED/ })
})

t.test('signature: signs calls of routes and of the server', async (t) => {
  const seen: [url: string, signature: unknown][] = []
  const origin = await service(t, (request, response) => {
    seen.push([request.url!, request.headers['x-signature']])
    response.end('{}')
  })
  const gateway = await gatewayWith(t, 'signature', { options: { secret: 'secret' } }, origin)
  await ask(`${gateway.url}/orders/7`, { headers: { 'x-signature': 'forged' } })
  const call = { origin: 'http://orders.mesh', method: 'GET' } as const
  for (const headers of [undefined, { a: '1' }, ['a', '1']]) {
    const { body } = await gateway.server.mesh.request({ ...call, path: '/server', ...(headers && { headers }) })
    await body.dump()
  }
  const signed = (path: string) => createHmac('sha256', 'secret').update(`GET ${path}`).digest('hex')
  t.same(
    seen,
    ['/orders/7', '/server', '/server', '/server'].map((path) => [path, signed(path)])
  )
})

t.test('status-count: counts responses of services by status', async (t) => {
  let status = 200
  const origin = await service(t, (_request, response) => response.writeHead(status).end())
  const { url, server } = await gatewayWith(t, 'status-count', {}, origin)
  await ask(`${url}/orders`)
  status = 500
  await ask(`${url}/orders`)
  await ask(`${url}/nothing`)
  const metrics = await server.metrics.metrics()
  const lines = metrics.split('\n').filter((line) => line.startsWith('service_responses_total'))
  t.same(lines, [
    'service_responses_total{service="orders",status="200"} 1',
    'service_responses_total{service="orders",status="500"} 1'
  ])
})

t.test('gateway.yaml of the examples runs all of them in one gateway', async (t) => {
  const env = {
    PORT: '0',
    ADMIN_PORT: '0',
    ORDERS_PORT: String(await freePort()),
    USERS_PORT: String(await freePort())
  }
  const { url } = await listen(t, loadWithoutPlugins(join(examples, 'gateway.yaml'), env))
  t.equal((await ask(`${url}/orders`)).status, 401)
  const orders = await ask(`${url}/orders`, { headers: { 'x-api-key': '0123456789' } })
  t.equal(orders.status, 200)
  t.match(orders.text, /"product":"tea"/)
  t.notMatch(orders.text, /quantity/)
  t.equal(orders.headers.get('x-upstream-status'), 'orders 200')
  t.equal(orders.headers.get('ratelimit-remaining'), '99')
  const home = await ask(`${url}/home/alice`)
  t.match(JSON.parse(home.text), { profile: { service: 'users' }, orders: { service: 'orders' } })
  t.equal(home.headers.get('ratelimit-remaining'), '99')
  t.equal((await ask(`${url}/orders/new`, { method: 'POST', body: '{}' })).status, 422)
  t.equal((await ask(`${url}/orders/new`, { method: 'POST', body: '{"product":"tea"}' })).status, 200)
})
