/** Portals of hostile services: the documents of one service must not harm the gateway, nor the documents of the others. */
import http from 'node:http'
import { load } from 'js-yaml'
import type { Test } from 'tap'
import t from 'tap'
import { get, startGateway } from '../helpers/gateway.ts'
import { longestStretch } from '../helpers/loop-stretches.ts'

interface Merged {
  readonly paths: Readonly<Record<string, object>>
  readonly components: Readonly<Record<string, Readonly<Record<string, unknown>>>>
  readonly 'x-unavailable'?: readonly string[]
}

t.setTimeout(120_000)

/** Starts a gateway with the portal of a sound service and of one that has this document. */
async function portalWith(t: Test, hostile: string | object) {
  const sound = { openapi: '3.1.0', paths: { '/good': { get: { summary: 'sound' } } } }
  const text = typeof hostile === 'string' ? hostile : JSON.stringify(hostile)
  const server = http.createServer(({ url }, response) => {
    response.end(url === '/good.json' ? JSON.stringify(sound) : text)
  })
  await new Promise<void>((resolve) => void server.listen(0, '127.0.0.1', resolve))
  t.teardown(() => server.close())
  const instances = [`http://127.0.0.1:${(server.address() as { port: number }).port}`]
  const gateway = await startGateway({
    services: { good: { instances }, evil: { instances } },
    routes: [
      { name: 'good', match: { path: '/good' }, service: 'good' },
      { name: 'evil', match: { path: '/evil' }, service: 'evil' },
      {
        name: 'docs',
        match: { path: '/docs' },
        portal: { services: { good: { path: '/good.json' }, evil: { path: '/evil.json' } } }
      }
    ]
  })
  t.teardown(gateway.close)
  return gateway
}

/** Asserts that the portal has the sound service, in all three forms, and returns the document. */
async function soundPortal(t: Test, hostile: string | object, what: string): Promise<Merged> {
  const { port } = await portalWith(t, hostile)
  const json = await get(port, '/docs/openapi.json')
  const merged = JSON.parse(json.status === 200 ? json.body : '{"paths":{},"components":{}}') as Merged
  t.ok(merged.paths['/good'], `${what}: JSON ${json.status}`)
  const yaml = await get(port, '/docs/openapi.yaml')
  t.ok(yaml.status === 200 && load(yaml.body), `${what}: YAML ${yaml.status}`)
  const page = await get(port, '/docs')
  t.match(page, { status: 200, body: '/good' }, `${what}: page`)
  return merged
}

const evil = (operation: object, more: object = {}) => ({
  openapi: '3.1.0',
  paths: { '/evil': { get: operation } },
  ...more
})

t.test('names of members of every object', async (t) => {
  for (const kind of ['__proto__', 'constructor', 'toString']) {
    const text = `{"openapi":"3.1.0","paths":{"/evil":{"get":{"summary":"#/components/${kind}/evil.polluted"}}},
      "components":{"${kind}":{"polluted":{"a":1}}}}`
    await soundPortal(t, text, kind)
    t.equal(Reflect.get({}, 'evil.polluted'), undefined, `${kind}: no object has a new member`)
    t.equal(Reflect.get(Object, 'evil.polluted'), undefined)
  }
  await soundPortal(t, evil({ security: [{ constructor: [] }] }, { components: { securitySchemes: {} } }), 'scheme')
  await soundPortal(t, '{"openapi":"3.1.0","paths":{"__proto__":{"get":{}},"/evil":{"__proto__":{},"get":{}}}}', 'path')
})

t.test('values that have no text', async (t) => {
  const none = { toString: 1, valueOf: 1 }
  for (const key of ['summary', 'description', 'tags', 'deprecated', 'security', 'responses', 'requestBody']) {
    await soundPortal(t, evil({ [key]: none }), key)
    await soundPortal(t, evil({ [key]: [none] }), `${key} in a list`)
  }
  await soundPortal(
    t,
    evil({ parameters: [{ name: none, in: none, description: none, schema: { type: none } }] }),
    'parameter'
  )
  await soundPortal(t, evil({ parameters: [{ $ref: none }], responses: { 200: { $ref: none } } }), '$ref')
  await soundPortal(t, evil({}, { servers: [{ url: none }] }), 'server')
})

t.test('aliases that stand for more than memory holds', async (t) => {
  const long = 'x'.repeat(500_000)
  const texts = `openapi: 3.1.0\npaths: { /evil: { get: { x-a: &a "${long}", x-b: [${'*a,'.repeat(100_000)}] } } }\n`
  const levels = ['x0: &x0 [a, a, a, a, a, a, a, a, a, a]']
  for (let i = 1; i < 12; i++) levels.push(`x${i}: &x${i} [${`*x${i - 1},`.repeat(10)}]`)
  const bomb = `${levels.join('\n')}\nopenapi: 3.1.0\npaths: { /evil: { get: {} } }\nsecurity: [{ own: *x11 }]\n`
  const members = Array.from({ length: 20_000 }, (_, i) => `m${i}: a`).join(', ')
  const mapping = `x: &m { mapping: { ${members} } }\nopenapi: 3.1.0\npaths: { /evil: { get: { x-b: [${'*m,'.repeat(50_000)}] } } }\n`
  for (const [what, text] of Object.entries({ texts, bomb, mapping })) {
    const merged = await soundPortal(t, text, what)
    t.ok(JSON.stringify(merged).length < 20_000_000, what)
  }
})

t.test('references to one long part, again and again', async (t) => {
  const long = 'x'.repeat(100_000)
  const many = <T>(count: number, make: (i: number) => T) => Array.from({ length: count }, (_, i) => make(i))
  const parameters = many(20_000, () => ({ $ref: '#/components/parameters/long' }))
  const schema = { properties: Object.fromEntries(many(5000, (i) => [`p${i}`, { type: 'string' }])) }
  const content = (i: number) => ({ [`a/${i}`]: { schema: { $ref: '#/components/schemas/large' } } })
  const responses = Object.fromEntries(many(500, (i) => [200 + i, { content: content(i) }]))
  const body = { content: Object.assign({}, ...many(5000, content)) }
  const components = {
    parameters: { long: { name: 'long', in: 'query', description: long } },
    schemas: { large: schema }
  }
  const { port } = await portalWith(t, evil({ parameters, responses, requestBody: body }, { components }))
  const page = await get(port, '/docs')
  t.equal(page.status, 200)
  t.ok(page.body.length < 40_000_000, `${page.body.length} characters`)
  t.match(page.body.slice(0, 3000), 'which lacks texts')
  const paths = Object.fromEntries(many(10_000, (i) => [`/evil/${i}`, { get: { tags: ['one'] } }]))
  await soundPortal(t, { openapi: '3.1.0', paths }, 'many operations')
})

t.test('a document that cannot be shown holds the event loop of the gateway as little as one that can', async (t) => {
  const text = `openapi: 3.1.0\npaths: { /evil: { get: {} } }\nx: [${'a,'.repeat(900_000)}]`
  const { port } = await portalWith(t, text)
  const { result, longest } = await longestStretch(() => get(port, '/docs/openapi.json'))
  t.equal(result.status, 200)
  t.ok(longest < 100, `the event loop was held for ${longest} ms of CPU time`)
})

t.test('a document with parts that share names', async (t) => {
  const properties = {
    nullable: { type: 'boolean' },
    exclusiveMinimum: { type: 'number' },
    mapping: { type: 'string' }
  }
  const schema = { type: 'object', properties }
  const document = evil({ responses: { 200: { content: { a: { schema } } } } })
  const merged = await soundPortal(t, { ...document, openapi: '3.0.3' }, 'properties')
  t.strictSame(Reflect.get(merged.paths['/evil']!, 'get').responses[200].content.a.schema, schema)
})
