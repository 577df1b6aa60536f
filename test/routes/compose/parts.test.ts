// Responses of services that are malformed, hostile or unusual; changes of their shape.
import { readFileSync } from 'node:fs'
import { join } from 'node:path'
import { brotliCompressSync, deflateSync, gzipSync } from 'node:zlib'
import { load } from 'js-yaml'
import type { Test } from 'tap'
import t from 'tap'
import { startComposed } from './services.ts'

interface Body {
  readonly body: string | Buffer
  readonly headers?: Record<string, string>
  readonly status?: number
}

/** A composed route with one call, whose service responds with each of these bodies in turn. */
async function served(t: Test, call: object, bodies: readonly Body[], compose: object = {}) {
  let at = 0
  const a = (
    _request: unknown,
    response: { writeHead: (status: number, headers: object) => { end: (body: unknown) => void } }
  ) => {
    const { body, headers = {}, status = 200 } = bodies[at++]!
    response.writeHead(status, headers).end(body)
  }
  const calls = { a: { service: 'a', path: '/', ...call } }
  const { url } = await startComposed(t, { services: { a: a as never }, compose: { ...compose, calls } })
  return async () => {
    const response = await fetch(`${url}/c/1`)
    const text = await response.text()
    return { status: response.status, text, code: response.ok ? null : (JSON.parse(text).code as string), response }
  }
}

t.test('bodies that are not JSON', async (t) => {
  const bad = [
    '{"a":1', '<html></html>', 'undefined', "{'a':1}", '{"a":1}{"b":2}', '\u0000', 'NaN', Buffer.from([0xff, 0xfe, 0x7b]),
    Buffer.from('{"a":"\xe9"}', 'latin1'), '{"a":1,}', `{"a":${'['.repeat(200)}${']'.repeat(200)}}`, '['.repeat(900_000)
  ] // biome-ignore format: a list
  const ask = await served(
    t,
    {},
    bad.map((body) => ({ body }))
  )
  for (const body of bad) t.match(await ask(), { status: 502, code: 'JW_UPSTREAM_NOT_JSON' }, String(body).slice(0, 20))
})

t.test('bodies that cannot be merged at the top', async (t) => {
  const bad = ['[1]', '"text"', '7', 'true']
  const ask = await served(
    t,
    {},
    bad.map((body) => ({ body }))
  )
  for (const body of bad) t.match(await ask(), { status: 502, code: 'JW_UPSTREAM_SHAPE' }, body)
})

t.test('bodies of any type under a key', async (t) => {
  const good = [
    '[1]',
    '"text"',
    '7',
    'null',
    '',
    '{"a":{}}',
    '\ufeff{"b":1}',
    `${'['.repeat(100)}${']'.repeat(100)}`,
    '{"a":"[[[{{{\\\\\\""}'
  ]
  const ask = await served(
    t,
    { group: 'g' },
    good.map((body) => ({ body, headers: { 'content-type': 'text/html' } }))
  )
  for (const body of good) {
    const { text, status } = await ask()
    t.equal(status, 200)
    t.equal(text, `{"g":${body === '' ? 'null' : body.replace('\ufeff', '')}}`)
  }
})

t.test('an empty body at the top', async (t) => {
  const ask = await served(t, {}, [{ body: '' }, { body: 'null' }, { body: '', status: 204 }])
  for (const _each of [1, 2, 3]) t.match(await ask(), { status: 200, text: '{}' })
})

t.test('prototypes stay as they are', async (t) => {
  const evil = '{"__proto__":{"polluted":1},"constructor":{"prototype":{"polluted":1}},"a":{"__proto__":[1]}}'
  const shape = {
    rename: { a: 'b' },
    edit: [
      { move: 'b', to: '/c/__proto__' },
      { append: '/c/__proto__/__proto__', to: '/d' }
    ]
  }
  const ask = await served(t, shape, [{ body: evil }, { body: evil }])
  const { text } = await ask()
  t.equal(text, '{"__proto__":{"polluted":1},"constructor":{"prototype":{"polluted":1}},"c":{"__proto__":{}},"d":[1]}')
  t.equal(Reflect.get({}, 'polluted'), undefined)
  const picking = await served(t, { pick: ['__proto__', 'toString'], at: '/x/__proto__/y' }, [{ body: evil }])
  t.equal((await picking()).text, '{"x":{"__proto__":{"y":{"__proto__":{"polluted":1}}}}}')
  t.equal(Reflect.get({}, 'y'), undefined)
  const missing = await served(t, { target: '/constructor' }, [{ body: '{}' }])
  t.match(await missing(), { status: 502, code: 'JW_UPSTREAM_SHAPE' })
})

t.test('sizes are bounded: of one body, and of all', async (t) => {
  const large = JSON.stringify({ a: 'x'.repeat(2000) })
  const one = await served(t, { maxSize: '1kb' }, [{ body: large }, { body: '{}' }])
  t.match(await one(), { status: 502, code: 'JW_UPSTREAM_BODY_TOO_LARGE' })
  t.match(await one(), { status: 200 })
  const all = await served(t, {}, [{ body: large }], { maxSize: '1kb' })
  t.match(await all(), { status: 502, code: 'JW_UPSTREAM_BODY_TOO_LARGE' })
  const standard = await served(t, {}, [{ body: JSON.stringify({ a: 'x'.repeat(1024 * 1024) }) }])
  t.match(await standard(), { status: 502, code: 'JW_UPSTREAM_BODY_TOO_LARGE' }, 'by default 1 MB')
})

t.test('numbers keep their digits', async (t) => {
  const body = '{"id":9007199254740993,"n":{"id":-12345678901234567890.5},"list":[1234567890123456789],"small":1.50}'
  const shape = { pick: ['id', '/n/id', '/list/*', 'small', '/id/x'], rename: { id: 'no' } }
  const ask = await served(t, shape, [{ body }, { body: '{"id":1}' }])
  t.equal(
    (await ask()).text,
    '{"n":{"id":-12345678901234567890.5},"list":[1234567890123456789],"small":1.5,"no":9007199254740993}'
  )
  const targets: string[] = []
  const { url } = await startComposed(t, {
    services: {
      a: (_request, response) => response.end(body),
      b: (request, response) => {
        targets.push(request.url!)
        response.end('{}')
      }
    },
    compose: {
      calls: {
        a: { service: 'a', path: '/', group: 'a' },
        b: { service: 'b', path: '/{calls.a/id}', query: { all: '{calls.a/list}' } }
      }
    }
  })
  t.equal((await fetch(`${url}/c/1`)).status, 200)
  t.strictSame(targets, ['/9007199254740993?all=1234567890123456789'])
})

t.test('content codings', async (t) => {
  const text = '{"a":1}'
  const bomb = gzipSync(JSON.stringify({ a: 'x'.repeat(5_000_000) }))
  const coded = (body: Buffer, coding: string) => ({ body, headers: { 'content-encoding': coding } })
  const bodies = [
    coded(gzipSync(text), 'gzip'), coded(brotliCompressSync(text), 'br'), coded(deflateSync(text), 'Deflate'),
    coded(Buffer.from(text), 'identity'), coded(bomb, 'gzip'), coded(Buffer.from(text), 'gzip'),
    coded(Buffer.from(text), 'rot13'), coded(gzipSync(gzipSync(text)), 'gzip, gzip')
  ] // biome-ignore format: a list
  const ask = await served(t, {}, bodies)
  for (const _each of bodies.slice(0, 4)) t.match(await ask(), { status: 200, text })
  t.match(await ask(), { status: 502, code: 'JW_UPSTREAM_BODY_TOO_LARGE' })
  for (const _each of bodies.slice(5)) t.match(await ask(), { status: 502, code: 'JW_UPSTREAM_NOT_JSON' })
})

t.test('text as a string', async (t) => {
  const ask = await served(t, { as: 'text', group: 'terms' }, [{ body: 'Terms "é"\n' }, { body: Buffer.from([0xff]) }])
  t.match(await ask(), { status: 200, text: '{"terms":"Terms \\"é\\"\\n"}' })
  t.match(await ask(), { status: 502 })
})

t.test('redirects and other statuses are failures', async (t) => {
  const statuses = [301, 304, 404, 418, 500, 503]
  const ask = await served(
    t,
    { passStatus: [418] },
    statuses.map((status) => ({ body: '', status, headers: { location: 'http://127.0.0.1:1/' } }))
  )
  for (const status of statuses) {
    const { status: sent, code, response } = await ask()
    t.equal(sent, status === 418 ? 418 : 502)
    t.equal(code, status === 418 ? 'JW_COMPOSE_STATUS' : 'JW_UPSTREAM_STATUS')
    t.equal(response.headers.get('location'), null)
  }
})

t.test('shapes', async (t) => {
  const source = {
    data: {
      id: 1,
      secret: 's',
      address: { city: 'Turin', zip: '1' },
      items: [{ id: 1, sku: 'a', tags: ['x', 'y'], cost: { net: 1 } }, { id: 2, tags: ['z'], cost: { net: 2 } }, 'odd'],
      more: [{ id: 3 }],
      nested: [[1, 2], [3]]
    }
  }
  const { data } = source
  const cases: [name: string, shape: object, expected: unknown][] = [
    ['target', {}, data],
    ['target within', { target: '/data/address' }, data.address],
    ['pick', { pick: ['id', '/address/city', 'none', '/items/*/sku'] }, { id: 1, address: { city: 'Turin' }, items: [{ sku: 'a' }, {}, 'odd'] }],
    ['pick all members', { pick: ['/address/*'] }, { address: data.address }],
    ['drop', { drop: ['secret', 'items', '/address/zip', 'more', 'nested', '/none/x'] }, { id: 1, address: { city: 'Turin' } }],
    ['exchange', { pick: ['id', 'secret'], rename: { id: 'secret', secret: 'id' } }, { secret: 1, id: 's' }],
    ['move into itself', { pick: ['address'], rename: { address: '/address/home' } }, { address: { home: data.address } }],
    ['move out', { pick: ['address'], edit: [{ move: '/address/city', to: 'city' }] }, { address: { zip: '1' }, city: 'Turin' }],
    ['move in items', { pick: ['/items/*/cost'], edit: [{ move: '/items/*/cost/net', to: '/items/*/price' }, { delete: '/items/*/cost' }] }, { items: [{ price: 1 }, { price: 2 }, 'odd'] }],
    ['append', { pick: ['/items/*/id', 'more'], edit: [{ append: 'more', to: 'items' }] }, { items: [{ id: 1 }, { id: 2 }, 'odd', { id: 3 }] }],
    ['append to nothing', { pick: ['more'], edit: [{ append: 'more', to: '/a/b' }] }, { a: { b: [{ id: 3 }] } }],
    ['flatten to one list', { pick: ['/items/*/tags', 'id'], edit: [{ flatten: '/items/*/tags', to: 'tags' }, { delete: 'items' }] }, { id: 1, tags: ['x', 'y', 'z'] }],
    ['flatten in place', { pick: ['nested'], edit: [{ flatten: 'nested' }] }, { nested: [1, 2, 3] }],
    ['delete all items', { pick: ['more', 'address'], edit: [{ delete: '/more/*' }, { delete: '/address/*' }] }, { more: [], address: {} }],
    ['place', { target: '/data/more', at: '/a/b' }, { a: { b: data.more } }]
  ] // biome-ignore format: a table
  for (const [name, shape, expected] of cases) {
    const ask = await served(t, { target: '/data', ...shape }, [{ body: JSON.stringify(source) }])
    const { text } = await ask()
    t.strictSame(JSON.parse(text), expected, name)
  }
})

t.test('the steps of `edit` in the documentation', async (t) => {
  const page = readFileSync(join(import.meta.dirname, '../../../routes/compose.md'), 'utf8')
  const example = /```json\n([^`]+)```\n\n```yaml\n(edit:[^`]+)```\n\n```json\n([^`]+)```/.exec(page)!
  const ask = await served(t, load(example[2]!) as object, [{ body: example[1]! }])
  t.strictSame(JSON.parse((await ask()).text), JSON.parse(example[3]!))
})

t.test('a list with operations on its items, and a response with changes of its own', async (t) => {
  const body = '[{"id":1,"x":1},{"id":2,"x":2}]'
  const response = {
    rename: { list: 'items' },
    edit: [{ flatten: '/items/*/no', to: 'all' }],
    drop: ['gone'],
    add: [{ value: { version: 2, all2: null } }, { when: 'incomplete', value: { partial: true } }]
  }
  const call = { group: 'list', pick: ['/*/id'], edit: [{ move: '/*/id', to: '/*/no' }] }
  const ask = await served(t, call, [{ body }], { response })
  t.strictSame(JSON.parse((await ask()).text), { items: [{}, {}], all: [1, 2], version: 2, all2: null })
})

t.test('status and headers of the response', async (t) => {
  const headers = { 'set-cookie': 'a=1', location: '/x', 'x-secret': '1', 'x-bad': 'caf\u00e9' }
  const response = { headers: { location: 'https://e{calls.a.headers.location}', 'set-cookie': '{calls.a.headers.set-cookie}', 'x-none': '{calls.a.headers.none}', 'x-id': '{calls.a/id}' }, status: 202 } // biome-ignore format: one line
  const ask = await served(
    t,
    {},
    [
      { body: '{"id":1}', headers },
      { body: '{"id":"a\\r\\nb"}', headers }
    ],
    { response }
  )
  const { response: good, status } = await ask()
  t.equal(status, 202)
  t.strictSame(good.headers.getSetCookie(), ['a=1'])
  t.equal(good.headers.get('location'), 'https://e/x')
  t.equal(good.headers.get('x-id'), '1')
  for (const name of ['x-none', 'x-secret', 'x-bad']) t.equal(good.headers.get(name), null, name)
  t.match(await ask(), { status: 502, code: 'JW_UPSTREAM_SHAPE' }, 'a line break in a value')
  const status204 = await served(t, {}, [{ body: '{}' }], { response: { status: 204 } })
  t.match(await status204(), { status: 204, text: '' })
})
