/** Portals: facts of concerns in the documents, which stay valid. */
import { Ajv2020 } from 'ajv/dist/2020.js'
import t from 'tap'
import { http2Client } from '../helpers/edge/direct-clients.ts'
import { startGateway, startService } from '../helpers/gateway.ts'
import { selfSigned } from '../helpers/self-signed.ts'

/** The rules of OpenAPI 3.1 (https://spec.openapis.org/oas/3.1/schema) for the objects that the gateway writes. */
const object = (properties: object, required: string[] = []) => ({
  type: 'object',
  properties,
  required,
  patternProperties: { '^x-': true },
  unevaluatedProperties: false
})
const text = { type: 'string' }
const named = (each: object) => ({ type: 'object', additionalProperties: each })
const orReference = (each: object) => ({
  if: { type: 'object', required: ['$ref'] },
  // biome-ignore lint/suspicious/noThenProperty: a JSON Schema keyword
  then: { properties: { $ref: { type: 'string', format: 'uri-reference', pattern: '^#/components/' } } },
  else: each
})
const definitions = {
  content: named(object({ schema: { type: ['object', 'boolean'] }, example: true })),
  header: object(
    { description: text, required: { type: 'boolean' }, deprecated: { type: 'boolean' }, schema: { type: 'object' } },
    ['schema']
  ),
  response: object(
    {
      description: text,
      headers: named(orReference({ $ref: '#/$defs/header' })),
      content: { $ref: '#/$defs/content' },
      links: true
    },
    ['description']
  ),
  operation: object({
    operationId: text,
    summary: text,
    description: text,
    tags: { type: 'array', items: text },
    deprecated: { type: 'boolean' },
    parameters: {
      type: 'array',
      items: orReference(
        object(
          {
            name: text,
            in: { enum: ['query', 'header', 'path', 'cookie'] },
            schema: true,
            required: { type: 'boolean' }
          },
          ['name', 'in']
        )
      )
    },
    requestBody: orReference(
      object({ content: { $ref: '#/$defs/content' }, required: { type: 'boolean' } }, ['content'])
    ),
    responses: {
      type: 'object',
      minProperties: 1,
      propertyNames: { pattern: '^([1-5](\\d\\d|XX)|default)$' },
      additionalProperties: orReference({ $ref: '#/$defs/response' })
    },
    security: { type: 'array', items: named({ type: 'array', items: text }) }
  }),
  security: object(
    {
      type: { enum: ['apiKey', 'http', 'mutualTLS', 'oauth2', 'openIdConnect'] },
      description: text,
      name: text,
      in: { enum: ['query', 'header', 'cookie'] },
      scheme: text,
      bearerFormat: text,
      flows: true,
      openIdConnectUrl: text
    },
    ['type']
  )
}
const component = '^[a-zA-Z0-9._-]+$'
const components = (each: object) => ({ ...named(each), propertyNames: { pattern: component } })
const schema = {
  ...object(
    {
      openapi: { type: 'string', pattern: '^3\\.1\\.\\d+$' },
      info: object({ title: text, version: text, description: text }, ['title', 'version']),
      paths: {
        type: 'object',
        propertyNames: { pattern: '^/' },
        additionalProperties: {
          type: 'object',
          propertyNames: { enum: ['get', 'put', 'post', 'delete', 'options', 'head', 'patch', 'trace'] },
          additionalProperties: { $ref: '#/$defs/operation' }
        }
      },
      components: object({
        schemas: components({ type: ['object', 'boolean'] }),
        responses: components({ $ref: '#/$defs/response' }),
        headers: components({ $ref: '#/$defs/header' }),
        securitySchemes: components({ $ref: '#/$defs/security' })
      })
    },
    ['openapi', 'info']
  ),
  $defs: definitions
}
const validate = new Ajv2020({ strict: false, validateFormats: false }).compile(schema)

interface Operation {
  readonly deprecated?: boolean
  readonly responses: Readonly<Record<string, Response & { readonly $ref?: string }>>
  readonly [extension: `x-${string}`]: unknown
}
interface Response {
  readonly description: string
  readonly headers?: Readonly<Record<string, { readonly $ref: string }>>
  readonly content?: object
}

for (const version of ['3.0.3', '3.1.0']) {
  t.test(`what clients notice is in the document, which stays valid, from OpenAPI ${version}`, async (t) => {
    const ok = {
      200: { description: 'fine', headers: { age: { schema: { type: 'integer' } } } },
      201: { $ref: '#/components/responses/Made' }
    }
    const source = {
      openapi: version,
      info: { title: 'a', version: '1' },
      paths: Object.fromEntries(
        ['/all', '/plain', '/tried'].map((path) => [
          path,
          {
            get: { responses: ok },
            post: { requestBody: { content: { 'application/json': { schema: { type: 'object' } } } }, responses: ok }
          }
        ])
      ),
      components: { responses: { Made: { description: 'made' } } }
    }
    const service = await startService((_request, response) => response.end(JSON.stringify(source)))
    t.teardown(service.close)
    const edge = {
      csrf: {},
      userAgent: { deny: ['bad'] },
      maintenance: { enabled: false },
      deprecation: { at: '2026-01-01', sunset: '2030-01-01', successor: '/v2', afterSunset: 'refuse' },
      apiVersion: '1',
      cache: {},
      compression: {},
      decompression: { unknown: 'refuse' },
      validation: { body: { content: { 'application/json': { type: 'object' } } } },
      rateLimit: [
        { max: 5, window: '1m' },
        { max: 50, window: '1h', headers: 'ietf' }
      ],
      bodyLimit: '1mb'
    }
    const shadow = { userAgent: { ...edge.userAgent, mode: 'shadow' }, csrf: { mode: 'shadow' }, bodyLimit: false }
    const gateway = await startGateway({
      listen: { tls: selfSigned(t), http2: true },
      services: { any: { instances: [service.url] } },
      routes: [
        { name: 'all', match: { path: '/all' }, service: 'any', edge },
        {
          name: 'plain',
          match: { path: '/plain' },
          service: 'any',
          edge: { errorPages: { format: 'problem' }, bodyLimit: false }
        },
        { name: 'tried', match: { path: '/tried' }, service: 'any', edge: shadow },
        { name: 'docs', match: { path: '/docs' }, portal: { title: 'A', services: { any: { path: '/' } } } }
      ]
    })
    t.teardown(gateway.close)
    const ask = await http2Client(t, gateway.port)
    const document = JSON.parse((await ask('/docs/openapi.json')).body)
    t.ok(validate(document), JSON.stringify(validate.errors))
    const all = document.components as Record<string, Record<string, unknown>>
    const found = (reference: string) => {
      const [, kind, name] = /^#\/components\/(\w+)\/([^/]+)$/.exec(reference)!
      return all[kind!]![name!]
    }
    for (const reference of JSON.stringify(document).matchAll(/"\$ref":"([^"]+)"/g))
      t.ok(found(reference[1]!), `${reference[1]}`)
    const operation = (path: string, method: string) => document.paths[path][method] as Operation
    const of = ({ responses }: Operation, status: string) => {
      const given = responses[status]!
      return (given.$ref === undefined ? given : found(given.$ref)) as Response
    }
    const [list, make] = [operation('/all', 'get'), operation('/all', 'post')]
    t.strictSame(Object.keys(list.responses), ['200', '201', '400', '403', '410', '429', '502', '503', '504'])
    t.strictSame(Object.keys(make.responses), [
      '200',
      '201',
      '400',
      '403',
      '410',
      '413',
      '415',
      '429',
      '502',
      '503',
      '504'
    ])
    t.equal(of(list, '403').description, 'The user agent is not allowed.')
    t.equal(of(make, '403').description, 'The user agent is not allowed. The request is one of a page on another site.')
    t.match(of(list, '400').content, { 'application/problem+json': {} })
    t.notMatch(of(list, '400').content, { 'application/json': {} })
    t.match(of(make, '400').content, { 'application/json': {}, 'application/problem+json': {} })
    t.match(of(list, '503').description, /is available.*The service is under maintenance\./)
    t.match(
      [list.deprecated, list['x-api-version'], make['x-request-encodings']],
      [true, '1', ['gzip', 'br', 'zstd', 'deflate']]
    )
    const limits = ['RateLimit-Limit', 'RateLimit-Remaining', 'RateLimit-Reset', 'RateLimit-Policy', 'RateLimit']
    const common = ['Deprecation', 'Sunset', 'Link', ...limits, 'Content-Encoding']
    t.strictSame(new Set(Object.keys(of(list, '200').headers!)), new Set(['age', ...common, 'Cache-Status']))
    t.strictSame(of(list, '200').headers!.age, { schema: { type: 'integer' } }, "the service's own")
    t.strictSame(new Set(Object.keys(of(make, '200').headers!)), new Set(['age', ...common]), 'POST is not cached')
    t.ok(of(list, '429').headers!['Retry-After'])
    t.strictSame(of(list, '201'), { description: 'made' }, 'a shared response stays as it is')

    const plain = operation('/plain', 'get')
    t.strictSame(Object.keys(plain.responses), ['200', '201', '502', '503', '504'])
    t.strictSame(Object.keys(of(plain, '502').content!), ['application/problem+json'])
    t.equal(plain.deprecated, undefined)
    t.strictSame(Object.keys(operation('/tried', 'post').responses), ['200', '201', '502', '503', '504'], 'shadow mode')
    const page = (await ask('/docs')).body
    t.match(page, '<span class="old">/all</span>')
  })
}

t.test('the rules of the test find faults', async (t) => {
  const bad = [
    { openapi: '3.1.0', info: { title: 'a', version: '1' }, paths: { '/a': { get: { responses: { 200: {} } } } } },
    {
      openapi: '3.1.0',
      info: { title: 'a', version: '1' },
      paths: { '/a': { get: { responses: { 200: { description: 'a', header: {} } } } } }
    },
    { openapi: '3.1.0', info: { title: 'a' } }
  ]
  for (const document of bad) t.notOk(validate(document))
})
