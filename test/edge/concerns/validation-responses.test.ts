// Responses of services that are checked by an OpenAPI document.
import { join } from 'node:path'
import { gzipSync } from 'node:zlib'
import type { Test } from 'tap'
import t from 'tap'
import type { Protocol } from '../../helpers/edge/asking-client.ts'
import { protocols } from '../../helpers/edge/asking-client.ts'
import type { Given } from '../../helpers/edge/validated.ts'
import { json, validated } from '../../helpers/edge/validated.ts'
import { folder } from '../../helpers/plugins.ts'

const item = {
  type: 'object',
  required: ['id', 'secret'],
  properties: {
    id: { type: 'integer' },
    secret: { type: 'string', writeOnly: true },
    tags: { type: 'array', items: { type: 'string' } }
  }
}
const content = { 'application/json': { schema: { $ref: '#/components/schemas/item' } }, 'text/csv': {} }
const document = {
  openapi: '3.0.0',
  components: { schemas: { item } },
  paths: { '/{x}': { get: { responses: { 200: { content }, '4XX': {} } } } }
}

const responses: Record<string, Given> = {
  good: { body: '{ "id" : 1e0, "tags":[]}' },
  wrong: { body: '{"id":"PRIVATE"}' },
  deep: { body: '{"id":1,"tags":["a",5]}' },
  secret: { body: '{"id":1,"secret":"a"}' },
  text: { headers: { 'content-type': 'text/plain' }, body: 'x' },
  csv: { headers: { 'content-type': 'text/csv' }, body: ['a,', 'b'] },
  status: { status: 201, body: '{}' },
  missing: { status: 404, body: '{"any":"thing"}' },
  broken: { body: '{"id":' },
  twice: { body: '{"id":1,"id":2}' },
  large: { body: `{"id":1,"x":"${'x'.repeat(3000)}"}` },
  chunks: { body: ['{"id', '":1}'] },
  charset: { headers: { 'content-type': 'application/json; charset=utf-16' }, body: '{"id":1}' },
  packed: { headers: { ...json, 'content-encoding': 'gzip' }, body: gzipSync('{"id":1}') },
  bomb: { headers: { ...json, 'content-encoding': 'gzip' }, body: gzipSync(`{"id":1,"x":"${'x'.repeat(100_000)}"}`) },
  none: { status: 304 }
}

async function checked(t: Test, mode: string, protocol: Protocol) {
  const openapi = join(await folder(t, { 'a.json': JSON.stringify(document) }), 'a.json')
  const respond = (url: string) => ({ headers: json, ...responses[url.slice(1)]! })
  return validated(t, { openapi, responses: mode, maxResponse: '2kb' }, { protocol, respond })
}

const fine = ['good', 'csv', 'missing', 'chunks', 'packed', 'none']
const bodyOf = ({ body = '' }: Given) =>
  Array.isArray(body) ? Buffer.from(body.join('')) : Buffer.from(body as Buffer)

for (const protocol of protocols) {
  t.test(`responses that do not match get a 502 over ${protocol}`, async (t) => {
    const { ask, lineOf, log, counted } = await checked(t, 'enforce', protocol)
    for (const name of fine) {
      const received = await ask(`/${name}`)
      t.match(received, { status: responses[name]!.status ?? 200, isWhole: true }, name)
      t.strictSame(received.body, bodyOf(responses[name]!), name)
    }
    t.equal((await ask('/good')).headers['content-length'], '24')
    t.match(await ask('/good', { method: 'HEAD' }), { status: 200, body: Buffer.alloc(0) })
    const wrong = Object.keys(responses).filter((name) => !fine.includes(name))
    for (const name of wrong) {
      const received = await ask(`/${name}`)
      t.match(received, { status: 502, isWhole: true }, name)
      t.match(JSON.parse(received.body.toString()), { code: 'JW_RESPONSE_INVALID' }, name)
    }
    t.equal((await ask('/good')).status, 200, 'the connection serves further requests')
    t.match(await lineOf(fine.length + 2), { status: 502, error: 'JW_RESPONSE_INVALID' })
    const warnings = log.filter(({ msg }) =>
      /does not match the OpenAPI document: the client gets a 502/.test(String(msg))
    )
    t.equal(warnings.length, wrong.length)
    t.match(warnings[0], { route: 'all', pointer: '/id', detail: 'must be integer' })
    t.match(warnings[1], { pointer: '/tags/1', detail: 'must be string' })
    t.match(warnings[2], { pointer: '/secret', detail: 'is not allowed here' })
    t.notMatch(JSON.stringify(log), 'PRIVATE')
    t.strictSame(await counted('jingwei_edge_validation_responses_total'), [
      'jingwei_edge_validation_responses_total{route="all",result="valid"} 5',
      'jingwei_edge_validation_responses_total{route="all",result="unchecked"} 4',
      `jingwei_edge_validation_responses_total{route="all",result="invalid"} ${wrong.length}`
    ])
  })

  t.test(`in shadow mode all responses are passed on as they are over ${protocol}`, async (t) => {
    const { ask, log } = await checked(t, 'shadow', protocol)
    for (const [name, given] of Object.entries(responses)) {
      const received = await ask(`/${name}`)
      t.match(received, { status: given.status ?? 200, isWhole: true }, name)
      t.strictSame(received.body, bodyOf(given), name)
    }
    t.equal(
      log.filter(({ msg }) => /: it is passed on/.test(String(msg))).length,
      Object.keys(responses).length - fine.length
    )
  })
}
