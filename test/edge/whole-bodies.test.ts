// slow: takes about 40 s
/** Concerns that read bodies as a whole: the memory that they share, and clients that leave within a body. */
import { join } from 'node:path'
import { gunzipSync, gzipSync } from 'node:zlib'
import type { Test } from 'tap'
import t from 'tap'
import type { Protocol } from '../helpers/edge/asking-client.ts'
import { anyClient, listenFor, protocols } from '../helpers/edge/asking-client.ts'
import { eventually } from '../helpers/eventually.ts'
import { startGateway, startService } from '../helpers/gateway.ts'
import { folder } from '../helpers/plugins.ts'

const megabyte = 1024 * 1024
const json = { 'content-type': 'application/json' }
const post = { method: 'POST', headers: json } as const

interface Running {
  protocol: Protocol
  mode: 'enforce' | 'shadow'
}

/** The options of each concern that reads request bodies, by the name that the access line has. */
const concerns: Record<string, (url: string) => { edge: object; reason?: string; path?: string }> = {
  body: () => ({ edge: { body: { maxSize: '16mb', request: { remove: ['/x'] } } }, reason: 'body_busy' }),
  validation: () => ({
    edge: { validation: { maxBody: '16mb', body: { content: { 'application/json': {} } } } },
    reason: 'validation_busy'
  }),
  graphql: () => ({ edge: { graphql: { maxBody: '16mb' } }, reason: 'graphql_busy' }),
  'forward-auth': (url) => ({ edge: { forwardAuth: { url, forwardBody: true, maxBodySize: '16mb' } } })
}

/** Starts a gateway whose service stores the bodies that it gets whole, and responds with as much as the path says. */
async function start(t: Test, concern: string, { protocol, mode }: Running, more: object = {}) {
  const got: Buffer[] = []
  let calls = 0
  const service = await startService((request, response) => {
    if (!request.url!.startsWith('/check')) calls++
    const chunks: Buffer[] = []
    request.on('error', () => {}).on('data', (chunk: Buffer) => chunks.push(chunk))
    request.on('end', () => {
      if (!request.url!.startsWith('/check')) got.push(Buffer.concat(chunks))
      const size = Number(new URL(request.url!, 'http://s').searchParams.get('size') ?? 2)
      const body = size === 2 ? Buffer.from('{}') : Buffer.from(JSON.stringify('x'.repeat(size - 2)))
      const isPacked = request.url!.includes('packed')
      response.writeHead(200, { ...json, ...(isPacked && { 'content-encoding': 'gzip' }) })
      response.end(isPacked ? gzipSync(body) : body)
    })
  })
  t.teardown(service.close)
  const { edge, reason } = concerns[concern]!(`${service.url}/check`)
  const options = Object.entries(edge).map(([key, value]) => [key, { ...(value as object), mode }])
  const gateway = await startGateway(
    {
      listen: listenFor(t, protocol),
      services: { any: { instances: [service.url] } },
      routes: [
        {
          name: 'all',
          match: { path: '/' },
          service: 'any',
          edge: { ...Object.fromEntries(options), ...more, bodyLimit: false }
        }
      ]
    },
    { log: true }
  )
  t.teardown(gateway.close)
  const text = () => gateway.server.metrics.metrics()
  const used = async () => Number(/^jingwei_edge_body_memory_bytes (\d+)/m.exec(await text())![1])
  const lines = () => gateway.log.filter(({ msg }) => msg === 'request')
  return { ...anyClient(t, protocol, gateway.port), got, calls: () => calls, used, lines, text, reason, gateway }
}

const query = (size: number) => `{"query":"{a}","x":"${'x'.repeat(size)}"}`

for (const concern of Object.keys(concerns)) {
  for (const protocol of protocols) {
    t.test(`the memory of bodies for ${concern} over ${protocol}`, async (t) => {
      const { ask, begin, used, lines, reason, got } = await start(t, concern, { protocol, mode: 'enforce' })
      const calls = Array.from({ length: 4 }, () => begin('/', { ...post, streams: true }))
      for (const call of calls) for (let sent = 0; sent < 15; sent++) call.send('x'.repeat(megabyte))
      await eventually(async () => (await used()) === 60 * megabyte, 'the bodies to arrive')
      const busy = await ask('/', { ...post, body: query(5 * megabyte) })
      t.same([busy.status, busy.headers['retry-after']], [503, '1'])
      t.match(busy.body.toString(), 'JW_BODY_BUSY')
      await eventually(() => lines().length === 1)
      t.match(lines()[0], { status: 503, error: 'JW_BODY_BUSY', ...(reason !== undefined && { reason }) })
      t.equal((await ask('/', { ...post, body: query(1) })).status, 200, 'a small body')
      t.equal(got.length, 1)
      for (const call of calls) await call.leave()
      await eventually(async () => (await used()) === 0, 'the memory to be free')
      t.equal((await ask('/', { ...post, body: query(5 * megabyte) })).status, 200)
      t.equal(got.length, 2)
      await eventually(async () => (await used()) === 0, 'the memory of a complete request to be free')
    })

    t.test(`a client that leaves within a body for ${concern} over ${protocol}`, async (t) => {
      for (const mode of ['enforce', 'shadow'] as const) {
        const { ask, begin, used, calls, lines, text, gateway } = await start(t, concern, { protocol, mode })
        // The beginning is a body of its own that passes.
        for (const beginning of ['{"query":"{a}"}', '{"query":']) {
          const call = begin('/', { ...post, streams: true })
          call.send(beginning)
          await eventually(async () => (await used()) === beginning.length, 'the body to arrive')
          await call.leave()
          await eventually(async () => (await used()) === 0, 'the request to end')
        }
        await eventually(() => lines().length === 2)
        for (const line of lines()) {
          t.match(line, { status: 499, error: 'JW_CLIENT_GONE' })
          t.notMatch(line, { shadow: [] })
          t.equal(line.reason, undefined)
        }
        t.equal(calls(), 0, 'no service was called')
        const counted = (await text()).match(/^jingwei_edge_(\w+_refused|\w*refusals|changed_bodies)_total\{.* [1-9]/gm)
        t.equal(counted, null)
        t.notOk(gateway.log.some(({ level }) => Number(level) >= 50))
        t.equal((await ask('/', { ...post, body: query(1) })).status, 200)
      }
    })
  }

  t.test(`${concern} in shadow mode passes on bodies for which there is no memory`, async (t) => {
    const { ask, begin, used, lines, reason, got } = await start(t, concern, { protocol: 'HTTP/2', mode: 'shadow' })
    const calls = Array.from({ length: 4 }, () => begin('/', { ...post, streams: true }))
    for (const call of calls) for (let sent = 0; sent < 15; sent++) call.send('x'.repeat(megabyte))
    await eventually(async () => (await used()) === 60 * megabyte, 'the bodies to arrive')
    const large = query(5 * megabyte)
    t.equal((await ask('/', { ...post, body: large })).status, 200)
    t.ok(got[0]!.equals(Buffer.from(large)), 'the service got each byte')
    await eventually(() => lines().length === 1)
    t.match(lines()[0], { shadow: [{ concern, error: 'JW_BODY_BUSY', ...(reason !== undefined && { reason }) }] })
    for (const call of calls) await call.leave()
    await eventually(async () => (await used()) === 0, 'the memory to be free')
  })
}

t.test('a body that several concerns read counts once', async (t) => {
  const more = { ...concerns.graphql!('').edge, ...concerns.body!('').edge }
  const { begin, used, got } = await start(t, 'validation', { protocol: 'HTTP/1.1', mode: 'enforce' }, more)
  let most = 0
  const call = begin('/?size=3000000', { ...post, streams: true })
  const body = query(megabyte)
  call.send(body)
  await eventually(async () => (await used()) === body.length)
  call.end()
  await eventually(async () => {
    most = Math.max(most, await used())
    return got.length === 1
  })
  t.equal((await call.response).status, 200)
  t.equal(got[0]!.toString(), '{"query":"{a}"}')
  t.equal(most, body.length)
})

t.test('a malformed content coding ends the request, whichever concern reads the body', async (t) => {
  for (const concern of Object.keys(concerns)) {
    if (concern === 'forward-auth') continue
    for (const protocol of protocols) {
      for (const mode of ['enforce', 'shadow'] as const) {
        const { ask, got, gateway } = await start(t, concern, { protocol, mode }, { decompression: {} })
        for (const body of [gzipSync(query(100)).subarray(0, -9), Buffer.from('no gzip')]) {
          const { status, body: text } = await ask('/', {
            ...post,
            headers: { ...json, 'content-encoding': 'gzip' },
            body
          })
          t.equal(status, 400, `${concern}, ${protocol}, ${mode}`)
          t.match(text.toString(), 'JW_BAD_ENCODING')
        }
        t.equal(got.length, 0)
        t.notOk(gateway.log.some(({ level }) => Number(level) >= 50))
        const whole = { ...post, headers: { ...json, 'content-encoding': 'gzip' }, body: gzipSync(query(100)) }
        t.equal((await ask('/', whole)).status, 200)
        t.match(got[0]!.toString(), /^\{"query":"\{a\}"/, 'the service gets the plain body')
      }
    }
  }
})

/** Errors for which a client need not send the rest of its body. */
const early: [name: string, status: number, edge: object, headers: object, chunk: Buffer][] = [
  ['a body above bodyLimit', 413, { bodyLimit: '1kb' }, {}, Buffer.alloc(2000)],
  ['a malformed coding', 400, { decompression: {} }, { 'content-encoding': 'gzip' }, Buffer.from('no gzip')],
  [
    'a malformed coding of a body that is validated',
    400,
    { decompression: {}, validation: { body: { content: { 'application/json': {} } } } },
    { 'content-encoding': 'br' },
    Buffer.from('no br')
  ],
  ['a body above body.maxSize', 413, { body: { maxSize: '1kb', request: { remove: ['/x'] } } }, {}, Buffer.alloc(2000)],
  [
    'a body above forwardAuth.maxBodySize',
    413,
    { forwardAuth: { url: 'http://127.0.0.1:9', forwardBody: true, maxBodySize: '1kb' } },
    {},
    Buffer.alloc(2000)
  ]
]

for (const protocol of protocols) {
  t.test(`the client need not send the rest of a refused body over ${protocol}`, async (t) => {
    // Before the end of the request, a response would take the place of the refusal.
    const service = await startService((request, response) => {
      request.on('error', () => {}).resume()
      request.on('end', () => response.end())
    })
    t.teardown(service.close)
    const gateway = await startGateway({
      // Longer than the test may take.
      listen: { ...listenFor(t, protocol), timeouts: { bodyIdle: '10m', body: '20m' } },
      services: { any: { instances: [service.url] } },
      routes: early.map(([, , edge], index) => ({
        name: `early-${index}`,
        match: { path: `/${index}` },
        service: 'any',
        edge
      }))
    })
    t.teardown(gateway.close)
    const { begin, ask } = anyClient(t, protocol, gateway.port)
    for (const [index, [name, status, , headers, chunk]] of early.entries()) {
      const fields = { ...json, ...headers, ...(protocol !== 'HTTP/2' && { connection: 'keep-alive' }) }
      const call = begin(`/${index}`, { method: 'POST', headers: fields, streams: true })
      call.send(chunk)
      const response = await call.response
      t.match(response, { status, isWhole: true }, name)
      if (protocol !== 'HTTP/2') t.equal(response.headers.connection, 'close')
    }
    const { status } = await ask('/0', { ...post, body: 'x'.repeat(1000) })
    t.equal(status, 200, 'the connection serves further requests')
  })
}

for (const protocol of protocols) {
  t.test(`responses that are validated count in the memory of bodies over ${protocol}`, async (t) => {
    const document = {
      openapi: '3.1.0',
      paths: {
        '/': {
          get: { responses: { 200: { content: { 'application/json': { schema: { type: ['string', 'object'] } } } } } },
          post: { requestBody: { content: { 'application/json': { schema: {} } } }, responses: { 200: {} } }
        }
      }
    }
    const openapi = join(await folder(t, { 'api.json': JSON.stringify(document) }), 'api.json')
    for (const responses of ['enforce', 'shadow'] as const) {
      concerns.openapi = () => ({
        edge: { validation: { openapi, responses, maxBody: '16mb', maxResponse: '16mb' } },
        reason: 'validation_busy'
      })
      const { ask, begin, used, lines, text } = await start(t, 'openapi', { protocol, mode: 'enforce' })
      const calls = Array.from({ length: 4 }, () => begin('/', { ...post, streams: true }))
      for (const call of calls) for (let sent = 0; sent < 15; sent++) call.send('x'.repeat(megabyte))
      await eventually(async () => (await used()) === 60 * megabyte, 'the bodies to arrive')
      for (const path of ['/?size=5000000', '/?packed&size=5000000']) {
        const { status, headers, body, isWhole } = await ask(path)
        t.ok(isWhole)
        if (responses === 'enforce') {
          t.same([status, headers['retry-after']], [503, '1'])
          t.match(body.toString(), 'JW_BODY_BUSY')
          await eventually(() => lines().length > 0)
          t.match(lines().at(-1), { error: 'JW_BODY_BUSY', reason: 'validation_busy' })
        } else {
          t.equal(status, 200)
          const plain = path.includes('packed') ? gunzipSync(body) : body
          t.equal(plain.length, 5_000_000)
        }
      }
      t.equal((await ask('/')).status, 200, 'a small response')
      t.match(await text(), /validation_responses_total\{route="all",result="unchecked"\} 2\n/)
      for (const call of calls) await call.leave()
      await eventually(async () => (await used()) === 0, 'the memory to be free')
      t.equal((await ask('/?size=5000000')).status, 200)
      await eventually(async () => (await used()) === 0, 'the memory of a complete response to be free')
    }
  })
}

/** Hooks of a plugin before the concern: none, one that takes time, and one that watches the stream. */
const hooks = {
  none: '',
  late: "fastify.addHook('onSend', async (_request, _reply, payload) => (await new Promise((resolve) => setTimeout(resolve, 30)), payload))",
  watching: `fastify.addHook('onSend', async (_request, reply, payload) => {
    payload.on?.('end', () => reply.log.info('the stream has ended'))
    return payload
  })`
}

for (const protocol of protocols) {
  for (const [name, hook] of Object.entries(hooks)) {
    t.test(`responses are read as a whole after the hook "${name}" over ${protocol}`, async (t) => {
      const plugin = `export default Object.assign(async (fastify) => { ${hook} }, { [Symbol.for('skip-override')]: true })`
      const path = join(await folder(t, { 'plugin.mjs': plugin }), 'plugin.mjs')
      const service = await startService((request, response) => {
        const { pathname, searchParams } = new URL(request.url!, 'http://s')
        const body = JSON.stringify('x'.repeat(Number(searchParams.get('size') ?? 0)))
        response.writeHead(200, json)
        if (pathname === '/empty') response.end()
        else if (pathname === '/reset') response.write(body, () => setTimeout(() => response.destroy(), 50))
        else if (pathname === '/slow') response.write(body)
        else for (let at = 0; at < body.length; at += 1000) response.write(body.slice(at, at + 1000))
        if (pathname === '/') response.end()
      })
      t.teardown(service.close)
      const gateway = await startGateway(
        {
          listen: listenFor(t, protocol),
          services: { any: { instances: [service.url] } },
          routes: [
            {
              name: 'all',
              match: { path: '/' },
              service: 'any',
              edge: { body: { maxSize: '200kb', response: { types: ['*/*'], remove: ['/x'] } } }
            }
          ],
          ...(hook !== '' && { plugins: [{ path }] })
        },
        { log: true }
      )
      t.teardown(gateway.close)
      const { ask, begin } = anyClient(t, protocol, gateway.port)
      for (const size of [0, 15, 999, 5000, 100_000]) {
        const { status, body, isWhole } = await ask(`/?size=${size}`)
        t.same([status, isWhole], [200, true])
        t.equal(body.toString(), JSON.stringify('x'.repeat(size)), `${size} bytes`)
      }
      t.match(await ask('/empty'), { status: 200, isWhole: true, body: Buffer.alloc(0) })
      t.equal((await ask('/?size=300000')).status, 502, 'a body above the limit')
      t.match(await ask('/reset?size=5000'), { status: 502, isWhole: true }, 'a body that is cut off')
      const used = async () =>
        Number(/^jingwei_edge_body_memory_bytes (\d+)/m.exec(await gateway.server.metrics.metrics())![1])
      const call = begin('/slow?size=5000')
      await eventually(async () => (await used()) === 5002, 'the beginning of the response')
      await call.leave()
      await eventually(async () => (await used()) === 0, 'the request to end')
      t.equal((await ask('/?size=15')).status, 200)
      if (name === 'watching') t.ok(gateway.log.some(({ msg }) => msg === 'the stream has ended'))
      t.same(
        gateway.log.filter(({ level }) => Number(level) >= 50),
        []
      )
    })
  }
}
