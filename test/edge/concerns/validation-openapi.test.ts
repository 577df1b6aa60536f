// slow: takes about 5 s
// Requests that are checked by an OpenAPI document.
import { utimesSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import type { Test } from 'tap'
import t from 'tap'
import { protocols } from '../../helpers/edge/asking-client.ts'
import { json, problem, validated } from '../../helpers/edge/validated.ts'
import { configOf } from '../../helpers/gateway.ts'
import { folder } from '../../helpers/plugins.ts'

const orders = `
openapi: 3.0.3
info: { title: orders, version: '1' }
servers: [{ url: 'https://api.example.com/v1' }, { url: '/{base}', variables: { base: { default: v2 } } }]
paths:
  /orders:
    parameters: [{ $ref: '#/components/parameters/tenant' }]
    get:
      parameters:
        - { name: limit, in: query, schema: { type: integer, minimum: 0, exclusiveMinimum: true } }
        - { name: ids, in: query, explode: false, schema: { type: array, items: { type: integer } } }
        - { name: filter, in: query, style: deepObject, schema: { type: object, properties: { state: { enum: [open, done] }, n: { type: integer } } } }
      responses: { '200': { description: ok } }
    post:
      requestBody:
        required: true
        content:
          application/json: { schema: { $ref: 'schemas.yaml#/Order' } }
          multipart/form-data: { schema: { type: object } }
      responses: { '201': { description: made } }
  /orders/{id}:
    get: { parameters: [{ name: id, in: path, required: true, schema: { type: integer } }], responses: {} }
    delete: { parameters: [{ name: id, in: path, required: true, schema: { type: integer } }], responses: {} }
  /orders/latest: { get: { responses: {} } }
  /orders/{id}/{name}.pdf:
    get:
      parameters:
        - { name: id, in: path, required: true, schema: { type: integer } }
        - { name: name, in: path, required: true, schema: { type: string, maxLength: 3 } }
      responses: {}
components:
  parameters:
    tenant: { name: X-Tenant, in: header, required: true, schema: { type: string } }
`
const schemas = `
Order:
  type: object
  required: [id, item]
  properties:
    id: { type: integer, readOnly: true }
    item: { type: string }
    note: { type: string, nullable: true }
    parent: { nullable: true, allOf: [{ $ref: '#/Order' }] }
    secret: { type: string, writeOnly: true }
`

const fileOf = async (t: Test): Promise<string> =>
  join(await folder(t, { 'orders.yaml': orders, 'schemas.yaml': schemas }), 'orders.yaml')

for (const protocol of protocols) {
  t.test(`a document decides over ${protocol}`, async (t) => {
    const openapi = await fileOf(t)
    const { ask, post, got, lineOf } = await validated(t, { openapi }, { protocol })
    const tenant = { 'x-tenant': 'a' }
    const with_ = { headers: { ...json, ...tenant } }
    const target = '/v1/orders?limit=1&ids=1,2%2C3&other=x'
    t.strictSame(problem(await ask(target, { headers: tenant })).errors, [
      { parameter: 'ids', in: 'query', pointer: '/1', detail: 'must be integer' }
    ])
    t.equal((await ask('/v1/orders?limit=1&ids=1,2&other=x', { headers: tenant })).status, 200)
    t.equal(got.at(-1)?.url, '/v1/orders?limit=1&ids=1,2&other=x')
    t.equal((await ask('/v2/orders', { headers: tenant })).status, 200, 'the other server')
    t.strictSame(problem(await ask('/v1/orders?limit=0')).errors, [
      { parameter: 'limit', in: 'query', detail: 'must be > 0' },
      { parameter: 'x-tenant', in: 'header', detail: 'is required' }
    ])
    t.equal((await ask('/v1/orders?filter%5Bstate%5D=open&filter[n]=1', { headers: tenant })).status, 200)
    t.strictSame(problem(await ask('/v1/orders?filter[state]=lost', { headers: tenant })).errors, [
      { parameter: 'filter', in: 'query', pointer: '/state', detail: 'must be equal to one of the allowed values' }
    ])

    const body = '{"item":"a", "note":null, "parent":{"item":"b","parent":null} }'
    t.equal((await post('/v1/orders', body, with_)).status, 200)
    t.equal(got.at(-1)?.body.toString(), body)
    const wrong = await post('/v1/orders', { item: 'a', id: 7, parent: { item: 5 } }, with_)
    t.match(problem(wrong).errors, [{ pointer: '/id', detail: 'is not allowed here' }])
    t.notMatch(wrong.body.toString(), 'required', 'a readOnly property is not required')
    t.equal(
      (await post('/v1/orders', '--a', { headers: { 'content-type': 'multipart/form-data', ...tenant } })).status,
      200
    )

    t.equal((await ask('/v1/orders/7')).status, 200)
    t.equal((await ask('/v1/orders/7', { method: 'HEAD' })).status, 200, 'HEAD is like GET')
    t.equal((await ask('/v1/orders/latest')).status, 200)
    t.equal(
      (await ask('/v1/orders/latest', { method: 'DELETE' })).status,
      400,
      'the path with a parameter has the method'
    )
    t.strictSame(problem(await ask('/v1/orders/x')).errors, [
      { parameter: 'id', in: 'path', detail: 'must be integer' }
    ])
    t.equal((await ask('/v1/orders/7/abc.pdf')).status, 200)
    t.equal((await ask('/v1/orders/7/abcd.pdf')).status, 400)
    t.equal((await ask('/v1/orders/7/abc.txt')).status, 404)

    const count = got.length
    t.match(await ask('/v1/orders/7', { method: 'PUT' }), {
      status: 405,
      headers: { allow: 'GET, DELETE, HEAD', 'content-type': 'application/problem+json' }
    })
    t.match(problem(await ask('/orders')), { status: 404, code: 'JW_REQUEST_UNDOCUMENTED' })
    for (const path of ['/v1/orders/', '/v1//orders', '/v1/Orders', '/v1/orders/7/'])
      t.equal((await ask(path)).status, 404, path)
    t.equal(got.length, count)
    t.match(await lineOf(0), { reason: 'validation_query' })
  })
}

t.test('the path is the one that the service gets, unless the document describes that of clients', async (t) => {
  const openapi = await fileOf(t)
  const route = (validation: object) => ({
    match: { path: '/api' },
    path: { strip: true },
    edge: { validation: { openapi, ...validation } }
  })
  const service = await validated(t, {}, { route: route({}) })
  t.equal((await service.ask('/api/v1/orders/7?a=b')).status, 200)
  t.equal(service.got[0]?.url, '/v1/orders/7?a=b')
  t.equal((await service.ask('/api/orders/7')).status, 404)
  const client = await validated(t, {}, { route: route({ describes: 'client', basePath: '/api' }) })
  t.equal((await client.ask('/api/orders/7')).status, 200)
  t.equal(client.got[0]?.url, '/orders/7')
  t.equal((await client.ask('/api/v1/orders/7')).status, 404)
})

t.test('options: undocumented requests, unknown parameters, types that are not read', async (t) => {
  const openapi = await fileOf(t)
  const { ask, post } = await validated(t, {
    openapi,
    undocumented: 'pass',
    unknownQuery: 'refuse',
    unread: 'refuse',
    basePath: '/'
  })
  t.equal((await ask('/other')).status, 200)
  t.equal((await ask('/orders/1', { method: 'PUT' })).status, 200)
  t.strictSame(problem(await ask('/orders/1?secret=1')).errors, [
    { parameter: '*', in: 'query', detail: 'a parameter that is not defined is not allowed' }
  ])
  const headers = { 'content-type': 'multipart/form-data', 'x-tenant': 'a' }
  t.match(await post('/orders', '--a', { headers }), { status: 415, headers: { accept: 'application/json' } })
  const undocumented = await ask('/orders/1', { headers: json, body: '{}' })
  t.match(undocumented, { status: 415, isWhole: true })
  t.equal(problem(undocumented).detail, 'The document has no body for this operation')
  const lax = await validated(t, { openapi, basePath: '/' })
  t.equal((await lax.ask('/orders/1', { headers: json, body: '{}' })).status, 200)
  t.equal(lax.got.at(-1)?.body.toString(), '{}')
  t.equal((await ask('/orders', { method: 'POST', headers: { 'x-tenant': 'a' } })).status, 400, 'a required body')
})

t.test('the styles of parameters', async (t) => {
  const schemas = {
    array: { type: 'array', items: { type: 'integer' }, minItems: 2, maxItems: 2 },
    object: { type: 'object', properties: { a: { type: 'integer' }, b: { type: 'boolean' } }, required: ['a', 'b'] },
    json: { type: 'object', properties: { a: { type: 'integer' } }, required: ['a'] }
  }
  const parameter = (name: string, where: string, more: object) => ({ name, in: where, ...more })
  const query = (name: string, schema: object, more: object = {}) => parameter(name, 'query', { schema, ...more })
  const document = {
    openapi: '3.1.0',
    paths: {
      '/q': {
        get: {
          parameters: [
            query('form', schemas.array),
            query('flat', schemas.array, { explode: false }),
            query('space', schemas.array, { style: 'spaceDelimited', explode: false }),
            query('pipe', schemas.array, { style: 'pipeDelimited', explode: false }),
            query('spread', schemas.object),
            query('pairs', schemas.object, { explode: false }),
            query('deep', schemas.object, { style: 'deepObject' }),
            query('empty', { type: 'integer' }, { allowEmptyValue: true }),
            query('null', { type: ['integer', 'null'] }),
            parameter('json', 'query', { content: { 'application/json': { schema: schemas.json } } }),
            parameter('X-List', 'header', { schema: schemas.array }),
            parameter('X-Pairs', 'header', { explode: true, schema: schemas.object }),
            parameter('c', 'cookie', { explode: false, schema: schemas.array })
          ]
        }
      },
      '/p/{simple}/{label}': {
        get: {
          parameters: [
            parameter('simple', 'path', { required: true, schema: schemas.array }),
            parameter('label', 'path', { required: true, style: 'label', explode: true, schema: schemas.array })
          ]
        }
      }
    }
  }
  const openapi = join(t.testdir({ 'a.json': JSON.stringify(document) }), 'a.json')
  const { ask } = await validated(t, { openapi })
  const good = [
    'form=1&form=2', 'flat=1,2', 'space=1%202', 'space=1+2', 'pipe=1|2', 'pipe=1%7c2', 'a=1&b=true', 'pairs=a,1,b,false',
    'deep[a]=1&deep[b]=true', 'empty=', 'empty=1', 'null=', 'null=5', 'json=%7B%22a%22:1%7D'
  ] // biome-ignore format: a list
  for (const each of good) t.equal((await ask(`/q?${each}`)).status, 200, each)
  const bad = [
    'form=1', 'form=1,2', 'flat=1', 'flat=1,2,3', 'flat=1%2C2', 'space=1', 'pipe=1|x', 'a=1&b=2', 'a=1&a=2&b=true', 'pairs=a,1,b', 'pairs=a,1,a,2',
    'deep[a]=1', 'deep[a][c]=1&deep[b]=true', 'empty=x', 'null=x', 'json={}', 'json=%7B%22a%22:1,%22a%22:1%7D', 'json=x', 'json=%7B%22a%22:1%7D&json=1', 'form=%ff&form=1'
  ] // biome-ignore format: a list
  for (const each of bad) t.equal((await ask(`/q?${each}`)).status, 400, each)
  const headers = async (fields: Record<string, string>) => (await ask('/q', { headers: fields })).status
  t.equal(await headers({ 'x-list': '1, 2' }), 200)
  t.equal(await headers({ 'x-list': '1' }), 400)
  t.equal(await headers({ 'x-pairs': 'a=1,b=true' }), 200)
  t.equal(await headers({ 'x-pairs': 'a=1' }), 400)
  t.equal(await headers({ cookie: 'c=1,2; d=5' }), 200)
  t.equal(await headers({ cookie: 'c=1' }), 400)
  t.equal((await ask('/p/1,2/.3.4')).status, 200)
  t.equal((await ask('/p/1,2/3.4')).status, 400)
  t.equal((await ask('/p/1/.3.4')).status, 400)
})

t.test('check reports faults of documents with file and pointer', async (t) => {
  const home = t.testdir({})
  const faultOf = (document: string, name = 'a.yaml', more: object = {}) => {
    writeFileSync(join(home, name), document)
    try {
      configOf({
        services: { any: { instances: ['http://127.0.0.1:9'] } },
        routes: [
          {
            name: 'a',
            match: { path: '/' },
            service: 'any',
            edge: { validation: { openapi: join(home, name), ...more } }
          }
        ]
      })
      return 'none'
    } catch (error) {
      return (error as Error).message.split('\n')[0]!
    }
  }
  const of = (paths: string) => `openapi: 3.1.0\npaths: ${paths}`
  t.equal(faultOf(of('{ /a: { get: { responses: {} } } }')), 'none')
  t.match(faultOf('swagger: "2.0"'), /validation\.openapi: .*a\.yaml: expected "openapi: 3\.0\.x"/)
  t.match(faultOf('a: [', 'b.yaml'), /b\.yaml:\d+:\d+: not YAML/)
  t.match(faultOf(of('{ a: { get: {} } }')), /a\.yaml#\/paths\/a: a path must begin with/)
  t.match(faultOf(of('{ "/a{b": { get: {} } }')), /"a\{b" is not a segment/)
  t.match(faultOf(of('{}')), /has no operations/)
  const schema = (text: string) =>
    of(`{ /a: { post: { requestBody: { content: { application/json: { schema: ${text} } } } } } }`)
  const at = '/paths/~1a/post/requestBody/content/application~1json/schema'
  t.match(
    faultOf(schema('{ type: text }')),
    `a.yaml#${at}/type: expected one of array, boolean, integer, null, number, object, string, found "text"; did you mean "string"?`
  )
  t.match(faultOf(schema('{ $ref: "#/components/x" }')), `a.yaml#${at}/$ref: "$ref: #/components/x" refers to nothing`)
  t.equal(faultOf(schema('{ propertys: {} }')), 'none', 'an unknown keyword is a warning')
  t.match(faultOf(of('{ /a: { get: { parameters: [{ name: a, in: body }] } } }')), /parameters\/0: expected "name"/)
  t.match(faultOf(schema('{}'), 'a.yaml', { query: {} }), /validation\.query: has no effect with "openapi"/)
  t.match(faultOf(of('{ /a: { $ref: "#/paths/~1a" } }')), /paths\/~1a: refers to itself/)
  t.match(faultOf(schema('{ $ref: "/dev/zero" }')), '/dev/zero: cannot be read (not a file)')
  // 9^11 values, from aliases of aliases.
  const bomb = (first: string, list: (items: string) => string) =>
    Array.from({ length: 12 }, (_, level) => {
      const items = Array(9)
        .fill(`*a${level - 1}`)
        .join()
      return `x-${level}: &a${level} ${level === 0 ? first : list(items)}\n`
    }).join('')
  const schemas = bomb('{ type: string }', (items) => `{ allOf: [${items}] }`)
  t.match(faultOf(`${schemas}${schema('*a11')}`), /has more than 10000 schemas within each other/)
  const values = bomb('1', (items) => `[${items}]`)
  for (const key of ['enum', 'const', 'default', 'maximum'])
    t.match(
      faultOf(`${values}${schema(`{ ${key}: *a11 }`)}`),
      key === 'default' ? 'none' : /has more than 1000000 values/
    )
  t.match(faultOf(schema('&s { not: *s }')), /has more than 10000 schemas within each other/)
  t.match(faultOf(schema('&s { enum: [*s] }')), /has more than 1000000 values/)
})

t.test('a document is compiled once, and again when its file has changed', async (t) => {
  const openapi = await fileOf(t)
  const { ask } = await validated(t, { openapi })
  t.equal((await ask('/v1/orders/latest')).status, 200)
  writeFileSync(openapi, orders.replace('/orders/latest', '/orders/newest'))
  utimesSync(openapi, 1, 1)
  const changed = await validated(t, { openapi })
  t.equal((await changed.ask('/v1/orders/latest')).status, 400)
  t.equal((await ask('/v1/orders/latest')).status, 200, 'the running gateway keeps its own')
})
