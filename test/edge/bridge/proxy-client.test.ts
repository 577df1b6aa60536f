/** @fastify/http-proxy and @fastify/reply-from, the real packages, on the mesh: forwarded requests and responses. */
import { AsyncLocalStorage } from 'node:async_hooks'
import { createHash, createHmac, randomBytes } from 'node:crypto'
import { createRequire } from 'node:module'
import httpProxy from '@fastify/http-proxy'
import type { FastifyInstance, FastifyPluginCallback } from 'fastify'
import type { Test } from 'tap'
import t from 'tap'
import { anyClient, listenFor, protocols } from '../../helpers/edge/asking-client.ts'
import { echo as echoFrames, opcodes, open, startWebSocketService } from '../../helpers/edge/websocket.ts'
import { eventually } from '../../helpers/eventually.ts'
import type { GatewayOptions, Seen } from '../../helpers/gateway.ts'
import {
  ask as askRaw,
  get,
  raw,
  startEcho,
  startGateway,
  startRawService,
  startService
} from '../../helpers/gateway.ts'

const secret = 'a secret that is long enough for it'
const base64 = (value: object) => Buffer.from(JSON.stringify(value)).toString('base64url')
const unchanged = { prefix: '/orders', upstream: 'http://orders.mesh' }
const byName = [{ package: '@fastify/http-proxy', options: unchanged }]

/** A gateway with one service, `orders`, and the test's additions. */
async function gatewayWith(t: Test, url: string, more: object, options: GatewayOptions = {}) {
  const gateway = await startGateway({ services: { orders: { instances: [url] } }, ...more }, { log: true, ...options })
  t.teardown(gateway.close)
  return gateway
}

async function echo(t: Test): Promise<string> {
  const service = await startEcho()
  t.teardown(service.close)
  return service.url
}

const seenIn = (body: Buffer | string) => JSON.parse(body.toString()) as Seen

t.test('a registration with only the upstream works unchanged', async (t) => {
  const { port } = await gatewayWith(t, await echo(t), { plugins: byName })
  const seen = await askRaw(port, '/orders/7?a=b%20c&d', ['X-Own: 1'])
  t.equal(seen.url, '/7?a=b%20c&d', 'the prefix is stripped, the query is unchanged')
  t.equal(seen.headers['x-own'], '1')
})

t.test('a registration with client and reply options works unchanged', async (t) => {
  const { port } = await gatewayWith(
    t,
    await echo(t),
    {},
    {
      before: (server) =>
        void server.register(async (fastify) => {
          const { proxyClient, proxyReplyOptions } = fastify
          await fastify.register(httpProxy, { ...unchanged, undici: proxyClient, replyOptions: proxyReplyOptions })
        })
    }
  )
  t.equal((await askRaw(port, '/orders/7')).url, '/7')
})

t.test('the service gets the same request as over the bridge', async (t) => {
  const url = await echo(t)
  const more = {
    listen: { trustProxy: ['10.0.0.0/8'] },
    plugins: byName,
    routes: [{ name: 'bridge', match: { path: '/bridge' }, service: 'orders' }]
  }
  const { port } = await gatewayWith(t, url, more)
  const fields = [
    'Host: shop.example.com', 'X-Forwarded-For: 6.6.6.6', 'Forwarded: for=6.6.6.6', 'X-Request-Id: mine', 'Via: 1.0 fred',
    'TE: trailers, gzip', 'Keep-Alive: timeout=9', 'Proxy-Connection: x', 'Upgrade: h2c', 'Connection: close, X-Hop',
    'X-Hop: 1', 'x_forwarded_for: 6.6.6.6', 'Cookie: a=1; b=2', 'X-Twice: 1', 'X-Twice: 2'
  ] // biome-ignore format: a list
  const get = async (path: string) => {
    const { headers, rawHeaders } = await askRaw(port, path, fields)
    const { 'x-request-id': _id, ...rest } = headers as Record<string, string | undefined>
    t.notMatch(rawHeaders.join('\n').toLowerCase(), /transfer-encoding|content-length/, 'a GET has no body')
    return rest
  }
  const proxied = await get('/orders/7')
  t.strictSame(proxied, await get('/bridge/7'))
  t.match(proxied, { host: 'shop.example.com', 'x-forwarded-for': '127.0.0.1', 'x-forwarded-host': 'shop.example.com' })
  t.match(proxied.via, /^1\.0 fred, 1\.1 jingwei-/)
  t.equal(proxied['x-hop'], undefined)
  t.equal(proxied.upgrade, undefined)
})

t.test('edge.host: upstream gives the service its own host', async (t) => {
  const url = await echo(t)
  const { port } = await gatewayWith(t, url, { edge: { host: 'upstream' }, plugins: byName })
  t.equal((await askRaw(port, '/orders/7', ['Host: shop.example.com'])).headers.host, new URL(url).host)
})

t.test('a header that a route sets is not accepted from a client through http-proxy', async (t) => {
  const { port } = await gatewayWith(t, await echo(t), {
    plugins: byName,
    routes: [
      {
        name: 'known',
        match: { path: '/known' },
        service: 'orders',
        edge: { jwt: { secret: 'x'.repeat(32), algorithms: ['HS256'], forward: { sub: 'x-user-id' } } }
      }
    ]
  })
  t.equal((await askRaw(port, '/orders/7', ['X-User-Id: root'])).headers['x-user-id'], undefined)
})

t.test("the user's header functions run last, and get the gateway's headers", async (t) => {
  const { port } = await gatewayWith(
    t,
    await echo(t),
    {},
    {
      before: (server) =>
        void server.register(httpProxy, {
          ...unchanged,
          replyOptions: {
            rewriteRequestHeaders: (_request, headers) => ({
              'x-saw': headers['x-forwarded-proto'],
              'x-user': 'amy',
              host: 'own'
            }),
            rewriteHeaders: (headers) => ({ ...headers, 'x-answer': '42' })
          }
        })
    }
  )
  const { status, headers, body } = await get(port, '/orders/7')
  t.equal(status, 200)
  t.equal(headers['x-answer'], '42')
  t.match(seenIn(body).headers, { 'x-saw': 'http', 'x-user': 'amy', host: 'own' })
})

t.test('reply.from() in a route of the user', async (t) => {
  const replyFrom = createRequire(createRequire(import.meta.url).resolve('@fastify/http-proxy'))(
    '@fastify/reply-from'
  ) as FastifyPluginCallback<{ undici: unknown }>
  const own = (server: FastifyInstance) =>
    void server.register(async (fastify) => {
      await fastify.register(replyFrom, { undici: fastify.proxyClient })
      fastify.post('/own', (_request, reply) =>
        reply.from('http://orders.mesh/made', { ...fastify.proxyReplyOptions, body: { a: 1 } })
      )
      fastify.get('/bare', (_request, reply) => reply.from('http://orders.mesh/made'))
      fastify.get('/unknown', (_request, reply) =>
        reply.from('http://nobody.mesh/made', { ...fastify.proxyReplyOptions })
      )
    })
  const { port, log } = await gatewayWith(t, await echo(t), {}, { before: own })
  const seen = seenIn((await get(port, '/own', ['Content-Length: 0'], 'POST')).body)
  t.match(seen, { url: '/made', method: 'POST', body: '{"a":1}' })
  t.match(seen.headers, { 'content-type': 'application/json', 'content-length': '7', 'x-forwarded-for': '127.0.0.1' })
  t.equal((await get(port, '/bare')).status, 500, 'reply.from without the reply options fails')
  t.match(JSON.stringify(log), /proxyClient does not know the request; pass replyOptions: fastify\.proxyReplyOptions/)
  const unknown = await get(port, '/unknown')
  t.match(unknown, { status: 503, body: /JW_NO_SERVICE/ })
  t.equal(unknown.headers['proxy-status'], 'jingwei; error=destination_not_found')
})

t.test('the client gets no hop-by-hop fields, all cookies, and the headers of the edge', async (t) => {
  const service = await startRawService((socket) => {
    socket.once('data', () => {
      const fields = [
        'Content-Length: 2', 'Connection: close, X-Hop', 'X-Hop: 1', 'Keep-Alive: timeout=7', 'Proxy-Authenticate: x',
        'Set-Cookie: a=1', 'Set-Cookie: b=2', 'Vary: accept', 'X-Request-Id: theirs', 'Proxy-Status: jingwei; error=x', 'X-Own: theirs'
      ] // biome-ignore format: a list
      socket.end(`HTTP/1.1 200 OK\r\n${fields.join('\r\n')}\r\n\r\nok`)
    })
  })
  t.teardown(service.close)
  const { port } = await gatewayWith(
    t,
    service.url,
    { plugins: byName },
    {
      before: (server) =>
        void server.addHook('onRequest', (_request, reply, done) => {
          reply.header('x-own', 'ours').header('set-cookie', 'c=3').header('vary', 'x-tenant')
          done()
        })
    }
  )
  const { status, headers, body } = await get(port, '/orders/7')
  t.match({ status, body }, { status: 200, body: 'ok' })
  for (const name of ['x-hop', 'keep-alive', 'proxy-authenticate', 'proxy-status'])
    t.equal(headers[name], undefined, name)
  t.equal(headers['set-cookie'], 'a=1\nb=2\nc=3')
  t.equal(headers['x-own'], 'ours')
  t.not(headers['x-request-id'], 'theirs')
  t.match(headers.vary!.split(/[\n,]\s*/).sort(), ['accept', 'x-tenant'])
})

for (const protocol of protocols) {
  t.test(`${protocol}: bodies are forwarded unchanged both ways, and HEAD has none`, async (t) => {
    const service = await startService((request, response) => {
      if (request.method === 'HEAD') return void response.setHeader('content-length', '1234').end()
      response.writeHead(200, { 'content-type': 'application/octet-stream' })
      request.pipe(response)
    })
    t.teardown(service.close)
    const more = { listen: listenFor(t, protocol), plugins: byName }
    const { port } = await gatewayWith(t, service.url, more)
    const body = randomBytes(3_000_000)
    const { ask } = anyClient(t, protocol, port)
    const { status, isWhole, body: echoed } = await ask('/orders/7', { method: 'POST', body })
    t.match({ status, isWhole }, { status: 200, isWhole: true })
    const sum = (bytes: Buffer) => createHash('sha256').update(bytes).digest('hex')
    t.equal(sum(echoed), sum(body))
    const json = await ask('/orders/7', {
      method: 'PUT',
      headers: { 'content-type': 'application/json' },
      body: Buffer.from('{ "not": "touched" }')
    })
    t.equal(json.body.toString(), '{ "not": "touched" }')
    const withBody = await ask('/orders/7', { body: 'in a GET' })
    t.match({ ...withBody, body: withBody.body.toString() }, { status: 200, body: 'in a GET' })
    const headResponse = await ask('/orders/7', { method: 'HEAD' })
    t.match(headResponse, { status: 200, headers: { 'content-length': '1234' }, isWhole: true })
  })

  t.test(`${protocol}: each chunk arrives before the next is sent, both ways`, async (t) => {
    const service = await startService((request, response) => {
      response.writeHead(200, { 'content-type': 'text/plain' })
      request.on('data', (chunk: Buffer) => response.write(`got ${chunk}`))
      request.on('end', () => response.end('.'))
    })
    t.teardown(service.close)
    const more = { listen: listenFor(t, protocol), plugins: byName }
    const { port } = await gatewayWith(t, service.url, more)
    const call = anyClient(t, protocol, port).begin('/orders/7', { method: 'POST', streams: true })
    for (const word of ['one', 'two', 'three']) {
      call.send(`${word};`)
      await eventually(() => call.body().includes(`got ${word};`))
    }
    call.end()
    t.match(await call.response, { status: 200, isWhole: true })
    t.equal(call.body().toString(), 'got one;got two;got three;.')
  })

  t.test(`${protocol}: a client that leaves ends the call, before and after the header section`, async (t) => {
    const open = new Set<string>()
    const service = await startService((request, response) => {
      const { url = '' } = request
      open.add(url)
      response.once('close', () => open.delete(url))
      if (url === '/begun') response.writeHead(200).write('begun')
    })
    t.teardown(service.close)
    const more = { listen: listenFor(t, protocol), plugins: byName }
    const { port, log } = await gatewayWith(t, service.url, more)
    for (const path of ['/silent', '/begun']) {
      const call = anyClient(t, protocol, port).begin(`/orders${path}`)
      await eventually(() => open.has(path))
      if (path === '/begun') await eventually(() => call.body().length > 0)
      await call.leave()
      await eventually(() => !open.has(path))
      t.pass(path)
    }
    t.notMatch(JSON.stringify(log), /"level":50/, 'a client that leaves is not logged as an error')
  })
}

t.test('informational responses are forwarded', async (t) => {
  const service = await startRawService((socket) => {
    socket.once('data', () => {
      socket.end('HTTP/1.1 103 Early Hints\r\nLink: </a.css>\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok')
    })
  })
  t.teardown(service.close)
  const { port } = await gatewayWith(t, service.url, { plugins: byName })
  const text = await raw(port, 'GET /orders/7 HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n')
  t.match(text, /^HTTP\/1\.1 103 Early Hints\r\nlink: <\/a\.css>\r\n\r\nHTTP\/1\.1 200 OK\r\n[\s\S]*\r\n\r\nok$/i)
})

t.test('a looping request is refused', async (t) => {
  let port = 0
  const service = await startService(async (request, response) => {
    const { via = '' } = request.headers
    const looped = await get(port, '/orders/7', [`Via: ${via}`])
    response.writeHead(looped.status).end(looped.body)
  })
  t.teardown(service.close)
  port = (await gatewayWith(t, service.url, { plugins: byName })).port
  t.match(await get(port, '/orders/7'), { status: 508, body: /JW_LOOP_DETECTED/ })
})

t.test('websocket: true needs an address of its own', async (t) => {
  const started = startGateway({
    services: { orders: { instances: ['http://127.0.0.1:1'] } },
    plugins: [{ package: '@fastify/http-proxy', options: { ...unchanged, websocket: true } }]
  })
  await t.rejects(started, /http-proxy connects WebSockets without the mesh/)
})

t.test("a user's own client is kept, and so are upstreams that are addresses", async (t) => {
  const seen: unknown[] = []
  const url = await echo(t)
  const { port } = await gatewayWith(
    t,
    url,
    { plugins: [{ package: '@fastify/http-proxy', options: { prefix: '/direct', upstream: url } }] },
    {
      before: (server) =>
        void server.register(httpProxy, {
          ...unchanged,
          undici: {
            request: (({ origin }: { origin: string }, done: (error: Error) => void) => {
              seen.push(origin)
              done(Object.assign(new Error('own'), { statusCode: 418 }))
            }) as never
          }
        })
    }
  )
  await get(port, '/orders/7')
  t.strictSame(seen, ['http://orders.mesh'])
  // Without `Connection: close`: http-proxy forwards the service's `keep-alive`, and the connection stays open.
  const direct = seenIn(await (await fetch(`http://127.0.0.1:${port}/direct/7`)).text())
  t.equal(direct.headers.via, undefined)
})

t.test('headers that concerns set for the service, and interceptors that use route and request', async (t) => {
  const routes = [
    {
      name: 'via',
      match: { path: '/via' },
      service: 'orders',
      via: 'http-proxy',
      config: { tier: 'gold' },
      edge: { jwt: { secret, algorithms: ['HS256'], forward: { sub: 'x-user-id' } } }
    }
  ]
  const seen: unknown[] = []
  const { port } = await gatewayWith(
    t,
    await echo(t),
    { routes },
    {
      before: (server) =>
        void server.register(async (fastify) => {
          fastify.mesh.use(
            (dispatch) => (opts, handler) => {
              seen.push([opts.route?.name, opts.route?.config, opts.request?.url])
              return dispatch(opts, handler)
            },
            { per: 'request', name: 'asks' }
          )
        })
    }
  )
  const token = `${base64({ alg: 'HS256', typ: 'JWT' })}.${base64({ sub: 'amy', exp: Math.ceil(Date.now() / 1000) + 60 })}`
  const signed = `${token}.${createHmac('sha256', secret).update(token).digest('base64url')}`
  const { headers } = await askRaw(port, '/via/7', [`Authorization: Bearer ${signed}`, 'X-User-Id: root'])
  t.equal(headers['x-user-id'], 'amy')
  t.strictSame(seen, [['via', { tier: 'gold' }, '/via/7']])
})

t.test("hooks run in their own request's async context, also with shared calls", async (t) => {
  const waiting: (() => void)[] = []
  const service = await startService((_request, response) => {
    waiting.push(() => response.end('ok'))
  })
  t.teardown(service.close)
  const store = new AsyncLocalStorage<string>()
  const seen: string[] = []
  const routes = [
    { name: 'via', match: { path: '/via' }, service: 'orders', via: 'http-proxy', mesh: { collapse: true } }
  ]
  const { port } = await gatewayWith(
    t,
    service.url,
    { routes },
    {
      before: (server) =>
        void server
          .addHook('onRequest', (request, _reply, done) => store.run(String(request.headers['x-id']), done))
          .addHook('onSend', async (request) => {
            seen.push(`onSend ${String(request.headers['x-id'])} ${store.getStore()}`)
          })
          .addHook('onResponse', async (request) => {
            seen.push(`onResponse ${String(request.headers['x-id'])} ${store.getStore()}`)
          })
    }
  )
  const ids = ['a', 'b', 'c', 'd']
  const responses = ids.map((id) => get(port, '/via/7', [`X-Id: ${id}`]))
  await eventually(() => waiting.length > 0)
  const timer = setInterval(() => {
    for (const respond of waiting.splice(0)) respond()
  }, 50)
  for (const { body } of await Promise.all(responses)) t.equal(body, 'ok')
  clearInterval(timer)
  await eventually(() => seen.length === 8)
  t.strictSame(seen.sort(), ids.flatMap((id) => [`onResponse ${id} ${id}`, `onSend ${id} ${id}`]).sort())
})

t.test('with an address for its WebSockets, http-proxy serves them, and each handshake once', async (t) => {
  const [ws, url] = [await startWebSocketService({ onPeer: echoFrames }), await echo(t)]
  t.teardown(ws.close)
  const options = { ...unchanged, websocket: true, wsUpstream: ws.url }
  const { port } = await gatewayWith(t, url, {
    services: { orders: { instances: [url] }, sockets: { instances: [ws.url] } },
    routes: [{ name: 'own', match: { path: '/ws' }, service: 'sockets' }],
    plugins: [{ package: '@fastify/http-proxy', options }]
  })
  for (const path of ['/orders/7', '/ws/7']) {
    const { peer } = await open(port, path)
    peer.send(opcodes.text, 'hello')
    t.equal((await peer.frame(0)).payload.toString(), 'hello', path)
    peer.socket.destroy()
  }
  t.strictSame(
    ws.requests.map((request) => request.url),
    ['/7', '/ws/7']
  )
  t.equal((await askRaw(port, '/orders/7')).url, '/7', 'and calls go over the mesh')
})
