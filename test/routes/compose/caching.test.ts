// The caching fields of composed responses.
import type { IncomingMessage, ServerResponse } from 'node:http'
import t from 'tap'
import { freshnessOf } from '../../../routes/compose/freshness.ts'
import { json, startComposed } from './services.ts'

type Fields = Record<string, string>

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
    [[{ 'cache-control': ',,;=,"' }], 'no-cache']
  ] // biome-ignore format: a table
  for (const [parts, control] of cases) {
    const freshness = freshnessOf(
      parts.map((headers) => ({ headers, isSafe: true })),
      false
    )
    t.equal(freshness.control, control, JSON.stringify(parts))
  }
  const part = { headers: { 'cache-control': 'public, max-age=60, s-maxage=90' }, isSafe: true }
  t.equal(freshnessOf([part], true).control, 'private, max-age=60')
  t.equal(freshnessOf([part, { headers: {}, isSafe: false }], false).control, 'no-store', 'a call with another method')
})

t.test('Vary is the union', async (t) => {
  const varied = (...all: string[]) =>
    freshnessOf(
      all.map((vary) => ({ headers: { vary }, isSafe: true })),
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

t.test('fields of the configuration replace the computed ones', async (t) => {
  const response = { headers: { 'cache-control': 'no-store', vary: 'x-b' } }
  const compose = { calls: { a: { service: 'a', path: '/' } }, response }
  const { url } = await startComposed(t, { services: { a: cached }, compose })
  const { headers } = await fetch(`${url}/c/1`)
  t.equal(headers.get('cache-control'), 'no-store')
  t.equal(headers.get('etag'), null)
  t.equal(headers.get('vary'), 'x-a, x-b', 'Vary is added to')
})
