/** Headers, cookies and query parameters of a dispatch, in all of undici's formats. */
import t from 'tap'
import { cookieOf, fieldReader, headerOf, queryOf } from '../../../plugins/mesh/core/request-fields.ts'
import type { DispatchOptions } from '../../../plugins/mesh/core/types.ts'

type Headers = DispatchOptions['headers']

const opts = (headers: Headers, path = '/') => ({ path, method: 'GET', headers }) as DispatchOptions

t.test('a header is found in every format', async (t) => {
  const shapes: Record<string, Headers> = {
    flat: ['host', 'h', 'X-User', '7'],
    object: { host: 'h', 'X-User': '7' },
    'lower case': { host: 'h', 'x-user': '7' },
    Headers: new Headers({ 'X-User': '7' }),
    Map: new Map([['X-User', '7']])
  }
  for (const [name, headers] of Object.entries(shapes)) {
    t.equal(headerOf(opts(headers), 'x-user'), '7', name)
    t.equal(headerOf(opts(headers), 'x-use'), undefined, name)
  }
  t.equal(headerOf(opts(undefined), 'x-user'), undefined)
  t.equal(headerOf(opts(null), 'x-user'), undefined)
  t.equal(headerOf(opts(['x-user']), 'x-user'), undefined, 'a name without a value is ignored')
  t.equal(headerOf(opts(['a', 'x-user', 'b', '1']), 'x-user'), undefined, 'a value does not match as a name')
  t.equal(headerOf(opts(['x-user', '1', 'x-user', '2']), 'x-user'), '1, 2')
  t.equal(headerOf(opts({ 'x-user': ['1', '2'], host: undefined }), 'x-user'), '1, 2')
  t.equal(headerOf(opts({ 'x-user': undefined }), 'x-user'), undefined)
})

t.test('a cookie is found by its name', async (t) => {
  const cookie = (text: string, name = 'id') => cookieOf(opts(['cookie', text]), name)
  t.equal(cookie('id=7'), '7')
  t.equal(cookie('a=1; id=7; b=2'), '7')
  t.equal(cookie('a=1;id=7'), '7')
  t.equal(cookie('xid=1; id=7'), '7', 'a longer name does not match')
  t.equal(cookie('a=id=3; id=7'), '7')
  t.equal(cookie('id=a=b'), 'a=b')
  t.equal(cookie('id="7"'), '7')
  t.equal(cookie('id='), '')
  t.equal(cookie('id; a=1'), undefined)
  t.equal(cookie('ID=7'), undefined, 'cookie names are case-sensitive')
  t.equal(cookie('id=1; id=2'), '1')
  t.equal(cookie(';;=;'), undefined)
  t.equal(cookieOf(opts(['cookie', 'a=1', 'cookie', 'id=7']), 'id'), '7', 'a cookie in another Cookie field is found')
  t.equal(cookieOf(opts({ cookie: ['a=1', 'id=7'] }), 'id'), '7')
  t.equal(cookieOf(opts([]), 'id'), undefined)
})

t.test('a query parameter is found and decoded', async (t) => {
  const query = (path: string, name = 'id') => queryOf(opts(null, path), name)
  t.equal(query('/x?id=7'), '7')
  t.equal(query('/x?a=1&id=7&b=2'), '7')
  t.equal(query('/x?aid=1&id=7'), '7')
  t.equal(query('/x?a=id=3&id=7'), '7')
  t.equal(query('/x?id=a%20b+c'), 'a b c')
  t.equal(query('/x?%69d=7'), '7')
  t.equal(query('/x?id=%zz'), '%zz')
  t.equal(query('/x?id'), '')
  t.equal(query('/x?id&a=1'), '')
  t.equal(query('/x'), undefined)
  t.equal(query('/x?'), undefined)
  t.equal(query('/x?id=1&id=2'), '1')
  t.equal(queryOf({ path: '/x', method: 'GET', query: { id: 7 } }, 'id'), '7')
  t.equal(queryOf({ path: '/x', method: 'GET', query: {} }, 'id'), undefined)
})

t.test('hashOn selects a value of the request', async (t) => {
  const caller = { ip: '10.0.0.9', consumer: { id: 'acme' }, trusted: false }
  const request = { ...opts(['x-user', '7', 'cookie', 'id=8'], '/x?q=9'), caller }
  const sources = ['header:X-User', 'cookie:id', 'query:q', 'ip', 'consumer'] as const
  t.strictSame(
    sources.map((source) => fieldReader(source)(request)),
    ['7', '8', '9', '10.0.0.9', 'acme']
  )
  const empty = {
    ...opts(['x-user', '', 'cookie', 'id='], '/x?q='),
    caller: { ip: '', consumer: null, trusted: false }
  }
  for (const source of sources) {
    t.equal(fieldReader(source)(empty), undefined, `${source}: empty`)
    t.equal(fieldReader(source)(opts(undefined)), undefined, `${source}: none`)
  }
})
