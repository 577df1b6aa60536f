// slow: takes about 5 s
// Requests that are checked by JSON Schemas of a route.
import { writeFileSync } from 'node:fs'
import { join } from 'node:path'
import type { Test } from 'tap'
import t from 'tap'
import type { ConfigError } from '../../../config/load.ts'
import { parseConfig } from '../../../plugins/config.ts'
import type { AskOptions, Protocol } from '../../helpers/edge/asking-client.ts'
import { protocols } from '../../helpers/edge/asking-client.ts'
import { json, problem, validated } from '../../helpers/edge/validated.ts'
import { eventually } from '../../helpers/eventually.ts'
import { configOf } from '../../helpers/gateway.ts'

async function guarded(t: Test, validation: object, protocol: Protocol = 'HTTP/1.1') {
  const gateway = await validated(t, validation, { protocol, route: { match: { path: '/items/:id' } } })
  const post = (body: string | Buffer | object, options: AskOptions = {}) => gateway.post('/items/1', body, options)
  return { ...gateway, post }
}

const order = {
  type: 'object',
  required: ['item'],
  properties: {
    item: { type: 'string', pattern: '^[a-z]+$' },
    count: { type: 'integer', minimum: 1 },
    tags: { type: 'array', items: { $ref: '#/$defs/tag' }, uniqueItems: true }
  },
  additionalProperties: { type: 'number' },
  $defs: { tag: { type: 'string', maxLength: 5 } }
}
const ofBody = (schema: unknown, more: object = {}) => ({ body: { content: { 'application/json': schema } }, ...more })

for (const protocol of protocols) {
  t.test(`a request that fits reaches the service byte for byte over ${protocol}`, async (t) => {
    const { post, begin, got } = await guarded(t, ofBody(order), protocol)
    const body = '{ "item" : "\\u0061", "count": 1e0,\n "tags":["a","b"] , "x": 1.50 }'
    t.equal((await post(body)).status, 200)
    t.equal(got.at(-1)?.body.toString(), body)
    t.match(got.at(-1)?.headers, { 'content-length': String(body.length), 'content-type': 'application/json' })

    const chunked = begin('/items/1', { method: 'POST', headers: json, streams: true })
    chunked.send(body.slice(0, 20))
    chunked.send(body.slice(20))
    chunked.end()
    t.equal((await chunked.response).status, 200)
    t.equal(got.at(-1)?.body.toString(), body)
  })

  t.test(`format: problem of errorPages keeps the members of the problem over ${protocol}`, async (t) => {
    const problems = async (errorPages: object | null) => {
      const edge = { validation: ofBody(order), ...(errorPages && { errorPages }) }
      const { post, ask } = await validated(t, {}, { protocol, route: { edge } })
      const { requestId, instance, ...rest } = problem(
        await post('/items/1', { item: '7' }, { headers: { ...json, accept: 'application/json' } })
      )
      t.equal(instance, `urn:jingwei:request:${requestId}`)
      return { rest, post, ask }
    }
    const plain = await problems(null)
    t.match(plain.rest, { type: 'urn:jingwei:error:JW_REQUEST_INVALID', errors: [{ pointer: '/item' }] })
    t.strictSame((await problems({ format: 'problem' })).rest, plain.rest)
    const paged = await problems({ format: 'problem', pages: { 400: { html: 'page' } } })
    t.strictSame(paged.rest, plain.rest, 'the client does not accept the page')
    const page = await paged.post('/items/1', { item: '7' }, { headers: { ...json, accept: 'text/html' } })
    t.match(page, { status: 400, body: Buffer.from('page'), headers: { 'content-type': 'text/html; charset=utf-8' } })
  })

  t.test(`a body that does not fit gets a problem over ${protocol}`, async (t) => {
    const { post, got, lineOf, counted } = await guarded(t, ofBody(order), protocol)
    const refused = await post({ item: 'SECRET', count: 0, tags: ['a', 'toolongforit'], 'my secret key': 'x' })
    t.match(refused, { status: 400, headers: { 'content-type': 'application/problem+json' }, isWhole: true })
    t.notMatch(refused.body.toString(), /SECRET|toolong|my secret/, 'no value or name of the request is repeated')
    const { errors, requestId, instance, ...rest } = problem(refused)
    t.strictSame(rest, {
      type: 'urn:jingwei:error:JW_REQUEST_INVALID',
      title: 'Bad Request',
      status: 400,
      detail: 'The body does not match its schema',
      code: 'JW_REQUEST_INVALID'
    })
    t.equal(instance, `urn:jingwei:request:${requestId}`)
    t.strictSame(
      new Set(errors),
      new Set([
        { pointer: '/item', detail: 'must match pattern "^[a-z]+$"' },
        { pointer: '/count', detail: 'must be >= 1' },
        { pointer: '/tags/1', detail: 'must NOT have more than 5 characters' },
        { pointer: '/*', detail: 'must be number' }
      ])
    )
    t.equal(got.length, 0)
    t.match(await lineOf(0), { status: 400, error: 'JW_REQUEST_INVALID', reason: 'validation_body', route: 'all' })
    t.equal((await post({ item: 'a' })).status, 200, 'the connection serves further requests')
    t.strictSame(await counted('jingwei_edge_validation_refused_total'), [
      'jingwei_edge_validation_refused_total{route="all",reason="validation_body"} 1'
    ])
    t.match(await counted('jingwei_edge_refusals_total'), [
      /concern="validation",route="all",code="JW_REQUEST_INVALID"} 1/
    ])
  })

  t.test(`other faults of bodies over ${protocol}`, async (t) => {
    const { post, ask, begin, got } = await guarded(t, ofBody(order, { maxBody: '1kb', maxDepth: 4 }), protocol)
    const cases = [
      ['{"item":"a","item":"b"}', 400, 'two keys of the same name'],
      ['{"item":', 400, 'not JSON'],
      [Buffer.from([0x22, 0xff, 0x22]), 400, 'not UTF-8'],
      ['[[[[[[1]]]]]]', 400, 'nested too deep'],
      [`{"item":"a${' '.repeat(2000)}"}`, 413, 'larger than 1024']
    ] as const
    for (const [body, status, detail] of cases) {
      const response = await post(body)
      t.equal(response.status, status)
      t.match(problem(response).detail, detail)
    }
    const type = await post('a', { headers: { 'content-type': 'text/xml' } })
    t.match(type, { status: 415, headers: { accept: 'application/json' } })
    t.equal((await post('{}', { headers: {} })).status, 415, 'without a type')
    t.equal((await post('{}', { headers: { 'content-type': 'application/json; charset=utf-16' } })).status, 415)
    t.match(await post('{}', { headers: { ...json, 'content-encoding': 'gzip' } }), {
      status: 415,
      headers: { 'accept-encoding': 'identity' }
    })
    t.match(problem(await ask('/items/1', { method: 'POST' })), { detail: 'The request must have a body' })
    const large = begin('/items/1', { method: 'POST', headers: json, streams: true })
    large.send('x'.repeat(2000))
    large.end()
    t.equal((await large.response).status, 413, 'a chunked one')
    t.equal(got.length, 0)
    t.equal((await ask('/items/1')).status, 200, 'a GET needs no body')
  })

  t.test(`parameters over ${protocol}`, async (t) => {
    const { ask, got } = await guarded(
      t,
      {
        path: { type: 'object', properties: { id: { type: 'integer', maximum: 9 } } },
        query: {
          type: 'object',
          properties: {
            limit: { type: 'integer', maximum: 10 },
            deep: { type: 'boolean' },
            tag: { type: 'array', items: { type: 'string', format: 'date' }, maxItems: 2 }
          },
          required: ['limit'],
          additionalProperties: false
        },
        headers: {
          type: 'object',
          required: ['x-tenant'],
          patternProperties: { '^:': false },
          properties: { 'x-tenant': { type: 'string', format: 'uuid' } }
        },
        cookies: { type: 'object', properties: { theme: { enum: ['dark', 'light'] } } }
      },
      protocol
    )
    const tenant = { 'x-tenant': '3fa85f64-5717-4562-b3fc-2c963f66afa6' }
    const target = '/items/7?limit=10&deep=true&tag=2024-02-29&tag=%32020-01-01'
    t.equal((await ask(target, { headers: { ...tenant, cookie: 'theme=dark; x=y' } })).status, 200)
    t.equal(got[0]?.url, target)
    const errorsOf = async (path: string, headers: Record<string, string> = tenant) =>
      problem(await ask(path, { headers })).errors
    t.strictSame(await errorsOf('/items/10?limit=1'), [{ parameter: 'id', in: 'path', detail: 'must be <= 9' }])
    t.strictSame(await errorsOf('/items/x?limit=1'), [{ parameter: 'id', in: 'path', detail: 'must be integer' }])
    t.strictSame(await errorsOf('/items/1'), [{ parameter: 'limit', in: 'query', detail: 'is required' }])
    t.strictSame(await errorsOf('/items/1?limit=1&limit=2'), [
      { parameter: 'limit', in: 'query', detail: 'must be sent only once' }
    ])
    t.strictSame(await errorsOf('/items/1?limit=1&deep=yes&other=1&tag=2023-02-29'), [
      { parameter: '*', in: 'query', detail: 'a parameter that is not defined is not allowed' },
      { parameter: 'deep', in: 'query', detail: 'must be boolean' },
      { parameter: 'tag', in: 'query', pointer: '/0', detail: 'must match format "date"' }
    ])
    t.strictSame(await errorsOf('/items/1?limit=%31%30%31'), [
      { parameter: 'limit', in: 'query', detail: 'must be <= 10' }
    ])
    t.strictSame(await errorsOf('/items/1?limit=0x1'), [{ parameter: 'limit', in: 'query', detail: 'must be integer' }])
    t.strictSame(await errorsOf('/items/1?limit=1', {}), [
      { parameter: 'x-tenant', in: 'header', detail: 'is required' }
    ])
    t.strictSame(await errorsOf('/items/1?limit=1', { ...tenant, cookie: 'theme=red' }), [
      { parameter: 'theme', in: 'cookie', detail: 'must be equal to one of the allowed values' }
    ])
  })

  t.test(`in shadow mode the service gets the bytes over ${protocol}`, async (t) => {
    const { post, begin, got, lineOf, counted } = await guarded(
      t,
      ofBody(order, { mode: 'shadow', maxBody: '1kb' }),
      protocol
    )
    for (const [index, body] of ['{"item": 1}', '{"item":', `"${'x'.repeat(300_000)}"`].entries()) {
      t.equal((await post(body)).status, 200)
      t.equal(got[index]?.body.toString(), body)
      t.match(await lineOf(index), { shadow: [{ concern: 'validation' }], status: 200 })
    }
    const chunked = begin('/items/1', { method: 'POST', headers: json, streams: true })
    for (let i = 0; i < 50; i++) chunked.send('x'.repeat(100))
    chunked.end()
    t.equal((await chunked.response).status, 200)
    t.equal(got.at(-1)?.body.toString(), 'x'.repeat(5000))
    t.match(await lineOf(3), {
      shadow: [{ concern: 'validation', error: 'JW_BODY_TOO_LARGE', reason: 'validation_body_size' }]
    })
    t.match(await counted('jingwei_edge_shadow_refusals_total'), [/concern="validation",route="all"} 4/])
  })
}

t.test('trailers follow a body that was checked', async (t) => {
  const { port, got } = await guarded(t, ofBody(order))
  const { connect } = await import('node:net')
  const socket = connect(port, '127.0.0.1')
  t.teardown(() => socket.destroy())
  let text = ''
  socket.on('data', (chunk) => {
    text += chunk.toString()
  })
  socket.write(
    'POST /items/1 HTTP/1.1\r\nhost: a\r\ncontent-type: application/json\r\ntrailer: x-sum\r\ntransfer-encoding: chunked\r\n\r\n' +
      'c\r\n{"item":"a"}\r\n0\r\nx-sum: 7\r\n\r\n'
  )
  await eventually(() => text.includes('ok'))
  t.equal(got[0]?.body.toString(), '{"item":"a"}')
  t.match(got[0]?.trailers, { 'x-sum': '7' })
})

t.test('Expect: 100-continue is granted for a body that is read, and refused before', async (t) => {
  const { port } = await guarded(t, ofBody(order))
  const { connect } = await import('node:net')
  const socket = connect(port, '127.0.0.1')
  t.teardown(() => socket.destroy())
  let text = ''
  socket.on('data', (chunk) => {
    text += chunk.toString()
  })
  socket.write(
    'POST /items/1 HTTP/1.1\r\nhost: a\r\nexpect: 100-continue\r\ncontent-type: application/json\r\ncontent-length: 12\r\n\r\n'
  )
  await eventually(() => text.startsWith('HTTP/1.1 100 Continue\r\n\r\n'))
  socket.write('{"item":"a"}')
  await eventually(() => text.includes('HTTP/1.1 200'))
  socket.write(
    'POST /items/1 HTTP/1.1\r\nhost: a\r\nexpect: 100-continue\r\ncontent-type: text/xml\r\ncontent-length: 12\r\n\r\n'
  )
  await eventually(() => text.includes('HTTP/1.1 415'))
  t.equal(text.split('100 Continue').length, 2, 'only the first')
})

t.test('forms, texts, and types that are not read', async (t) => {
  const form = {
    type: 'object',
    properties: { n: { type: 'integer' }, all: { type: 'array', maxItems: 1 } },
    required: ['n']
  }
  const content = {
    'application/x-www-form-urlencoded': form,
    'text/*': { type: 'string', maxLength: 3 },
    'multipart/form-data': true,
    'application/*+json': { type: 'object' }
  }
  const { post, got } = await guarded(t, { body: { content, required: false } })
  const as = (type: string) => ({ headers: { 'content-type': type } })
  const urlencoded = as('application/x-www-form-urlencoded')
  t.equal((await post('n=5&all=%20', urlencoded)).status, 200)
  t.strictSame(problem(await post('n=x&all=1&all=2', urlencoded)).errors, [
    { pointer: '/n', detail: 'must be integer' },
    { pointer: '/all', detail: 'must NOT have more than 1 items' }
  ])
  t.strictSame(problem(await post('n=%ff', urlencoded)).errors, [
    { pointer: '/n', detail: 'must be percent-encoded UTF-8' }
  ])
  t.equal((await post(`n=1${'&a'.repeat(2000)}`, urlencoded)).status, 400)
  t.equal((await post('abc', as('text/plain; charset=utf-8'))).status, 200)
  t.equal((await post('abcd', as('text/plain'))).status, 400)
  t.equal((await post('{}', as('application/merge-patch+json'))).status, 200)
  t.equal((await post('[]', as('application/merge-patch+json'))).status, 400)
  const multipart = '--b\r\n\r\n\0\r\n--b--'
  t.equal((await post(multipart, as('multipart/form-data; boundary=b'))).status, 200)
  t.equal(got.at(-1)?.body.toString(), multipart)
})

t.test('the work for one request is bounded', async (t) => {
  const tree = {
    $ref: '#/$defs/node',
    $defs: {
      node: {
        anyOf: [
          { type: 'object', properties: { next: { $ref: '#/$defs/node' }, kind: { const: 'a' } } },
          { type: 'object', properties: { next: { $ref: '#/$defs/node' }, kind: { const: 'b' } } },
          { type: 'object', properties: { next: { $ref: '#/$defs/node' }, kind: { const: 'c' } } }
        ]
      }
    }
  }
  const nested = (depth: number) => `${'{"next":'.repeat(depth)}1${'}'.repeat(depth)}`
  const schemas = {
    tree,
    unique: { uniqueItems: true },
    pattern: { items: { pattern: '(a*)*b' } },
    known: { items: { pattern: '(a?){900}b' } },
    long: { items: { pattern: '[a-z]{1,900}x' } },
    enum: { items: { enum: [...Array(10_000).keys()] } },
    branches: { items: { anyOf: [...Array(500).keys()].map((n) => ({ const: n })) } },
    self: { $ref: '#' }
  }
  const values = {
    tree: nested(30),
    unique: JSON.stringify([...Array(20_000).keys()].map((n) => ({ n, same: [1, 2, 3] }))),
    pattern: JSON.stringify(['a'.repeat(500_000)]),
    known: JSON.stringify(['a'.repeat(500_000)]),
    long: JSON.stringify(['a'.repeat(500_000)]),
    // One after another, these would be 5 billion comparisons.
    enum: `[${Array(500_000).fill(9999).join()}]`,
    branches: `[${Array(100_000).fill(499).join()}]`,
    self: '1'
  }
  const statuses: Record<string, unknown> = {}
  for (const [name, schema] of Object.entries(schemas)) {
    const { post } = await guarded(t, ofBody(schema, { maxBody: '4mb' }))
    const response = await post(values[name as keyof typeof values])
    statuses[name] = response.status === 200 ? 200 : problem(response).detail
  }
  const costly = 'The request takes too much work to check'
  t.strictSame(statuses, {
    tree: costly,
    unique: 200,
    pattern: 'The body does not match its schema',
    known: 'The body does not match its schema',
    long: costly,
    enum: 200,
    branches: costly,
    self: costly
  })
})

t.test('a value of an enum is found by its type and its members, in any order', async (t) => {
  const { post } = await guarded(t, ofBody({ items: { enum: [1, 'b', null, true, [1, 2], { a: 1, b: [{}] }] } }))
  for (const each of ['1', '1.0', '"b"', 'null', 'true', '[1,2]', '{"b":[{}],"a":1}']) {
    t.equal((await post(`[${each}]`)).status, 200, each)
  }
  for (const each of [
    '"1"',
    '"true"',
    'false',
    '"null"',
    '2',
    '[2,1]',
    '{}',
    '{"a":1,"b":[]}',
    '{"a":1,"b":[{}],"c":0}',
    '"[1,2]"'
  ]) {
    const refused = await post(`[${each}]`)
    t.equal(refused.status, 400, each)
    t.strictSame(problem(refused).errors, [{ pointer: '/0', detail: 'must be equal to one of the allowed values' }])
  }
  t.equal((await (await guarded(t, ofBody({ enum: ['a', 'b'] }))).post('["a"]')).status, 400)
})

t.test('fields that services may read under one name are one field', async (t) => {
  const { post, ask } = await guarded(t, {
    ...ofBody({ type: 'object' }),
    headers: { type: 'object', properties: { 'x-count': { type: 'integer' } } }
  })
  for (const name of ['X_Count', 'x.count', 'X-Count']) {
    t.equal((await ask('/items/1', { headers: { 'x-count': '1', [name]: '2' } })).status, 400, name)
  }
  t.equal((await ask('/items/1', { headers: { 'x-count': '1', x_other: '2' } })).status, 200)
  for (const name of ['Content_Type', 'content.type']) {
    t.equal((await post('{}', { headers: { ...json, [name]: 'text/xml' } })).status, 415, name)
  }
})

t.test('names of prototypes are names like others', async (t) => {
  const { post, ask } = await guarded(t, {
    ...ofBody({ type: 'object', properties: { constructor: { type: 'string' } }, required: ['constructor'] }),
    query: { type: 'object', required: ['toString'] }
  })
  t.equal((await post({ constructor: 'a' })).status, 400, 'the query lacks it')
  const on = (body: string) => ask('/items/1?toString=1&__proto__=2', { method: 'POST', headers: json, body })
  t.equal((await on('{"constructor":"a"}')).status, 200)
  t.equal((await on('{}')).status, 400)
  t.equal((await on('{"__proto__":{"constructor":"a"}}')).status, 400)
})

t.test('a large body lists one error, a small one at most maxErrors', async (t) => {
  const { post } = await guarded(t, ofBody({ items: { type: 'string' } }, { maxErrors: 3 }))
  t.equal(problem(await post(`[${'1,'.repeat(10)}1]`)).errors?.length, 3)
  t.equal(problem(await post(`[${'1,'.repeat(5000)}1]`)).errors?.length, 1)
})

t.test('a preflight is not checked, an OPTIONS with a body is', async (t) => {
  const { ask } = await guarded(t, { query: { type: 'object', required: ['a'] } })
  const headers = { origin: 'http://a', 'access-control-request-method': 'GET' }
  t.equal((await ask('/items/1', { method: 'OPTIONS', headers })).status, 200)
  t.equal((await ask('/items/1', { method: 'OPTIONS' })).status, 400)
  t.equal((await ask('/items/1', { method: 'OPTIONS', headers, body: 'x' })).status, 400)
})

t.test('schemas refer to local files', async (t) => {
  const folder = t.testdir({
    'a.yaml': 'defs: { item: { type: integer, $ref: "b.json#/x" } }',
    'b.json': '{"x":{"maximum":5}}'
  })
  const { post } = await guarded(t, ofBody({ properties: { n: { $ref: `${join(folder, 'a.yaml')}#/defs/item` } } }))
  t.equal((await post({ n: 5 })).status, 200)
  t.strictSame(problem(await post({ n: 6 })).errors, [{ pointer: '/n', detail: 'must be <= 5' }])
  t.strictSame(problem(await post({ n: 1.5 })).errors, [{ pointer: '/n', detail: 'must be integer' }])
})

t.test('a draft-07 schema has its own keywords', async (t) => {
  const $schema = 'http://json-schema.org/draft-07/schema#'
  const schema = {
    $schema,
    definitions: { a: { type: 'string' } },
    items: [{ $ref: '#/definitions/a' }],
    dependencies: { a: ['b'] }
  }
  const { post } = await guarded(t, ofBody(schema))
  t.equal((await post(['a', 1])).status, 200)
  t.equal((await post([1])).status, 400)
  t.equal((await post({ a: 1 })).status, 400)
})

t.test('settings without an effect, and schemas that no request matches, are faults', async (t) => {
  const found = (validation: unknown) => {
    const messages: string[] = []
    const config = { services: { a: { instances: ['http://127.0.0.1:9'] } }, edge: { validation } }
    const text = JSON.stringify({ ...config, routes: [{ name: 'a', match: { path: '/' }, service: 'a' }] })
    try {
      parseConfig(text, 'g.yaml', {}, ({ path, message }) => void messages.push(`${path}: ${message}`))
    } catch (error) {
      messages.push(...(error as ConfigError).faults.map(({ path, message }) => `${path}: ${message}`))
    }
    return messages.join()
  }
  t.equal(found(ofBody({}, { maxBody: '1kb', maxDepth: 3 })), '')
  t.match(found({ query: {}, maxBody: '1kb' }), /validation\.maxBody: has no effect without "body"/)
  t.match(found({ query: {}, maxDepth: 3 }), /validation\.maxDepth: has no effect without "body"/)
  t.match(found({ query: { type: 'string' } }), /query\.type: the values of query are one object/)
  t.match(found({ headers: { required: ['X-A'] } }), /"X-A": write names of headers in lower case, x-a/)
  t.match(found({ headers: { properties: { 'X-A': {} } } }), /"X-A": write names of headers in lower case/)
  const multipart = { body: { content: { 'multipart/form-data': { type: 'object' } } } }
  t.match(found(multipart), /"multipart\/form-data": bodies of this type are not read: write true/)
  for (const value of [null, 5, [], {}, true, '']) {
    for (const key of ['openapi', 'query', 'body', 'responses', 'maxBody', 'basePath', 'describes']) {
      if (key === 'query' && JSON.stringify(value) === '{}') continue
      t.match(found({ headers: {}, [key]: value }), `validation.${key}`, `${key}: ${JSON.stringify(value)}`)
    }
  }
})

t.test('faults of schemas have their position', async (t) => {
  const folder = t.testdir({ 'bad.json': '{"x":{"type":"text"}}' })
  const faultOf = (validation: object) => {
    try {
      configOf({
        services: { any: { instances: ['http://127.0.0.1:9'] } },
        routes: [{ name: 'a', match: { path: '/' }, service: 'any', edge: { validation } }]
      })
      return 'none'
    } catch (error) {
      return (error as Error).message.split('\n')[0]!.replace(/^.*?: /, '')
    }
  }
  const at = 'routes[0].edge.validation'
  t.match(faultOf({}), `${at}: has nothing to check`)
  t.match(
    faultOf({ query: { type: 'objekt' } }),
    `${at}.query.type: expected one of array, boolean, integer, null, number, object, string, found "objekt"; did you mean "object"?`
  )
  t.match(
    faultOf({ query: { propertys: {} } }),
    `${at}.query.propertys: unknown keyword "propertys"; did you mean "properties"?`
  )
  t.match(
    faultOf({ query: { items: { pattern: '(?=a)' } } }),
    /query\.items\.pattern: the regular expression "\(\?=a\)" is not supported/
  )
  t.match(faultOf({ query: { items: [{}] } }), `${at}.query.items:`)
  t.match(faultOf(ofBody({ $ref: '#/$defs/none' })), '"$ref: #/$defs/none" refers to nothing')
  t.match(faultOf(ofBody({ $ref: 'https://a/b' })), /is a URL: only local files/)
  t.match(
    faultOf(ofBody({ $ref: join(folder, 'bad.json#/x') })),
    /bad\.json#\/x\/type: expected one of .*found "text"; did you mean "string"/
  )
  t.match(faultOf(ofBody({ $ref: join(folder, 'no.json') })), /no\.json: cannot be read \(ENOENT\)/)
  t.match(faultOf({ body: { content: { json: {} } } }), '"json" is not a media type')
  t.match(faultOf({ body: { content: { 'text/plain': 5 } } }), 'expected a JSON Schema')
  writeFileSync(join(folder, 'bad.json'), '{')
  t.match(faultOf(ofBody({ $ref: join(folder, 'bad.json') })), /bad\.json: not JSON/)
})
