// Values of clients and services in the requests of calls: no value leaves its place.
import type { IncomingMessage, ServerResponse } from 'node:http'
import net from 'node:net'
import type { Test } from 'tap'
import t from 'tap'
import { claims, secret, token } from '../../helpers/edge/tokens.ts'
import { json, startComposed } from './services.ts'

interface Seen {
  url: string
  headers: IncomingMessage['headers']
  body: string
}

async function startEcho(t: Test, call: object, more: { compose?: object; route?: object } = {}) {
  const seen: Seen[] = []
  const echo = async (request: IncomingMessage, response: ServerResponse) => {
    let body = ''
    for await (const chunk of request) body += String(chunk)
    seen.push({ url: request.url!, headers: request.headers, body })
    json(response, { ok: true })
  }
  const gateway = await startComposed(t, {
    services: { echo },
    compose: { ...more.compose, calls: { echo: { service: 'echo', path: '/', ...call } } },
    ...(more.route && { route: more.route })
  })
  return { ...gateway, seen }
}

const post = (url: string, body: string, type = 'application/json') =>
  fetch(url, { method: 'POST', body, headers: { 'content-type': type } })

t.test('a path segment', async (t) => {
  const { url, seen } = await startEcho(t, { path: '/users/{query.id}/orders' })
  const good: [sent: string, url: string][] = [
    ['7', '/users/7/orders'],
    ['a%3Fb%23c%26d%3D', '/users/a%3Fb%23c%26d%3D/orders'],
    ['a%253F', '/users/a%253F/orders'],
    ['%C3%A9%20;', '/users/%C3%A9%20%3B/orders'],
    ['...', '/users/.../orders'],
    ['%7Bquery.id%7D', '/users/%7Bquery.id%7D/orders'],
    ['__proto__', '/users/__proto__/orders']
  ]
  for (const [sent, wanted] of good) {
    t.equal((await fetch(`${url}/c/1?id=${sent}`)).status, 200, sent)
    t.equal(seen.at(-1)?.url, wanted)
  }
  const count = seen.length
  for (const sent of ['..', '.', '%2e%2E', 'a%2Fb', 'a%5Cb', '', 'a%00', 'a%0d%0aX: y', '1&id=2']) {
    const response = await fetch(`${url}/c/1?id=${sent}`)
    t.equal(response.status, 400, sent)
    t.match(await response.json(), { code: 'JW_COMPOSE_INPUT', message: /\{query\.id\}/ })
  }
  t.equal((await fetch(`${url}/c/1`)).status, 400)
  t.equal((await fetch(`${url}/c/1?id=${'x'.repeat(8000)}&y=${'x'.repeat(100)}`)).status, 200)
  t.equal(seen.length, count + 1, 'no call is made')
})

t.test('parts of a segment, and doubled braces', async (t) => {
  const { url, seen } = await startEcho(t, { path: '/{{x}}/a-{params.id}.{query.ext|json}' })
  await fetch(`${url}/c/1`)
  t.equal(seen.at(-1)?.url, '/{x}/a-1.json')
  const dots = await startEcho(t, { path: '/.{query.a}/x' })
  t.equal((await fetch(`${dots.url}/c/1?a=.`)).status, 400)
  t.equal((await fetch(`${dots.url}/c/1?a=%252e`)).status, 200)
  t.equal(dots.seen.at(-1)?.url, '/.%252e/x')
})

t.test('path.encodedSlash: pass lets slashes through, encoded', async (t) => {
  const route = { path: { encodedSlash: 'pass' } }
  const { url, seen } = await startEcho(t, { path: '/files/{query.name}' }, { route })
  t.equal((await fetch(`${url}/c/1?name=../a`)).status, 200)
  t.equal(seen.at(-1)?.url, '/files/..%2Fa')
})

t.test('the query', async (t) => {
  const query = { a: '{query.a}', b: 'x{query.b}', c: '{query.c|1}', 'k&': 'v=' }
  const { url, seen } = await startEcho(t, { query })
  await fetch(`${url}/c/1?a=1&b=%26d%3D1%23`)
  t.equal(seen.at(-1)?.url, '/?a=1&b=x%26d%3D1%23&c=1&k%26=v%3D')
  await fetch(`${url}/c/1?a=1&a=2&b=&c=3&toString=1`)
  t.equal(seen.at(-1)?.url, '/?a=1&a=2&b=x&c=3&k%26=v%3D', 'a repeated key is repeated')
  await fetch(`${url}/c/1?b=2`)
  t.equal(seen.at(-1)?.url, '/?b=x2&c=1&k%26=v%3D', 'a missing one is omitted')
  t.equal((await fetch(`${url}/c/1?b=2&b=3`)).status, 400, 'but not within a text')
})

t.test('headers', async (t) => {
  const headers = { 'x-a': '{query.a}', 'x-b': 'b {query.b|-}', 'x-lang': '{headers.accept-language}' }
  const { url, seen } = await startEcho(t, { headers })
  const secret = { 'accept-language': 'it', authorization: 'Bearer x', cookie: 'a=1', 'x-other': '1' }
  t.equal((await fetch(`${url}/c/1?a=%201%20`, { headers: secret })).status, 200)
  t.match(seen.at(-1)?.headers, { 'x-a': '1', 'x-b': 'b -', 'x-lang': 'it', 'accept-encoding': 'identity' })
  const { authorization, cookie, 'x-other': other } = seen.at(-1)!.headers
  t.strictSame([authorization, cookie, other], [undefined, undefined, undefined], 'no other headers of the client')
  t.match(seen.at(-1)?.headers, { 'x-forwarded-for': '127.0.0.1', via: String, 'x-request-id': String })
  for (const sent of ['a%0d%0aX-Evil: 1', 'a%0aX-Evil: 1', 'a%00', '%C3%A9', '%F0%9F%98%80']) {
    t.equal((await fetch(`${url}/c/1?a=${sent}`)).status, 400, sent)
  }
  t.equal((await fetch(`${url}/c/1`)).status, 200)
  t.notOk('x-a' in seen.at(-1)!.headers, 'without a value there is no header')
})

t.test('a header that services trust is not read from clients', async (t) => {
  const jwt = { jwt: { secret, forward: { sub: 'x-user' } } }
  const { url, seen } = await startEcho(t, { query: { user: '{headers.x-user|nobody}' } })
  const other = { name: 'o', match: { path: '/o' }, service: 'echo', edge: jwt }
  await fetch(`${url}/c/1`, { headers: { 'x-user': 'admin' } })
  t.equal(seen.at(-1)?.url, '/?user=admin', 'no route sets it')
  const call = { service: 'echo', path: '/', query: { user: '{headers.x-user|nobody}' } }
  const guarded = await startComposed(t, {
    services: {
      echo: (request, response) => {
        seen.push({ url: request.url!, headers: request.headers, body: '' })
        json(response, {})
      }
    },
    compose: { calls: { echo: call } },
    routes: [other]
  })
  await fetch(`${guarded.url}/c/1`, { headers: { 'x-user': 'admin' } })
  t.equal(seen.at(-1)?.url, '/?user=nobody')
})

t.test('a JSON body', async (t) => {
  const body = {
    whole: '{body}',
    name: '{body/name}',
    text: 'Hello {body/name}',
    id: '{params.id}',
    none: '{query.none}',
    list: ['{body/items/0/id}', '{body/items/5/id}', 1, null],
    ids: '{body/items/*/id}'
  }
  const { url, seen } = await startEcho(t, { method: 'POST', path: '/', body })
  const sent = { name: '"}, {"x": "\u2028', items: [{ id: 1 }, { id: 'b' }] }
  t.equal((await post(`${url}/c/1`, JSON.stringify(sent))).status, 200)
  t.strictSame(JSON.parse(seen.at(-1)!.body), {
    whole: sent,
    name: sent.name,
    text: `Hello ${sent.name}`,
    id: '1',
    list: [1, 1, null],
    ids: [1, 'b']
  })
  t.match(seen.at(-1)?.headers, { 'content-type': 'application/json' })
  t.equal((await post(`${url}/c/1`, '{"name":["a"]}')).status, 400, 'a list has no text')
  const evil = '{"name":"n","__proto__":{"polluted":1},"constructor":{"prototype":{"polluted":1}}}'
  t.equal((await post(`${url}/c/1`, evil)).status, 200)
  t.match(seen.at(-1)!.body, '"whole":{"name":"n","__proto__":{"polluted":1}')
  t.equal(Reflect.get({}, 'polluted'), undefined)
})

t.test('inherited members are missing', async (t) => {
  const query = { a: '{body/__proto__/x}', b: '{body/constructor/name}', c: '{body/length}', d: '{query.toString}' }
  const { url, seen } = await startEcho(t, { query })
  t.equal((await post(`${url}/c/1`, '{"a":1}')).status, 200)
  t.equal(seen.at(-1)?.url, '/')
  t.equal((await post(`${url}/c/1`, '[1,2]')).status, 200)
  t.equal(seen.at(-1)?.url, '/')
})

t.test('bodies that cannot be used', async (t) => {
  const { url, seen } = await startEcho(t, { query: { a: '{body/a}' } }, { compose: { maxBody: '1kb' } })
  const bad: [body: string, type: string, status: number, code: string][] = [
    ['{"a":', 'application/json', 400, 'JW_COMPOSE_BODY'],
    ['{"a":1}', 'text/plain', 415, 'JW_COMPOSE_TYPE'],
    [`{"a":"${'x'.repeat(1100)}"}`, 'application/json', 413, 'JW_BODY_TOO_LARGE'],
    ['['.repeat(500), 'application/json', 400, 'JW_COMPOSE_BODY']
  ]
  for (const [body, type, status, code] of bad) {
    const response = await post(`${url}/c/1`, body, type)
    t.equal(response.status, status)
    t.match(await response.json(), { code })
  }
  const chunked = new ReadableStream({
    start(controller) {
      for (let i = 0; i < 20; i++) controller.enqueue(Buffer.from('x'.repeat(100)))
      controller.close()
    }
  })
  const headers = { 'content-type': 'application/json' }
  const large = await fetch(`${url}/c/1`, { method: 'POST', body: chunked, headers, duplex: 'half' } as RequestInit)
  t.equal(large.status, 413)
  t.equal(seen.length, 0)
  t.equal((await fetch(`${url}/c/1`, { method: 'POST' })).status, 200, 'an empty body has no values')
  t.equal((await post(`${url}/c/1`, '{"a":1}', 'application/problem+json; charset=utf-8')).status, 200)
  t.equal(seen.at(-1)?.url, '/?a=1')
})

t.test('a body that no template uses is not read', async (t) => {
  const { url, port, seen } = await startEcho(t, { query: { a: '{query.a}' } })
  t.equal((await post(`${url}/c/1?a=1`, 'not JSON', 'text/plain')).status, 200)
  t.equal(seen.at(-1)?.body, '')
  const socket = net.connect(port, '127.0.0.1')
  t.teardown(() => socket.destroy())
  socket.write('POST /c/1 HTTP/1.1\r\nHost: a\r\nContent-Length: 1000000\r\n\r\n')
  const [head] = (await new Promise<Buffer>((resolve) => socket.once('data', resolve))).toString().split('\r\n')
  t.equal(head, 'HTTP/1.1 200 OK')
})

t.test('values of the caller', async (t) => {
  const query = { who: '{consumer.id}', sub: '{claims/sub}', role: '{claims/realm/roles}', first: '{claims/realm/roles/0}', none: '{claims/x}' } // biome-ignore format: one line
  const seen: string[] = []
  const { url } = await startComposed(t, {
    services: {
      echo: (request, response) => {
        seen.push(request.url!)
        json(response, {}, { 'cache-control': 'public, max-age=60' })
      }
    },
    compose: { calls: { echo: { service: 'echo', path: '/', query } } },
    route: { edge: { jwt: { secret } } }
  })
  const headers = { authorization: `Bearer ${token(claims({ realm: { roles: ['a', 'b'] } }))}` }
  const response = await fetch(`${url}/c/1`, { headers })
  t.equal(seen[0], '/?who=ann&sub=ann&role=a&role=b&first=a')
  t.equal(response.headers.get('cache-control'), 'private, max-age=60', 'no shared cache may keep it')
})

t.test('parameters of the path are encoded once', async (t) => {
  const { url, seen } = await startEcho(t, { path: '/x/{params.id}' })
  for (const id of ['%20', '%25', '%C3%A9', '%3F', 'a%2541', "a'b", '%7Bparams.id%7D']) {
    t.equal((await fetch(`${url}/c/${id}`)).status, 200, id)
    t.equal(seen.at(-1)?.url, `/x/${id}`)
  }
  for (const id of ['a%2Fb', '%2e%2e', '..%2f']) t.not((await fetch(`${url}/c/${id}`)).status, 200, id)
})

t.test('values of responses cannot leave their place either', async (t) => {
  const values: unknown[] = ['..', 'a/b', 'a\r\nb', { a: 1 }, null, ['a'], 'a?b', 7, true]
  const expected = [502, 502, 502, 502, 502, 502, 200, 200, 200]
  let value: unknown
  const urls: string[] = []
  const { url } = await startComposed(t, {
    services: {
      first: (_request, response) => json(response, { value }),
      second: (request, response) => {
        urls.push(request.url!)
        json(response, {})
      }
    },
    compose: {
      calls: {
        first: { service: 'first', path: '/' },
        second: { service: 'second', path: '/{calls.first/value}', group: 'second' }
      }
    }
  })
  for (const [index, each] of values.entries()) {
    value = each
    t.equal((await fetch(`${url}/c/1`)).status, expected[index], JSON.stringify(each))
  }
  t.strictSame(urls, ['/a%3Fb', '/7', '/true'])
})

t.test('the header section of a call is bounded in bytes and lines', async (t) => {
  const { url, seen } = await startEcho(t, { path: '/', headers: { 'x-b': '{body/b}' } })
  const status = async (b: unknown) => {
    const response = await post(`${url}/c/1`, JSON.stringify({ b }))
    if (response.status !== 200) t.match(await response.json(), { code: 'JW_COMPOSE_INPUT', message: /too long/ })
    return response.status
  }
  t.equal(await status('z'.repeat(8000)), 200)
  t.equal(await status(Array(100).fill('y')), 200)
  const count = seen.length
  t.equal(await status('z'.repeat(16_384)), 400)
  t.equal(await status(Array(101).fill('y')), 400)
  t.equal(await status(Array(100).fill('z'.repeat(200))), 400)
  t.equal(seen.length, count, 'no call is made')
})
