// Rules for the query that services get.
import { createHash } from 'node:crypto'
import type { Test } from 'tap'
import t from 'tap'
import { claims, secret, token } from '../../helpers/edge/tokens.ts'
import { eventually } from '../../helpers/eventually.ts'
import { ask, configOf, gatewayBefore, get, startEcho, startService } from '../../helpers/gateway.ts'

const echo = await startEcho()
t.teardown(echo.close)

const asking = async (t: Test, query: object, edge: object = {}) => {
  const { port } = await gatewayBefore(t, echo.url, { edge: { ...edge, query } })
  return async (target: string, fields: string[] = []) => (await ask(port, target, fields)).url
}

t.test('each operation; other parameters keep their bytes and order', async (t) => {
  for (const [query, target, expected] of [
    [{ remove: ['a'] }, '/x?b=1&a=2&%61=3&c=%C3%a9+%20&&d', '/x?b=1&c=%C3%a9+%20&&d'],
    [{ remove: ['a b'] }, '/?a+b=1&a%20b=2&a=3', '/?a=3'],
    [{ remove: ['a'] }, '/?a=1', '/'],
    [{ remove: ['a'] }, '/', '/'],
    [{ remove: ['a'] }, '/?%zz=1&a', '/?%zz=1'],
    [{ only: ['a', 'b'] }, '/?b=1&c=2&a=%3d&B=3', '/?b=1&a=%3d'],
    [{ only: ['q'] }, '/?q=1;admin=1', '/?q=1%3Badmin=1'],
    [{ remove: ['admin'] }, '/?q=a;b&r=1;%61dmin=1', '/?q=a;b&r=1%3B%61dmin=1'],
    [{ rename: { a: 'b c' } }, '/?a=%3d&b+c=2&a', '/?b%20c=%3d&b%20c'],
    [{ rename: { a: 'b', b: 'a' } }, '/?a=1&b=2', '/?b=1&a=2'],
    [{ rename: { a: 'b' } }, '/?b=2', '/?b=2'],
    [{ set: { a: 'x y&z', b: ['1', '2'] } }, '/?a=0&c=3', '/?c=3&a=x%20y%26z&b=1&b=2'],
    [{ set: { a: '1' } }, '/', '/?a=1'],
    [{ add: { a: '1', b: '2' } }, '/?a=0', '/?a=0&b=2'],
    [{ append: { a: '1' } }, '/?a=0', '/?a=0&a=1'],
    [{ set: { a: '{query.none}', m: '{request.method}{query.a|-}' } }, '/?a=1', '/?m=GET1'],
    [{ rename: { a: 'b' }, set: { b: '1' } }, '/?a=evil&b=2&c=3', '/?c=3&b=1'],
    [{ rename: { a: 'b' }, set: { a: '1' } }, '/?a=0&b=2', '/?b=0&a=1'],
    [{ only: ['b'], rename: { a: 'b' } }, '/?a=0&b=2', '/?b=2'],
    [{ remove: ['a'], rename: { a: 'b' } }, '/?a=0&b=2', '/?b=2'],
    [{ set: { p: '{request.path}', h: '{headers.x-a}' } }, '/a%20b', '/a%20b?p=%2Fa%2520b&h=%26evil%3D1%23']
  ] as const) {
    const url = await asking(t, query)
    t.equal(await url(target, ['x-a: &evil=1#']), expected, `${JSON.stringify(query)} ${target}`)
  }
})

t.test('values cannot add parameters', async (t) => {
  const url = await asking(t, { set: { h: '{headers.x-a}', u: '{claims/name}' } }, { jwt: { secret } })
  const bearer = `Authorization: Bearer ${token(claims({ name: 'a&admin=1#\r\n \ud800' }))}`
  t.equal(await url('/?h=0', ['x-a: &evil=1#', bearer]), '/?h=%26evil%3D1%23&u=a%26admin%3D1%23%0D%0A%20%EF%BF%BD')
})

t.test('the path is rewritten as well, and rules for headers see the query of the client', async (t) => {
  const { port } = await gatewayBefore(t, echo.url, {
    edge: { query: { remove: ['a'] }, headers: { request: { set: { 'x-a': '{query.a}' } } } },
    services: { any: { instances: [echo.url] } },
    routes: [{ name: 'all', match: { path: '/api' }, service: 'any', path: { strip: '/api' } }]
  })
  const seen = await ask(port, '/api/x?a=1&b=2')
  t.equal(seen.url, '/x?b=2')
  t.equal(seen.headers['x-a'], '1')
})

t.test('the access log has the query of the client, but no credentials that a concern has removed', async (t) => {
  const key = 'a-key-of-some-length-1234'
  const hash = `sha256:${createHash('sha256').update(key).digest('hex')}`
  const edge = {
    accessLog: { format: { target: '{target}', path: '{path}' } },
    keyAuth: { query: 'pass', hideCredentials: true },
    query: { only: ['a'] }
  }
  const consumers = [{ name: 'me', keyAuth: { hash } }]
  const { port, log } = await gatewayBefore(t, echo.url, { edge, consumers }, { log: true })
  const lines = () => log.filter(({ target }) => target !== undefined)
  for (const [at, [sent, target, got]] of (
    [
      [`/q?evil=1&pass=${key}&a=2`, '/q?evil=1&a=2', '/q?a=2'],
      [`/q?a=1&pass=${key}`, '/q?a=1', '/q?a=1'],
      [`/q?token=7&pass=${key}`, '/q?token=***', '/q']
    ] as const
  ).entries()) {
    t.equal((await ask(port, sent)).url, got)
    await eventually(() => lines().length > at)
    t.match(lines()[at], { target, path: '/q' })
  }
})

t.test('templates of composed routes see the changed query', async (t) => {
  const service = await startService(({ url }, response) => response.end(JSON.stringify({ url })))
  t.teardown(service.close)
  const call = { service: 'any', path: '/', query: { a: '{query.a}', b: '{query.b}' } }
  const { port } = await gatewayBefore(t, service.url, {
    edge: { query: { set: { a: '7' }, remove: ['b'] } },
    services: { any: { instances: [service.url] } },
    routes: [{ name: 'all', match: { path: '/', methods: ['GET'] }, compose: { calls: { one: call } } }]
  })
  t.strictSame(JSON.parse((await get(port, '/?a=1&b=2')).body), { url: '/?a=7' })
})

t.test('faults', async (t) => {
  const fault = (query: object) => configOf({ edge: { query }, services: {}, routes: [] })
  t.throws(() => fault({}), /edge.query/)
  t.throws(() => fault({ set: { a: '{querry.a}' } }), /did you mean "query\."/)
  t.throws(() => fault({ add: { a: '{consumer.id|a}' } }), /write it under "set"/)
  t.throws(() => fault({ set: { a: '{response.status}' } }), /there is no response yet/)
  const edge = { query: { set: { a: '{claims/sub}' } } }
  const routes = [{ name: 'a', match: { path: '/' }, service: 'a', edge }]
  t.throws(
    () => configOf({ services: { a: { instances: ['http://h'] } }, routes }),
    /nothing on this route verifies a token/
  )
})
