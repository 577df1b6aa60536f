// The caching fields of composed responses.
import type { IncomingHttpHeaders, IncomingMessage, ServerResponse } from 'node:http'
import { request } from 'node:http'
import t from 'tap'
import { cachedPart, freshnessOf } from '../../../routes/compose/freshness.ts'
import { json, startComposed } from './services.ts'

type Fields = Record<string, string | string[]>

t.test('the strictest of all parts', async (t) => {
  const date = 'Sun, 29 Nov 2026 12:00:00 GMT'
  const later = 'Sun, 29 Nov 2026 12:01:00 GMT'
  const cases: [parts: Fields[], control: string][] = [
    [[{ 'cache-control': 'max-age=60' }, { 'cache-control': 'max-age=30, immutable' }], 'max-age=30'],
    [[{ 'cache-control': 'max-age=60', age: '50' }, { 'cache-control': 'max-age=30' }], 'max-age=10'],
    [[{ 'cache-control': 'max-age=60', age: '90' }], 'no-cache'],
    [[{ 'cache-control': 'max-age=60' }, {}], 'no-cache'],
    [[{}], 'no-cache'],
    [[{ 'cache-control': 'max-age=60' }, { 'cache-control': 'no-store' }], 'no-store'],
    [[{ 'cache-control': 'max-age=60' }, { 'cache-control': 'No-Cache="x"' }], 'no-cache'],
    [[{ 'cache-control': 'public, max-age=60' }, { 'cache-control': 'private, max-age=90' }], 'private, max-age=60'],
    [[{ 'cache-control': 'private="a, b", max-age=90' }], 'private, max-age=90'],
    [[{ 'cache-control': 'public, max-age=60' }, { 'cache-control': 'PUBLIC,max-age="9"' }], 'public, max-age=9'],
    [[{ 'cache-control': 'max-age=60, s-maxage=600' }, { 'cache-control': 'max-age=90' }], 'max-age=60, s-maxage=90'],
    [[{ 'cache-control': 's-maxage=600, private, max-age=9' }], 'private, max-age=9'],
    [[{ 'cache-control': 's-maxage=600' }], 'max-age=0, s-maxage=600'],
    [[{ 'cache-control': 'max-age=5, must-revalidate, proxy-revalidate, no-transform' }], 'max-age=5, must-revalidate, proxy-revalidate, no-transform'],
    [[{ expires: later, date }, { 'cache-control': 'max-age=90' }], 'max-age=60'],
    [[{ expires: '0', date }], 'no-cache'],
    [[{ 'cache-control': 'max-age=99999999999999' }], 'max-age=2147483648'],
    [[{ 'cache-control': 'max-age=-1' }], 'no-cache'],
    [[{ 'cache-control': 'max-age=60, max-age=600' }], 'max-age=60'],
    [[{ 'cache-control': ',,;=,"' }], 'no-cache'],
    [[{ 'cache-control': ['public', 'max-age=60'] }], 'public, max-age=60'],
    [[{ 'cache-control': ['max-age=60', 'no-store'] }], 'no-store'],
    [[{ 'cache-control': 'max-age=60', age: ['10', '20'] }], 'max-age=50'],
    [[{ expires: [later, '0'], date: [date, '0'] }], 'max-age=60']
  ] // biome-ignore format: a table
  for (const [parts, control] of cases) {
    const freshness = freshnessOf(
      parts.map((headers) => cachedPart(headers as IncomingHttpHeaders, true)),
      false
    )
    t.equal(freshness.control, control, JSON.stringify(parts))
  }
  const part = cachedPart({ 'cache-control': 'public, max-age=60, s-maxage=90' }, true)
  t.equal(freshnessOf([part], true).control, 'private, max-age=60')
  t.equal(freshnessOf([part, cachedPart({}, false)], false).control, 'no-store', 'a call with another method')
})

t.test('Vary is the union', async (t) => {
  const varied = (...all: string[]) =>
    freshnessOf(
      all.map((vary) => cachedPart({ vary }, true)),
      false
    ).vary
  t.strictSame(varied('Accept, X-A', 'accept,x-b'), ['accept', 'x-a', 'x-b'])
  t.strictSame(varied('Accept', '*'), ['*'])
})

const cached = (_request: IncomingMessage, response: ServerResponse) =>
  json(response, { a: 1 }, { 'cache-control': 'public, max-age=60', vary: 'X-A' })

t.test('a composed response and its headers', async (t) => {
  const calls = { a: { service: 'a', path: '/', query: { l: '{headers.accept-language}' } } }
  const compose = { calls }
  const edge = { cors: { origin: ['https://app.example.com'] } }
  const { url } = await startComposed(t, { services: { a: cached }, compose, route: { edge } })
  const first = await fetch(`${url}/c/1`, { headers: { origin: 'https://app.example.com' } })
  t.equal(first.headers.get('cache-control'), 'public, max-age=60')
  t.equal(first.headers.get('access-control-allow-origin'), 'https://app.example.com')
  t.strictSame(first.headers.get('vary')?.toLowerCase().split(', ').sort(), ['accept-language', 'origin', 'x-a'])
  const etag = first.headers.get('etag')!
  for (const field of [etag, etag.slice(2), `"x", ${etag}`, '*']) {
    const again = await fetch(`${url}/c/1`, { headers: { 'if-none-match': field } })
    t.equal(again.status, 304, field)
    t.equal(again.headers.get('etag'), etag)
    t.equal(again.headers.get('content-type'), null)
  }
  t.equal((await fetch(`${url}/c/1`, { headers: { 'if-none-match': '"x"' } })).status, 200)
  const known = await fetch(`${url}/c/1`, { headers: { authorization: 'Bearer x' } })
  t.equal(known.headers.get('cache-control'), 'private, max-age=60')
  const posted = await fetch(`${url}/c/1`, { method: 'POST', headers: { 'if-none-match': '*' } })
  t.equal(posted.status, 200)
  t.equal(posted.headers.get('cache-control'), 'no-store')
  t.equal(posted.headers.get('etag'), null)
})

t.test('fields that services send as several lines', async (t) => {
  const fields = [
    'Cache-Control',
    'public',
    'cache-control',
    'max-age=60',
    'Vary',
    'Origin',
    'Vary',
    'Accept',
    'Age',
    '10',
    'Age',
    '20'
  ]
  const repeated = (_request: IncomingMessage, response: ServerResponse) => {
    response.writeHead(200, [...fields, 'Content-Encoding', 'identity', 'Content-Encoding', 'identity'])
    response.end('{"b":2}')
  }
  const calls = {
    a: { service: 'a', path: '/' },
    b: { service: 'b', path: '/', required: false, query: { vary: '{calls.a.headers.vary}' } }
  }
  const { url } = await startComposed(t, { services: { a: repeated, b: repeated }, compose: { calls } })
  const response = await fetch(`${url}/c/1`)
  t.equal(response.status, 200)
  t.equal(response.headers.get('x-jingwei-complete'), 'true')
  t.equal(response.headers.get('cache-control'), 'public, max-age=50')
  t.equal(response.headers.get('vary'), 'origin, accept')
  t.equal(await response.text(), '{"b":2}')
})

t.test('an unexpected error in an optional part leaves the others', async (t) => {
  const hostile = new Proxy({}, { get: () => { throw new TypeError('unexpected') } }) // biome-ignore format: short
  const calls = { a: { service: 'a', path: '/' }, b: { service: 'b', path: '/', required: false, group: 'b' } }
  const { url } = await startComposed(t, {
    services: { a: cached, b: cached },
    compose: { calls },
    before: (fastify) => {
      fastify.addHook('onRequest', async (request) => {
        const { mesh } = request
        const ask: typeof mesh.request = async (options) => {
          const response = await mesh.request(options)
          return String(options.origin).includes('b.mesh') ? { ...response, headers: hostile } : response
        }
        Object.defineProperty(request, 'mesh', { value: Object.assign(Object.create(mesh), { request: ask }) })
      })
    }
  })
  const response = await fetch(`${url}/c/1`)
  t.equal(response.status, 200)
  t.equal(response.headers.get('x-jingwei-missing'), 'b')
  t.equal(await response.text(), '{"a":1}')
})

t.test('fields of the configuration replace the computed ones', async (t) => {
  const response = { headers: { 'cache-control': 'no-store', vary: 'x-b' } }
  const compose = { calls: { a: { service: 'a', path: '/' } }, response }
  const { url } = await startComposed(t, { services: { a: cached }, compose })
  const { headers } = await fetch(`${url}/c/1`)
  t.equal(headers.get('cache-control'), 'no-store')
  t.equal(headers.get('etag'), null)
  t.equal(headers.get('vary'), 'x-a, x-b', 'Vary is added to')
})

t.test('an error has no fields of the composed response', async (t) => {
  const headers = { 'x-first': 'one', 'x-name': '{calls.a/name}', vary: 'x-b' }
  const compose = { calls: { a: { service: 'a', path: '/' } }, response: { headers } }
  let name: unknown
  const a = (_request: IncomingMessage, response: ServerResponse) =>
    json(response, { name }, { 'cache-control': 'public, max-age=60', vary: 'X-A' })
  const { url } = await startComposed(t, { services: { a }, compose })
  for (name of ['Zoë', { first: 'Zoe' }, 'Zoe\r\n']) {
    const { status, headers } = await fetch(`${url}/c/1`)
    t.equal(status, 502, JSON.stringify(name))
    const fields = ['x-jingwei-complete', 'cache-control', 'vary', 'etag', 'x-first', 'x-name']
    t.strictSame(fields.map((field) => headers.get(field)), fields.map(() => null)) // biome-ignore format: a line
  }
  name = 'Zoe'
  const { status, headers: fields } = await fetch(`${url}/c/1`)
  t.equal(status, 200)
  t.strictSame([fields.get('x-name'), fields.get('cache-control')], ['Zoe', 'public, max-age=60'])
})

t.test('a response field with a value of an optional call that failed is left out', async (t) => {
  const headers = { 'x-s': 'v={calls.b.status}', 'x-t': 'v={calls.b.status|0}' }
  const calls = { a: { service: 'a', path: '/' }, b: { service: 'b', path: '/', required: false, group: 'b' } }
  const b = (_request: IncomingMessage, response: ServerResponse) => json(response, {}, {}, 500)
  const { url } = await startComposed(t, { services: { a: cached, b }, compose: { calls, response: { headers } } })
  const { status, headers: fields } = await fetch(`${url}/c/1`)
  t.equal(status, 200)
  t.equal(fields.get('x-jingwei-missing'), 'b')
  t.strictSame([fields.get('x-s'), fields.get('x-t')], [null, 'v=0'])
})

t.test('responses that depend on the body of a GET are not stored', async (t) => {
  const calls = { a: { service: 'a', path: '/', query: { q: '{body/v}' } } }
  const { url } = await startComposed(t, { services: { a: cached }, compose: { calls } })
  const sent = (body: string) =>
    new Promise<IncomingMessage>((resolve, reject) => {
      const fields = { 'content-type': 'application/json', 'content-length': body.length }
      const call = request(`${url}/c/1`, { headers: fields, agent: false }, resolve)
      call.on('error', reject).end(body)
    })
  for (const body of ['{"v":"evil"}', '']) {
    const response = await sent(body)
    response.resume()
    t.equal(response.statusCode, 200)
    t.equal(response.headers['cache-control'], 'no-store')
    t.equal(response.headers.etag, undefined)
  }
})
