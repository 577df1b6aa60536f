// slow: takes about 5 s
/** `edge.body` beside other concerns, on composed routes, with `via: http-proxy`, with retries, and with odd services. */
import { createHash, createHmac } from 'node:crypto'
import { Readable } from 'node:stream'
import type { Test } from 'tap'
import t from 'tap'
import { anyClient, listenFor, protocols } from '../../../helpers/edge/asking-client.ts'
import { raw, startGateway, startRawService, startService } from '../../../helpers/gateway.ts'

const rules = {
  request: { remove: ['/admin'], set: { '/by': 'gw' } },
  response: { remove: ['/secret'], set: { '/via': 'gw' } }
}
const post = (body: string, headers: Record<string, string> = {}) => ({
  method: 'POST',
  body,
  headers: { 'content-type': 'application/json', ...headers }
})

/** A service that responds with the body that it has seen. */
async function startMirror(t: Test, statuses: number[] = []) {
  const seen: string[] = []
  const service = await startService(async (request, response) => {
    const chunks: Buffer[] = []
    for await (const chunk of request) chunks.push(chunk as Buffer)
    seen.push(Buffer.concat(chunks).toString())
    response.statusCode = statuses.shift() ?? 200
    response.setHeader('content-type', 'application/json')
    response.end(
      `{"secret":1,"method":"${request.method}","range":"${request.headers.range}","seen":${seen.at(-1) || 'null'}}`
    )
  })
  t.teardown(service.close)
  return { url: service.url, seen }
}

t.test('composed routes, and via: http-proxy', async (t) => {
  const { url, seen } = await startMirror(t)
  const gateway = await startGateway({
    services: { any: { instances: [url] } },
    edge: { body: rules },
    routes: [
      {
        name: 'composed',
        match: { path: '/composed', methods: ['POST'] },
        compose: {
          calls: { one: { service: 'any', path: '/', method: 'POST', body: { got: '{body/by} {body/admin|none}' } } }
        }
      },
      { name: 'proxied', match: { path: '/proxied' }, service: 'any', via: 'http-proxy' }
    ]
  })
  t.teardown(gateway.close)
  const { ask } = anyClient(t, 'HTTP/1.1', gateway.port)
  const composed = await ask('/composed', post('{"admin":true}'))
  t.same([composed.status, seen.at(-1)], [200, '{"got":"gw none"}'])
  t.equal(composed.body.toString(), '{"method":"POST","range":"undefined","seen":{"got":"gw none"},"via":"gw"}')
  const proxied = await ask('/proxied', post('{"admin":true,"n":1.0}', { range: 'bytes=0-1' }))
  t.same([proxied.status, seen.at(-1)], [200, '{"n":1.0,"by":"gw"}'])
  t.equal(proxied.body.toString(), '{"method":"POST","range":"undefined","seen":{"n":1.0,"by":"gw"},"via":"gw"}')
  t.match(JSON.parse((await ask('/proxied', post('{"admin"'))).body.toString()), { code: 'JW_BODY_INVALID' })
})

for (const protocol of protocols) {
  t.test(`retries, 100-continue and streams of own routes over ${protocol}`, async (t) => {
    const { url, seen } = await startMirror(t, [503])
    const gateway = await startGateway(
      {
        listen: listenFor(t, protocol),
        services: { any: { instances: [url, url.replace('127.0.0.1', 'localhost')] } },
        mesh: { retry: { attempts: 1, on: [503], methods: ['POST'] } },
        edge: { body: rules },
        routes: [{ name: 'all', match: { path: '/' }, service: 'any' }]
      },
      {
        before: (server) =>
          void server.register(async (own) => {
            const config = { edge: { body: true } }
            own.get('/own/stream', { config }, async (_request, reply) => {
              reply.type('application/json')
              return Readable.from(['{"sec', 'ret":1,', '"n":1.0}'])
            })
            own.get('/own/objects', { config }, async (_request, reply) => {
              reply.type('application/json')
              return Readable.from([{ secret: 1 }])
            })
            own.get('/own/response', { config }, async () => Response.json({ secret: 1 }, { status: 201 }))
            own.get('/own/web', { config }, async (_request, reply) => {
              reply.type('application/json')
              return new Blob(['{"secret":1,"n":1.0}']).stream()
            })
          })
      }
    )
    t.teardown(gateway.close)
    const { ask } = anyClient(t, protocol, gateway.port)
    const { status, body } = await ask('/', post('{"admin":1}'))
    t.same([status, seen], [200, ['{"by":"gw"}', '{"by":"gw"}']])
    t.equal(body.toString(), '{"method":"POST","range":"undefined","seen":{"by":"gw"},"via":"gw"}')
    const continued = await ask('/', post('{"admin":2}', { expect: '100-continue' }))
    t.same([continued.status, seen.at(-1)], [200, '{"by":"gw"}'])
    t.equal((await ask('/own/stream')).body.toString(), '{"n":1.0,"via":"gw"}')
    t.equal((await ask('/own/web')).body.toString(), '{"n":1.0,"via":"gw"}')
    t.equal((await ask('/own/objects')).status, 500)
    const object = await ask('/own/response')
    t.same([object.status, object.body.toString()], [201, '{"via":"gw"}'])
    t.match(await ask('/own/stream', { method: 'HEAD' }), { status: 200, isWhole: true })
  })
}

t.test('a signature with a digest is verified with the bytes of the client', async (t) => {
  const { url, seen } = await startMirror(t)
  const secret = 'a secret that is long enough for it'
  const gateway = await startGateway({
    services: { any: { instances: [url] } },
    routes: [
      {
        name: 'all',
        match: { path: '/' },
        service: 'any',
        edge: { body: rules, hmacAuth: { validateRequestBody: true } }
      }
    ],
    consumers: [{ name: 'amy', hmacAuth: { username: 'amy', secret } }]
  })
  t.teardown(gateway.close)
  const { ask } = anyClient(t, 'HTTP/1.1', gateway.port)
  const signed = (body: string, sent = body) => {
    const digest = `SHA-256=${createHash('sha256').update(body).digest('base64')}`
    const date = new Date().toUTCString()
    const text = `date: ${date}\nPOST / HTTP/1.1\ndigest: ${digest}`
    const signature = createHmac('sha256', secret).update(text).digest('base64')
    const authorization = `hmac username="amy", algorithm="hmac-sha256", headers="date request-line digest", signature="${signature}"`
    return ask('/', post(sent, { date, digest, authorization }))
  }
  t.equal((await signed('{"admin":1,"n":1.0}')).status, 200)
  t.equal(seen.at(-1), '{"n":1.0,"by":"gw"}')
  t.equal((await signed('{"n":1}', '{"n":2}')).status, 401)
})

t.test('services with two types, and with a body that ends early', async (t) => {
  const head = 'HTTP/1.1 200 OK\r\nconnection: close\r\n'
  const responses = [
    [
      `${head}content-type: text/plain\r\ncontent-type: application/json\r\ncontent-length: 12\r\n\r\n{"secret":1}`,
      502
    ],
    [`${head}content-type: application/json\r\ncontent-length: 13\r\n\r\n{"secret":1}`, 502],
    [`${head}content-type: application/json\r\n\r\n{"secret":1}`, 200],
    [`${head}content-type: application/json\r\ncontent-length: 0\r\n\r\n`, 200]
  ] as const
  for (const [response, status] of responses) {
    const service = await startRawService((socket) => void socket.once('data', () => socket.end(response)))
    t.teardown(service.close)
    const gateway = await startGateway({
      services: { any: { instances: [service.url] } },
      mesh: { retry: false },
      routes: [{ name: 'all', match: { path: '/' }, service: 'any', edge: { body: { response: rules.response } } }]
    })
    t.teardown(gateway.close)
    const text = await raw(gateway.port, 'GET / HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n')
    t.match(text, new RegExp(`^HTTP/1\\.1 ${status} `), response)
    t.notMatch(text, /secret/, response)
  }
})
