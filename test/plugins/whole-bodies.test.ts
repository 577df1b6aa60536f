/** Plugins that read bodies as a whole: the example body-guard.ts, and the functions that it uses. */
import { join } from 'node:path'
import { gzipSync } from 'node:zlib'
import type { FastifyInstance } from 'fastify'
import type { Test } from 'tap'
import t from 'tap'
import { askForWholeResponse, readRequestBody, readResponseBody, replaceRequestBody } from '../../plugins/plugin-api.ts'
import type { Protocol } from '../helpers/edge/asking-client.ts'
import { anyClient, listenFor, protocols } from '../helpers/edge/asking-client.ts'
import { eventually } from '../helpers/eventually.ts'
import { raw, startGateway, startService } from '../helpers/gateway.ts'

const example = join(import.meta.dirname, '../../config/examples/body-guard.ts')

/** A service that responds with the body of the request, or as the query says. */
async function startEchoOfBodies(t: Test) {
  const seen: { body: string; headers: Record<string, unknown>; trailers: Record<string, unknown> }[] = []
  const service = await startService(async (request, response) => {
    const chunks: Buffer[] = []
    request.on('error', () => {})
    for await (const chunk of request) chunks.push(chunk as Buffer)
    const body = Buffer.concat(chunks)
    seen.push({ body: body.toString(), headers: request.headers, trailers: request.trailers })
    const { searchParams } = new URL(request.url!, 'http://s')
    const says = searchParams.get('says')
    const plain = says === null ? body : Buffer.from(says.repeat(Number(searchParams.get('times') ?? 1)))
    const isCoded = searchParams.has('gzip')
    response.statusCode = Number(searchParams.get('status') ?? 200)
    response.setHeader('etag', '"v1"')
    response.setHeader('digest', 'x')
    if (isCoded) response.setHeader('content-encoding', 'gzip')
    if (response.statusCode === 204) response.end()
    else response.end(isCoded ? gzipSync(plain) : plain)
  })
  t.teardown(service.close)
  return { url: service.url, seen }
}

for (const protocol of protocols) {
  t.test(`the example refuses bodies with its words over ${protocol}`, async (t) => {
    const { url, seen } = await startEchoOfBodies(t)
    const gateway = await startGateway({
      listen: listenFor(t, protocol as Protocol),
      services: { llm: { instances: [url] } },
      routes: [
        { name: 'llm', match: { path: '/llm' }, service: 'llm', plugins: ['body-guard'] },
        { name: 'open', match: { path: '/open' }, service: 'llm' }
      ],
      plugins: [{ path: example, scope: 'routes', options: { words: ['secret'] } }]
    })
    t.teardown(gateway.close)
    const { ask, begin } = anyClient(t, protocol, gateway.port)
    const post = async (path: string, body: string | Buffer) => {
      const response = await ask(path, {
        method: 'POST',
        body,
        headers: { 'content-type': 'application/json', range: 'bytes=0-1', 'accept-encoding': 'gzip' }
      })
      return { ...response, text: response.body.toString() }
    }
    const prompt = '{"prompt":"hello é","n":12345678901234567890}'
    const passed = await post('/llm', prompt)
    t.same([passed.status, passed.text, seen.at(-1)!.body, passed.isWhole], [200, prompt, prompt, true])
    t.equal(seen.at(-1)!.headers['content-length'], String(Buffer.byteLength(prompt)))
    t.equal(seen.at(-1)!.headers['accept-encoding'], 'identity')
    t.notOk('range' in seen.at(-1)!.headers)
    t.equal(passed.headers.digest, 'x', 'the bytes are those of the service')

    const before = seen.length
    for (const body of ['{"prompt":"a secret"}', '{"prompt":"a s\\u0065cret"}', 'a secret']) {
      const refused = await post('/llm', body)
      t.match(JSON.parse(refused.text), { statusCode: 400, message: 'The body is refused' }, body)
    }
    t.equal(seen.length, before, 'the service gets none of them')
    t.equal((await post('/open', 'a secret')).status, 200)
    t.equal((await post('/llm', 'x'.repeat(1024 * 1024 + 1))).status, 413)
    t.equal((await post('/llm', prompt)).status, 200, 'the gateway goes on')

    for (const query of [
      'says=a+secret',
      'says=a+secret&gzip',
      'says=a+secret&status=404',
      'says={"a":"s\\u0065cret"}'
    ]) {
      const refused = await post(`/llm?${query}`, '{}')
      t.match(JSON.parse(refused.text), { statusCode: 502, message: 'The body is refused' }, query)
      t.notOk('etag' in refused.headers, query)
    }
    const coded = await post('/llm?says=fine&gzip', '{}')
    t.same([coded.status, coded.text, coded.headers.etag], [200, 'fine', 'W/"v1"'])
    t.notOk('digest' in coded.headers)
    t.equal((await post('/llm?says=fine&status=206', '{}')).status, 502)
    t.equal((await post('/llm?says=12345678&times=200000', '{}')).status, 502)
    t.equal((await post('/llm?says=12345678&times=200000&gzip', '{}')).status, 502)
    t.match(await ask('/llm?status=204'), { status: 204, isWhole: true })
    t.match(await ask('/llm', { method: 'HEAD' }), { status: 200, isWhole: true })
    const streamed = begin('/llm', { method: 'POST', streams: true })
    streamed.send('abc')
    streamed.send('def')
    streamed.end()
    t.equal((await streamed.response).body.toString(), 'abcdef')

    const used = async () =>
      Number(/^jingwei_edge_body_memory_bytes (\d+)/m.exec(await gateway.server.metrics.metrics())?.[1])
    const leaving = begin('/llm', { method: 'POST', streams: true })
    leaving.send('abc')
    await eventually(async () => (await used()) === 3)
    await leaving.leave()
    await eventually(async () => (await used()) === 0)
  })
}

t.test('own routes, trailers, bodies that are too large or not there yet', async (t) => {
  const { url, seen } = await startEchoOfBodies(t)
  const read: string[] = []
  const plugin = async (fastify: FastifyInstance) => {
    fastify.addHook('preHandler', async (request, reply) => {
      askForWholeResponse(request)
      const maxSize = request.headers['x-small'] === undefined ? 1000 : 3
      try {
        read.push((await readRequestBody(request, reply, { maxSize })).toString())
      } catch (error) {
        if (request.headers['x-small'] !== 'pass') throw error
        read.push((error as { code: string }).code)
      }
      if (request.headers['x-twice'] !== undefined)
        read.push((await readRequestBody(request, reply, { maxSize })).toString())
    })
    fastify.addHook('preHandler', async (request) => {
      if (request.headers['x-other'] !== undefined) replaceRequestBody(request, 'other é')
    })
    fastify.addHook('onRequest', async (request, reply) => {
      if (request.headers['x-early'] !== undefined) await readRequestBody(request, reply, { maxSize: 10 })
    })
    fastify.addHook('onSend', async (_request, reply, payload) => {
      const body = await readResponseBody(reply, payload, { maxSize: 1000 })
      return body === null ? payload : `${body.toString()}!`
    })
    fastify.post('/own', async ({ body }) => ({ got: body }))
    fastify.get('/own/object', async () => new Response('text'))
  }
  const gateway = await startGateway(
    {
      services: { any: { instances: [url] } },
      routes: [{ name: 'all', match: { path: '/' }, service: 'any' }]
    },
    { before: (server) => void server.register(Object.assign(plugin, { [Symbol.for('skip-override')]: true })) }
  )
  t.teardown(gateway.close)
  const { ask } = anyClient(t, 'HTTP/1.1', gateway.port)
  const post = async (path: string, body: string, headers: Record<string, string> = {}) => {
    const response = await ask(path, {
      method: 'POST',
      body,
      headers: { 'content-type': 'application/json', ...headers }
    })
    return [response.status, response.body.toString()]
  }
  t.same(await post('/own', '{"a": 1}'), [200, '{"got":{"a":1}}!'])
  t.equal(read.at(-1), '{"a":1}')
  t.same(await post('/', 'abcdef', { 'x-twice': '1' }), [200, 'abcdef!'])
  t.same(read.slice(-2), ['abcdef', 'abcdef'])
  t.equal((await post('/', 'abcdef', { 'x-small': 'yes' }))[0], 413)
  t.same(await post('/', 'abcdef', { 'x-small': 'pass' }), [200, 'abcdef!'], 'it may be passed on')
  t.equal(read.at(-1), 'JW_BODY_TOO_LARGE')
  t.equal((await post('/', 'abcdef', { 'x-early': '1' }))[0], 500)
  t.same(await post('/', 'abcdef', { 'x-other': '1', 'content-digest': 'x' }), [200, 'other é!'])
  t.match(seen.at(-1)!.headers, { 'content-length': '8', 'content-digest': undefined })
  t.equal((await ask('/own/object')).body.toString(), 'text!')
  t.equal((await ask('/')).body.toString(), '!')
  const head = 'POST / HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\ntrailer: x-a\r\nconnection: close\r\n\r\n'
  await raw(gateway.port, `${head}3\r\nabc\r\n0\r\nx-a: 1\r\n\r\n`)
  t.match(seen.at(-1), { body: 'abc', trailers: { 'x-a': '1' } })
})
