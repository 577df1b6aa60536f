/** `edge.cache`: responses from memory are those of the service, byte for byte, and go to nobody else once they have expired. */
import { randomBytes } from 'node:crypto'
import t from 'tap'
import { build } from '../../../app.ts'
import { Stores } from '../../../plugins/stores.ts'
import { protocols } from '../../helpers/edge/asking-client.ts'
import { cachingGateway, respond } from '../../helpers/edge/caching.ts'
import { handshake, startWebSocketService } from '../../helpers/edge/websocket.ts'
import { eventually } from '../../helpers/eventually.ts'
import { configOf, connect, gatewayBefore, startService } from '../../helpers/gateway.ts'

const minute = { 'cache-control': 'max-age=60' }

for (const protocol of protocols) {
  t.test(`${protocol}: a stored response has the bytes and fields of the service`, async (t) => {
    const body = randomBytes(700_000)
    const { client, seen, pass } = await cachingGateway(
      t,
      (_request, response) =>
        respond(response, body, { ...minute, etag: '"a"', 'content-type': 'image/png', 'x-own': 'caf\xe9' }),
      { protocol }
    )
    const first = await client.ask('/a?b=%2F;c')
    t.match(first, { status: 200, isWhole: true })
    t.ok(first.body.equals(body))
    t.match(first.headers['cache-status'], /^jingwei; fwd=uri-miss; stored; ttl=\d+$/)
    pass(20)
    const second = await client.ask('/a?b=%2F;c')
    t.match(second, {
      status: 200,
      isWhole: true,
      headers: { 'content-type': 'image/png', 'x-own': 'caf\xe9', etag: '"a"' }
    })
    t.ok(second.body.equals(body))
    t.match(second.headers.age, /^2\d$/)
    t.equal(second.headers['content-length'], String(body.length))
    t.match(second.headers['cache-status'], /^jingwei; hit; ttl=\d+$/)
    t.equal(seen.length, 1)

    const head = await client.ask('/a?b=%2F;c', { method: 'HEAD' })
    t.match(head, { status: 200, isWhole: true, headers: { 'content-length': String(body.length) } })
    t.equal(head.body.length, 0)
    const part = await client.ask('/a?b=%2F;c', { headers: { range: 'bytes=1000-400999' } })
    t.match(part, { status: 206, isWhole: true, headers: { 'content-range': `bytes 1000-400999/${body.length}` } })
    t.ok(part.body.equals(body.subarray(1000, 401_000)))
    const end = await client.ask('/a?b=%2F;c', { headers: { range: 'bytes=-5' } })
    t.ok(end.body.equals(body.subarray(-5)))
    const beyond = await client.ask('/a?b=%2F;c', { headers: { range: 'bytes=700000-' } })
    t.match(beyond, { status: 416, headers: { 'content-range': 'bytes */700000' } })
    const other = await client.ask('/a?b=%2F;c', { headers: { range: 'bytes=0-1', 'if-range': '"b"' } })
    t.equal(other.status, 200, 'a range of another version')
    const same = await client.ask('/a?b=%2F;c', { headers: { 'if-none-match': '"x", W/"a"' } })
    t.match(same, { status: 304, isWhole: true, headers: { etag: '"a"' } })
    t.equal(same.headers['content-length'], undefined)
    t.equal(seen.length, 1)

    pass(41)
    await client.ask('/a?b=%2F;c')
    t.equal(seen.length, 2, 'it has expired')
    t.equal(seen[1]!.headers['if-none-match'], '"a"')
  })

  t.test(`${protocol}: chunked bodies of many sizes, also through onSend hooks`, async (t) => {
    for (const responsePath of ['raw', 'reply']) {
      const bodies = [0, 1, 16_384, 16_385, 65_536, 300_000].map((size) => randomBytes(size))
      const { client, seen } = await cachingGateway(
        t,
        (request, response) => {
          const body = bodies[Number(request.url!.slice(1))]!
          response.writeHead(200, minute)
          for (let at = 0; at < body.length; at += 10_000) response.write(body.subarray(at, at + 10_000))
          response.end()
        },
        { protocol, edge: { responsePath } }
      )
      for (const [index, body] of bodies.entries()) {
        for (let round = 0; round < 3; round++) {
          const given = await client.ask(`/${index}`)
          t.match(given, { status: 200, isWhole: true })
          t.ok(given.body.equals(body), `${responsePath} ${body.length} bytes, round ${round}`)
        }
      }
      t.equal(seen.length, bodies.length)
    }
  })

  t.test(`${protocol}: a slow reader of a stored response gets all of it`, async (t) => {
    const body = randomBytes(8_000_000)
    const { client, seen } = await cachingGateway(t, (_request, response) => respond(response, body, minute), {
      protocol,
      cache: { maxEntry: '10mb' }
    })
    t.ok((await client.ask('/')).body.equals(body))
    const all = await Promise.all([1, 2, 3].map(() => client.ask('/')))
    for (const each of all) t.ok(each.isWhole && each.body.equals(body))
    await client.leave('/', ({ data }) => data)
    t.ok((await client.ask('/')).body.equals(body), 'after a client has left in the middle')
    t.equal(seen.length, 1)
  })
}

t.test('what is not stored', async (t) => {
  const cases: Record<string, Record<string, string | string[]>> = {
    '/none': {},
    '/no-store': { 'cache-control': 'max-age=60, no-store' },
    '/private': { 'cache-control': 'max-age=60, private' },
    '/private-field': { 'cache-control': 'max-age=60, private="x-a"' },
    '/vary': { ...minute, vary: 'accept, *' },
    '/cookie': { ...minute, 'set-cookie': 'a=b' },
    '/quoted': { 'cache-control': 'max-age=60, x="' },
    '/trailer': { ...minute, trailer: 'x-sum' }
  }
  const { client, seen } = await cachingGateway(
    t,
    (request, response) => {
      const path = request.url!
      if (path === '/trailer') {
        response.writeHead(200, { ...cases[path]!, 'transfer-encoding': 'chunked' })
        response.write('body')
        response.addTrailers({ 'x-sum': '1' })
        response.end()
      } else if (path === '/206') respond(response, 'bo', { ...minute, 'content-range': 'bytes 0-1/4' }, 206)
      else if (path === '/cut') {
        response.writeHead(200, { ...minute, 'content-length': '100' }).write('part')
        setImmediate(() => response.destroy())
      } else if (path === '/close') {
        // Ends with the connection.
        response.socket!.end('HTTP/1.1 200 OK\r\nCache-Control: max-age=60\r\nConnection: close\r\n\r\nbody')
      } else if (path === '/large') respond(response, Buffer.alloc(3000), minute)
      else if (path === '/large-chunked') {
        response.writeHead(200, minute)
        response.write(Buffer.alloc(2000))
        response.end(Buffer.alloc(2000))
      } else respond(response, 'body', cases[path])
    },
    { cache: { maxEntry: '2kb' } }
  )
  for (const path of [...Object.keys(cases), '/206', '/cut', '/close', '/large', '/large-chunked']) {
    const before = seen.length
    const headers: Record<string, string> = path === '/206' ? { range: 'bytes=0-1' } : {}
    for (let round = 0; round < 2; round++) {
      const { headers: got } = await client.ask(path, { headers })
      t.notMatch(got['cache-status'], /hit/, path)
    }
    t.equal(seen.length - before, 2, path)
  }
})

t.test('time by status, only where the service says nothing', async (t) => {
  const { client, seen, pass } = await cachingGateway(
    t,
    (request, response) => {
      const [, status, directive] = request.url!.split('/') as [string, string, string | undefined]
      respond(response, 'x', directive === undefined ? {} : { 'cache-control': directive }, Number(status))
    },
    { cache: { ttl: { 200: '60s', 404: '5s' } } }
  )
  const fetches = async (path: string) => {
    const before = seen.length
    await client.ask(path)
    return seen.length - before
  }
  for (const path of ['/200', '/404', '/200/public']) t.equal(await fetches(path), 1)
  for (const path of ['/200', '/404', '/200/public']) t.equal(await fetches(path), 0, path)
  pass(6)
  t.equal(await fetches('/200'), 0)
  t.equal(await fetches('/404'), 1)
  for (const path of ['/500', '/200/no-cache', '/200/no-store', '/200/private', '/200/max-age=0']) {
    await fetches(path)
    t.equal(await fetches(path), 1, path)
  }
})

t.test('Vary, with a bound of variants', async (t) => {
  const { client, seen } = await cachingGateway(t, (request, response) =>
    respond(response, `for ${request.headers['accept-language']}`, { ...minute, vary: 'Accept-Language' })
  )
  const get = async (language: string) =>
    (await client.ask('/', { headers: { 'accept-language': language } })).body.toString()
  t.equal(await get('en, de'), 'for en, de')
  t.equal(await get('fr'), 'for fr')
  t.equal(await get('en,  de'), 'for en, de', 'spaces make no difference')
  t.equal(await get('fr'), 'for fr')
  t.equal(seen.length, 2)
  for (let index = 0; index < 70; index++) await get(`x-${index}`)
  t.equal(await get('x-69'), 'for x-69')
  t.equal(seen.length, 72)
  await get('fr')
  t.equal(seen.length, 73, 'the oldest variants were replaced')
})

t.test('revalidation: a 304 updates the stored header section', async (t) => {
  const { client, seen, pass } = await cachingGateway(t, (request, response, count) => {
    if (request.headers['if-none-match'] === '"v1"' && request.url === '/same')
      response.writeHead(304, { ...minute, 'x-count': String(count), 'content-length': '0' }).end()
    else respond(response, `body ${count}`, { ...minute, etag: '"v1"', 'x-count': String(count) })
  })
  await client.ask('/same')
  pass(61)
  const { status, headers, body } = await client.ask('/same', { headers: { 'if-none-match': '"other"' } })
  t.match({ status, body: body.toString() }, { status: 200, body: 'body 1' })
  t.match(headers, {
    'x-count': '2',
    'cache-status': /^jingwei; fwd=stale; fwd-status=304; stored; ttl=\d+$/,
    'content-length': '6'
  })
  t.equal(seen[1]!.headers['if-none-match'], '"v1"')
  t.match(await client.ask('/same'), { headers: { 'x-count': '2', 'cache-status': /hit/ } })
  pass(61)
  t.match(await client.ask('/same', { headers: { 'if-none-match': '"v1"' } }), { status: 304 })
  t.equal(seen.length, 3)

  await client.ask('/new')
  pass(61)
  t.equal((await client.ask('/new')).body.toString(), 'body 5')
  pass(61)
  const unchanged = await client.ask('/new', { headers: { 'if-none-match': '"v1"' } })
  t.match(unchanged, { status: 304, isWhole: true }, 'the new response has the tag of the client')
  t.match(await client.ask('/new'), { headers: { 'cache-status': /hit/ } })
})

t.test('stale responses while the service is asked, and if it fails', async (t) => {
  let mode = 'up'
  const { client, seen, pass } = await cachingGateway(
    t,
    (_request, response, count) => {
      if (mode === 'down') response.destroy()
      else if (mode === '503') respond(response, 'no', {}, 503)
      else respond(response, `v${count}`, { 'cache-control': 'max-age=10, stale-while-revalidate=10' })
    },
    { cache: { staleIfError: '100s' }, more: { mesh: { retry: false } } }
  )
  t.equal((await client.ask('/')).body.toString(), 'v1')
  pass(11)
  t.match(await client.ask('/'), { body: Buffer.from('v1'), headers: { 'cache-status': /^jingwei; hit; ttl=-\d+$/ } })
  await eventually(async () => (await client.ask('/')).body.toString() === 'v2')
  t.equal(seen.length, 2)
  mode = '503'
  pass(30)
  t.match(await client.ask('/'), {
    status: 200,
    body: Buffer.from('v2'),
    headers: { 'cache-status': 'jingwei; fwd=stale; fwd-status=503' }
  })
  mode = 'down'
  t.match(await client.ask('/'), {
    status: 200,
    body: Buffer.from('v2'),
    headers: { 'cache-status': 'jingwei; fwd=stale' }
  })
  pass(100)
  t.equal((await client.ask('/')).status, 502)
})

t.test('requests direct the cache, unless the options say otherwise', async (t) => {
  for (const requestDirectives of ['obey', 'ignore']) {
    const { client, seen } = await cachingGateway(t, (_request, response) => respond(response, 'x', minute), {
      cache: { requestDirectives }
    })
    const ask = (directive: string) => client.ask('/', { headers: { 'cache-control': directive } })
    t.match(await ask('only-if-cached'), { status: 504, body: /JW_NOT_CACHED/ })
    await ask('no-store')
    const [first, most] = requestDirectives === 'obey' ? [2, 4] : [1, 1]
    await ask('max-age=100')
    t.equal(seen.length, first)
    t.match(await ask('only-if-cached'), { status: 200 })
    await ask('no-cache')
    await ask('min-fresh=100')
    t.equal(seen.length, most)
  }
})

t.test('an unsafe method invalidates its URI and those that the response names', async (t) => {
  const { client, seen, port } = await cachingGateway(t, (request, response) => {
    if (request.method === 'GET') respond(response, 'x', minute)
    else if (request.url === '/fails') respond(response, 'x', {}, 500)
    else respond(response, 'x', { location: '/other', 'content-location': `http://127.0.0.1:${port}/third` })
  })
  const paths = ['/one', '/other', '/third', '/fails', '/away']
  for (const path of paths) await client.ask(path)
  await client.ask('/one', { method: 'POST', body: 'x' })
  await client.ask('/fails', { method: 'DELETE' })
  const before = seen.length
  for (const path of paths) await client.ask(path)
  t.strictSame(
    seen.slice(before).map(({ url }) => url),
    ['/one', '/other', '/third']
  )
})

t.test('a response that was requested before an invalidation is not stored', async (t) => {
  let finish = () => {}
  const { client, seen } = await cachingGateway(t, (request, response, count) => {
    const end = () => respond(response, `v${count}`, minute)
    if (count === 1 && request.method === 'GET') finish = end
    else end()
  })
  const first = client.ask('/')
  await eventually(() => seen.length === 1)
  await client.ask('/', { method: 'PUT', body: 'x' })
  finish()
  t.equal((await first).body.toString(), 'v1')
  t.equal((await client.ask('/')).body.toString(), 'v3')
})

t.test('memory has a bound, and metrics and the log tell of the cache', async (t) => {
  const { client, seen, metrics, logged } = await cachingGateway(
    t,
    (_request, response) => respond(response, Buffer.alloc(20_000), minute),
    { cache: { maxSize: '100kb', maxEntry: '25kb' } }
  )
  for (let index = 0; index < 20; index++) await client.ask(`/${index}`)
  await client.ask('/19')
  await client.ask('/0')
  t.equal(seen.length, 21)
  const text = await metrics()
  const value = (name: string) => Number(text.match(new RegExp(`^${name.replace(/[{}"]/g, '\\$&')} (\\d+)$`, 'm'))?.[1])
  t.ok(value('jingwei_edge_cache_bytes{route="all"}') <= 100 * 1024)
  t.equal(value('jingwei_edge_cache_entries{route="all"}'), 4)
  t.equal(value('jingwei_edge_cache_evictions_total{route="all"}'), 17)
  t.equal(value('jingwei_edge_cache_requests_total{route="all",result="hit"}'), 1)
  t.equal(value('jingwei_edge_cache_requests_total{route="all",result="miss"}'), 21)
  await eventually(() => logged.some(({ answeredBy }) => answeredBy === 'cache'))
})

t.test('tags and Cache-Status as the options say', async (t) => {
  const handler = (_request: unknown, response: Parameters<typeof respond>[0]) =>
    respond(response, 'x', { ...minute, 'surrogate-key': 'a b', 'cache-tag': 'c', 'cache-status': 'other; hit' })
  const kept = await cachingGateway(t, handler, { cache: { cacheStatus: 'key' } })
  for (const how of [
    /^other; hit, jingwei; fwd=uri-miss; stored; ttl=\d+; key="[\w-]{43}"$/,
    /^other; hit, jingwei; hit; ttl=\d+; key="/
  ])
    t.match(await kept.client.ask('/'), { headers: { 'cache-status': how, 'surrogate-key': 'a b' } })
  const removed = await cachingGateway(t, handler, { cache: { cacheStatus: 'off', keepTags: false } })
  for (let round = 0; round < 2; round++) {
    const { headers } = await removed.client.ask('/')
    t.equal(headers['cache-status'], 'other; hit')
    t.equal(headers['surrogate-key'] ?? headers['cache-tag'], undefined)
  }
})

t.test('a WebSocket passes a route with a cache', async (t) => {
  const service = await startWebSocketService()
  t.teardown(service.close)
  const gateway = await gatewayBefore(t, service.url, { edge: { cache: {} } })
  const client = connect(gateway.port, handshake('/'))
  t.match(await client.until('\r\n\r\n'), /^HTTP\/1.1 101 /)
  client.socket.destroy()
})

t.test('a new generation of the gateway has the responses of the one before', async (t) => {
  const service = await startService((_request, response) => respond(response, 'x', minute))
  t.teardown(service.close)
  const stores = new Stores()
  const config = configOf({
    admin: { port: 0 },
    services: { any: { instances: [service.url] } },
    routes: [{ name: 'all', match: { path: '/' }, service: 'any' }],
    edge: { cache: {} }
  })
  const start = async () => {
    const server = build(config, { logger: false, stores })
    t.teardown(() => server.close())
    await server.ready()
    return server
  }
  const first = await start()
  await first.inject('/')
  const second = await start()
  await first.close()
  const { body } = await second.admin!.inject('/admin/cache')
  t.match(JSON.parse(body), { stores: [{ routes: [{ route: 'all', entries: 1 }] }] })
})
