// Calls that a plugin's own routes and hooks make to services on behalf of a request.
import http from 'node:http'
import http2 from 'node:http2'
import https from 'node:https'
import { join } from 'node:path'
import { Readable } from 'node:stream'
import type { FastifyRequest } from 'fastify'
import type { Test } from 'tap'
import t from 'tap'
import { parseConfig } from '../../plugins/config.ts'
import type { CallOptions, JsonOptions, RequestMesh, StreamOptions } from '../../plugins/plugin-api.ts'
import { eventually } from '../helpers/eventually.ts'
import type { Gateway } from '../helpers/plugins.ts'
import { folder, listen, service } from '../helpers/plugins.ts'
import { freePort } from '../helpers/processes.ts'
import { selfSigned } from '../helpers/self-signed.ts'

const plugin = (body: string) => `export default async function bff (fastify) {
  fastify.decorate('seen', [])
  const see = (what) => fastify.seen.push(what)
  ${body}
}`

async function bff(t: Test, services: Record<string, string>, body: string, more: object = {}): Promise<Gateway> {
  const root = await folder(t, { 'bff.mjs': plugin(body) })
  const text = JSON.stringify({
    listen: { port: 0 },
    admin: false,
    mesh: { retry: false, timeout: '300ms' },
    services: Object.fromEntries(Object.entries(services).map(([name, url]) => [name, { instances: [url] }])),
    plugins: [{ path: './bff.mjs' }],
    ...more
  })
  return listen(t, parseConfig(text, join(root, 'gateway.yaml')))
}

const seenBy = ({ server }: Gateway) => (server as unknown as { seen: unknown[] }).seen

t.test(
  'json: sends the request id, forwarding, trace and concerns’ headers, but no header of the client',
  async (t) => {
    let seen: http.IncomingHttpHeaders = {}
    const orders = await service(t, (request, response) => {
      seen = request.headers
      response.end(JSON.stringify({ url: request.url, method: request.method }))
    })
    const { url } = await bff(
      t,
      { orders },
      `fastify.get('/home', async (request) => {
      request.upstreamHeaders = ['x-user', 'amy']
      return request.mesh.json('orders', '/orders/7', { query: { deep: 1 } })
    })`
    )
    const response = await fetch(`${url}/home`, {
      headers: {
        authorization: 'Bearer x',
        cookie: 'a=b',
        'x-request-id': 'one',
        'x-forwarded-for': '9.9.9.9',
        via: '1.1 other',
        traceparent: '00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01',
        tracestate: 'a=b',
        baggage: 'k=v'
      }
    })
    t.same(await response.json(), { url: '/orders/7?deep=1', method: 'GET' })
    t.match(seen, {
      'x-request-id': 'one',
      'x-forwarded-for': '127.0.0.1',
      'x-forwarded-proto': 'http',
      'x-forwarded-host': new URL(url).host,
      via: /^1\.1 other, 1\.1 jingwei-/,
      traceparent: '00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01',
      tracestate: 'a=b',
      baggage: 'k=v',
      'x-user': 'amy',
      accept: 'application/json',
      host: new URL(orders).host
    })
    t.notOk('authorization' in seen || 'cookie' in seen)
  }
)

t.test('json: takes a body, a method and headers, which replace the gateway’s', async (t) => {
  const orders = await service(t, (request, response) => {
    const chunks: Buffer[] = []
    const { method, headers } = request
    request.on('data', (chunk: Buffer) => chunks.push(chunk))
    request.on('end', () => {
      const { accept, 'content-type': type, 'x-request-id': id, 'x-mine': mine } = headers
      response.end(JSON.stringify({ method, accept, type, id, mine, body: Buffer.concat(chunks).toString() }))
    })
  })
  const { url } = await bff(
    t,
    { orders },
    `fastify.post('/home', async (request) => request.mesh.json('orders', '/', {
      method: 'PUT', headers: { 'X-Request-Id': 'mine', 'x-mine': ['1', '2'], accept: 'application/hal+json' }, body: request.body
    }))`
  )
  const headers = { 'content-type': 'application/json' }
  const response = await fetch(`${url}/home`, { method: 'POST', headers, body: '{"a": [1]}' })
  t.same(await response.json(), {
    method: 'PUT', accept: 'application/hal+json', type: 'application/json', id: 'mine', mine: '1, 2', body: '{"a":[1]}'
  }) // biome-ignore format: short
})

t.test('failed calls get the status and code of the error table, not JW_PLUGIN_FAILED', async (t) => {
  const slow = await service(t, () => {})
  const broken = await service(t, (request) => request.socket.destroy())
  const odd = await service(t, (request, response) => {
    const { pathname } = new URL(request.url!, 'http://h')
    if (pathname === '/missing') response.statusCode = 404
    if (pathname === '/none') response.statusCode = 204
    if (pathname === '/html') response.write('<p>')
    if (pathname === '/long') response.setHeader('content-length', 11 * 1024 * 1024)
    if (pathname === '/chunks') Readable.from([Buffer.alloc(6e6), Buffer.alloc(6e6)]).pipe(response)
    else response.end()
  })
  const dead = `http://127.0.0.1:${await freePort()}`
  const gateway = await bff(
    t,
    { slow, broken, dead, odd },
    `fastify.get('/call/:service/:path', async (request) => {
      const { service, path } = request.params
      return { given: await request.mesh.json(service, '/' + path) }
    })
    fastify.get('/caught', async (request) => {
      const { service, status, code } = await request.mesh.json('odd', '/missing').catch((error) => error)
      return { service, status, code }
    })
    fastify.addHook('onError', async (request, reply, error) => see(error.code))`
  )
  const cases: [path: string, status: number, code: string, proxyStatus: RegExp][] = [
    ['dead/x', 502, 'JW_UPSTREAM_REFUSED', /error=connection_refused/],
    ['broken/x', 502, 'JW_UPSTREAM_RESET', /error=connection_terminated/],
    ['unknown/x', 503, 'JW_NO_SERVICE', /error=destination_not_found/],
    ['slow/x', 504, 'JW_CALL_TIMEOUT', /error=http_response_timeout/],
    ['odd/missing', 502, 'JW_UPSTREAM_STATUS', /error=http_protocol_error/],
    ['odd/html', 502, 'JW_UPSTREAM_NOT_JSON', /error=http_protocol_error/],
    ['odd/long', 502, 'JW_UPSTREAM_BODY_TOO_LARGE', /error=http_response_body_size/],
    ['odd/chunks', 502, 'JW_UPSTREAM_BODY_TOO_LARGE', /error=http_response_body_size/]
  ]
  for (const [path, status, code, proxyStatus] of cases) {
    const response = await fetch(`${gateway.url}/call/${path}`)
    t.equal(response.status, status, path)
    t.match(await response.json(), { code }, path)
    t.match(response.headers.get('proxy-status'), proxyStatus, path)
  }
  t.same(
    seenBy(gateway),
    cases.map(([, , code]) => code)
  )
  t.same(await (await fetch(`${gateway.url}/call/odd/none`)).json(), { given: null })
  const caught = await (await fetch(`${gateway.url}/caught`)).json()
  t.same(caught, { service: 'odd', status: 404, code: 'JW_UPSTREAM_STATUS' })
})

t.test('request: works like undici’s, streams to the client, and maxResponseSize can be set or lifted', async (t) => {
  const size = 12 * 1024 * 1024
  const big = await service(t, (request, response) => {
    if (request.method === 'HEAD') response.setHeader('content-length', size)
    response.end(request.method === 'HEAD' ? undefined : Buffer.alloc(size, 'x'))
  })
  const { url } = await bff(
    t,
    { big },
    `fastify.get('/all', async (request, reply) => {
      const { statusCode, headers, body } = await request.mesh.request({ origin: 'http://big.mesh', path: '/', maxResponseSize: false })
      return reply.code(statusCode).send(body)
    })
    fastify.get('/few', async (request) => {
      const { body } = await request.mesh.request({ origin: 'http://big.mesh', path: '/', maxResponseSize: 1000 })
      return body.text()
    })
    fastify.get('/length', async (request) => {
      const { headers, body } = await request.mesh.request({ origin: 'http://big.mesh', path: '/', method: 'HEAD' })
      await body.dump()
      return headers['content-length']
    })`
  )
  t.equal((await (await fetch(`${url}/all`)).bytes()).length, size)
  t.match(await (await fetch(`${url}/few`)).json(), { statusCode: 502, code: 'JW_UPSTREAM_BODY_TOO_LARGE' })
  t.equal(await (await fetch(`${url}/length`)).text(), String(size))
})

t.test('a request that loops is refused with 508', async (t) => {
  let url = ''
  const back = await service(t, async (request, response) => {
    const headers = { via: request.headers.via! }
    const { status } = await fetch(`${url}/home`, { headers })
    response.end(JSON.stringify({ status }))
  })
  ;({ url } = await bff(t, { back }, `fastify.get('/home', async (request) => request.mesh.json('back', '/'))`))
  t.same(await (await fetch(`${url}/home`)).json(), { status: 508 })
})

t.test('a hook of a proxied route can call another service first', async (t) => {
  const orders = await service(t, (request, response) => response.end(`for ${request.headers['x-user']}`))
  const users = await service(t, (_request, response) => response.end('{"name":"amy"}'))
  const { url } = await bff(
    t,
    { orders, users },
    `fastify.addHook('preHandler', async (request) => {
      const { name } = await request.mesh.json('users', '/me')
      request.upstreamHeaders = ['x-user', name]
    })`,
    { routes: [{ name: 'orders', match: { path: '/orders' }, service: 'orders' }] }
  )
  t.equal(await (await fetch(`${url}/orders`)).text(), 'for amy')
})

const leaving = {
  'HTTP/1.1': (url: string) => {
    const request = http.get(url)
    request.on('error', () => {})
    return () => request.destroy()
  },
  TLS: (url: string) => {
    const request = https.get(url, { rejectUnauthorized: false })
    request.on('error', () => {})
    return () => request.destroy()
  },
  'HTTP/2': (url: string) => {
    const session = http2.connect(url, { rejectUnauthorized: false })
    session.on('error', () => {})
    const stream = session.request({ ':path': new URL(url).pathname })
    stream.on('error', () => {})
    return () => {
      stream.close(http2.constants.NGHTTP2_CANCEL)
      session.close()
    }
  }
}

for (const [protocol, open] of Object.entries(leaving)) {
  t.test(
    `a client that disconnects ends all calls of its request, before and within the response: ${protocol}`,
    async (t) => {
      let waiting = 0
      let ended = 0
      const orders = await service(t, (request, response) => {
        waiting++
        response.once('close', () => ended++)
        if (request.url === '/begun') response.write('[')
      })
      const listener = protocol === 'HTTP/1.1' ? { port: 0 } : { port: 0, tls: selfSigned(t), http2: true }
      const gateway = await bff(
        t,
        { orders },
        `fastify.get('/home', async (request) => {
        const calls = ['/silent', '/begun'].map((path) => request.mesh.json('orders', path).catch((error) => see(error.code)))
        await Promise.all(calls)
        // Called after the client has disconnected.
        await request.mesh.json('orders', '/late').catch((error) => see(error.code))
      })
      fastify.addHook('onResponse', async (request, reply) => see(reply.statusCode))`,
        { listen: listener, mesh: { retry: false, timeout: '1m' } }
      )
      const leave = open(`${gateway.url}/home`)
      await eventually(() => waiting === 2)
      leave()
      await eventually(() => ended === 2 && seenBy(gateway).length === 4)
      t.same(seenBy(gateway).sort(), [499, 'JW_CLIENT_GONE', 'JW_CLIENT_GONE', 'JW_CLIENT_GONE'])
      t.equal(waiting, 2, 'the late call is not sent')
    }
  )
}

t.test('an unread body is destroyed with the request, and its connection is closed', async (t) => {
  let ended = 0
  const big = await service(t, (_request, response) => {
    response.once('close', () => ended++)
    response.write(Buffer.alloc(1024 * 1024))
  })
  const { url, server } = await bff(
    t,
    { big },
    `fastify.get('/home', async (request) => {
      const { statusCode } = await request.mesh.request({ origin: 'http://big.mesh', path: '/' })
      return { statusCode }
    })`
  )
  t.same(await (await fetch(`${url}/home`)).json(), { statusCode: 200 })
  await eventually(() => ended === 1 && server.mesh.status()[0]!.active === 0)
  t.pass()
})

t.test('a call in onResponse is not ended by the response', async (t) => {
  const audit = await service(t, (_request, response) => void setTimeout(() => response.end('{"done":true}'), 50))
  const gateway = await bff(
    t,
    { audit },
    `fastify.get('/home', async () => 'home')
    fastify.addHook('onResponse', async (request) => see(await request.mesh.json('audit', '/')))`
  )
  t.equal(await (await fetch(`${gateway.url}/home`)).text(), 'home')
  await eventually(() => seenBy(gateway).length === 1)
  t.same(seenBy(gateway), [{ done: true }])
})

t.test('the `signal` option ends a call, too', async (t) => {
  const orders = await service(t, () => {})
  const { url } = await bff(
    t,
    { orders },
    `fastify.get('/home', async (request) => {
      const signal = AbortSignal.abort(new Error('enough'))
      return request.mesh.json('orders', '/', { signal }).catch((error) => ({ message: error.message }))
    })`
  )
  t.same(await (await fetch(`${url}/home`)).json(), { message: 'enough' })
})

t.test('a path that is not in origin-form fails with JW_PLUGIN_FAILED, and no service is called', async (t) => {
  const seen: unknown[] = []
  const orders = await service(t, (request, response) => {
    seen.push(request.url)
    response.end('{}')
  })
  const { url } = await bff(
    t,
    { orders },
    `fastify.get('/json', async (request) => request.mesh.json('orders', request.headers['x-path']))
     fastify.get('/request', async (request) => {
       const path = request.headers['x-path']
       const { body } = await request.mesh.request({ origin: 'http://orders.mesh', path })
       return body.json()
     })`
  )
  const refused = ['x', '', 'http://evil/x', 'evil:80', '*', '?x=1', '/a b', '/a#b', '/\u00e9']
  for (const path of refused) {
    for (const route of ['/json', '/request']) {
      const response = await fetch(url + route, { headers: { 'x-path': path } })
      t.match([response.status, await response.json()], [500, { code: 'JW_PLUGIN_FAILED' }], path)
    }
  }
  t.strictSame(seen, [])
  const taken = ['/', '/x?y=%zz&z="', '//x', '/a;b=c/%2F|{}']
  for (const path of taken) t.equal((await fetch(`${url}/json`, { headers: { 'x-path': path } })).status, 200, path)
  t.strictSame(seen, taken)
})

t.test('a call that AbortSignal.timeout ends fails with 504, not with JW_PLUGIN_FAILED', async (t) => {
  const orders = await service(t, (request, response) => {
    if (request.url === '/begun') response.writeHead(200).write('{')
  })
  const { url, server } = await bff(
    t,
    { orders },
    `const signal = () => AbortSignal.timeout(50)
     fastify.addHook('onError', async (request, reply, error) => see([error.code, error.message, error.cause?.name]))
     fastify.get('/silent', async ({ mesh }) => mesh.json('orders', '/silent', { signal: signal() }))
     fastify.get('/begun', async ({ mesh }) => mesh.json('orders', '/begun', { signal: signal() }))
     fastify.get('/body', async ({ mesh }) => {
       const { body } = await mesh.request({ origin: 'http://orders.mesh', path: '/begun', signal: signal() })
       return body.text()
     })
     fastify.get('/over', async ({ mesh }) => {
       const over = AbortSignal.abort(new DOMException('late', 'TimeoutError'))
       return mesh.json('orders', '/silent', { signal: over })
     })
     fastify.get('/own', async ({ mesh }) => mesh.json('orders', '/silent', { signal: AbortSignal.abort(new Error('mine')) }))`,
    { mesh: { retry: false, timeout: '10s' } }
  )
  for (const path of ['/silent', '/begun', '/body', '/over']) {
    const response = await fetch(url + path)
    t.equal(response.status, 504, path)
    t.match(await response.json(), { code: 'JW_SIGNAL_TIMEOUT', message: 'The service did not respond in time' })
    t.match(response.headers.get('proxy-status'), /http_response_timeout/)
  }
  t.equal((await fetch(`${url}/own`)).status, 500, 'any other reason fails with JW_PLUGIN_FAILED')
  await eventually(() => server.mesh.status()[0]!.active === 0)
  const seen = seenBy({ url, server })
  t.strictSame(
    seen.slice(0, 4),
    Array(4).fill(['JW_SIGNAL_TIMEOUT', 'orders: the AbortSignal of the call timed out', 'TimeoutError'])
  )
})

t.test('an entry of the package has the types for helpers of plugins', async (t) => {
  const total = async (mesh: RequestMesh, options: JsonOptions): Promise<unknown> => mesh.json('orders', '/', options)
  const raw = (mesh: RequestMesh, options: CallOptions) => mesh.request(options)
  const text = async (mesh: RequestMesh, options: StreamOptions) => (await mesh.stream('orders', '/', options)).text()
  const asked: unknown[] = []
  const mesh = {
    json: async (...args: unknown[]) => void asked.push(args),
    request: async (options: unknown) => void asked.push(options),
    stream: async (...args: unknown[]) => ({ text: async () => String(asked.push(args)) })
  } as unknown as FastifyRequest['mesh']
  await total(mesh, { method: 'POST', body: 1 })
  await raw(mesh, { origin: 'http://orders.mesh', path: '/' })
  t.equal(await text(mesh, { accept: 'text/plain' }), '3', 'all three were called')
})
