// slow: starts Redis
/** `edge.cache` with `store: redis`: all nodes share the responses, and no request depends on Redis. */
import { createHash } from 'node:crypto'
import type { IncomingMessage, ServerResponse } from 'node:http'
import { setTimeout as sleep } from 'node:timers/promises'
import { Redis } from 'ioredis'
import type { Test } from 'tap'
import t from 'tap'
import { decoded, encoded } from '../../../plugins/edge/concerns/cache/redis-values.ts'
import { protocols } from '../../helpers/edge/asking-client.ts'
import type { Caching, CachingOptions } from '../../helpers/edge/caching.ts'
import { cachingNodes, respond } from '../../helpers/edge/caching.ts'
import { eventually } from '../../helpers/eventually.ts'
import { startRedis } from '../../helpers/redis.ts'

type Handler = (request: IncomingMessage, response: ServerResponse, count: number) => unknown

/** Starts Redis and a service, and returns a function that starts nodes which share them. */
async function cluster(t: Test, handler: Handler, timeout = '2s') {
  const redis = await startRedis()
  t.teardown(() => redis.stop())
  const client = new Redis(redis.url)
  client.on('error', () => {})
  t.teardown(() => client.disconnect())
  const startNode = await cachingNodes(t, handler)
  const start = async ({
    cache = {},
    more = {},
    consumers,
    ...options
  }: CachingOptions & { consumers?: object[] } = {}): Promise<Caching> => {
    const node = await startNode({
      ...options,
      listen: { trustProxy: ['127.0.0.1'] },
      cache: { store: 'redis', ...cache },
      // Long by default, so that a busy machine is not taken for an outage.
      more: { redis: { url: redis.url, timeout }, ...(consumers && { consumers }), ...more }
    })
    await isUp(node, true)
    // One name and port for all nodes, as behind a load balancer.
    const name = options.protocol === 'HTTP/2' ? ':authority' : 'host'
    const ask: Caching['client']['ask'] = (path, given = {}) =>
      node.client.ask(path, {
        ...given,
        headers: { [name]: 'api.example', 'x-forwarded-port': '443', ...given.headers }
      })
    return { ...node, client: { ...node.client, ask } }
  }
  return { redis, client, start }
}

const isUp = (node: Caching, expected: boolean) =>
  eventually(async () => (await node.metrics()).includes(`jingwei_edge_cache_redis_up ${expected ? 1 : 0}`))

async function counted({ metrics }: Caching, command: string, result: string): Promise<number> {
  const series = `jingwei_edge_cache_redis_commands_total{command="${command}",result="${result}"} `
  const line = (await metrics()).split('\n').find((each) => each.startsWith(series))
  return Number(line?.slice(series.length) ?? Number.NaN)
}

const bytes = Buffer.from(Array.from({ length: 200_000 }, (_, i) => (i * 7 + (i >> 8)) & 255))

for (const protocol of protocols) {
  t.test(`${protocol}: a response of one node reaches the clients of the others, byte for byte`, async (t) => {
    const { start } = await cluster(t, (_request, response) =>
      respond(response, bytes, { 'cache-control': 'max-age=60', etag: '"a"', 'x-list': ['a', 'b'], server: 'caf\xe9' })
    )
    const [one, two] = [await start({ protocol }), await start({ protocol })]
    const first = await one.client.ask('/')
    t.match(first.headers['cache-status'], /^jingwei; fwd=uri-miss; stored; ttl=\d+$/)
    await eventually(async () => (await counted(one, 'store', 'ok')) === 1)
    for (const node of [one, two]) {
      const given = await node.client.ask('/')
      t.match(given.headers['cache-status'], /^jingwei; hit; ttl=\d+$/)
      t.ok(given.isWhole)
      t.ok(given.body.equals(bytes))
      t.equal(given.headers['x-list'], first.headers['x-list'])
      t.equal(given.headers.server, first.headers.server)
      const part = await node.client.ask('/', { headers: { range: 'bytes=1000-1999' } })
      t.equal(part.status, 206)
      t.ok(part.body.equals(bytes.subarray(1000, 2000)))
      t.equal((await node.client.ask('/', { headers: { 'if-none-match': '"a"' } })).status, 304)
      const head = await node.client.ask('/', { method: 'HEAD' })
      t.equal(head.headers['content-length'], '200000')
      t.equal(head.body.length, 0)
    }
    t.equal(one.seen.length, 1)
  })
}

t.test('a lookup takes one round trip, whatever is stored', async (t) => {
  const { start, client } = await cluster(t, (_request, response) =>
    respond(response, 'x', { 'cache-control': 'max-age=60', vary: 'accept-language, user-agent' })
  )
  const node = await start()
  const scripts = async () => {
    const calls = [...(await client.info('commandstats')).matchAll(/cmdstat_eval(?:sha)?:calls=(\d+)/g)]
    return calls.reduce((sum, [, count]) => sum + Number(count), 0)
  }
  await node.client.ask('/')
  await eventually(async () => (await counted(node, 'store', 'ok')) === 1)
  const before = await scripts()
  for (let round = 0; round < 20; round++) await node.client.ask('/')
  t.equal(await scripts(), before + 20)
  t.equal(node.seen.length, 1)
  await client.script('FLUSH')
  await node.client.ask('/')
  t.equal(node.seen.length, 1, 'a script that Redis has forgotten is loaded again')
})

t.test('variants and callers are kept apart on all nodes', async (t) => {
  const { start } = await cluster(t, (request, response) => {
    const directive = decodeURIComponent(request.url!.split('/')[1]!)
    const { authorization, 'accept-language': language } = request.headers
    respond(response, `${authorization} ${language}`, { 'cache-control': directive, vary: 'accept-language' })
  })
  const [one, two] = [await start(), await start()]
  let stored = 0
  const fill = async (path: string, headers: Record<string, string>) => {
    await one.client.ask(path, { headers })
    stored++
    await eventually(async () => (await counted(one, 'store', 'ok')) === stored)
  }
  const ask = async (path: string, headers: Record<string, string>) => {
    const before = one.seen.length
    const { body } = await two.client.ask(path, { headers })
    return [body.toString(), one.seen.length > before]
  }
  await fill('/max-age=60', { 'accept-language': 'en' })
  await fill('/max-age=60', { 'accept-language': 'de' })
  t.strictSame(await ask('/max-age=60', { 'accept-language': 'de' }), ['undefined de', false])
  t.strictSame(await ask('/max-age=60', { 'accept-language': 'en' }), ['undefined en', false])
  t.strictSame(await ask('/max-age=60', { 'accept-language': 'en', authorization: 'a' }), ['a en', true])
  await fill('/public,max-age=60', { 'accept-language': 'en', authorization: 'a' })
  t.strictSame(await ask('/public,max-age=60', { 'accept-language': 'en', authorization: 'b' }), ['a en', false])
  t.strictSame(await ask('/public,max-age=60', { 'accept-language': 'fr' }), ['undefined fr', true])
  for (const directive of ['private', 'no-store', 'max-age=60,private']) {
    await one.client.ask(`/${directive}`, { headers: { authorization: 'a' } })
    t.strictSame(await ask(`/${directive}`, {}), ['undefined undefined', true])
  }
})

t.test('expired responses are confirmed, sent stale and refreshed on all nodes', async (t) => {
  let isBroken = false
  const { start, client } = await cluster(t, (request, response, count) => {
    if (isBroken) respond(response, 'broken', {}, 503)
    else if (request.headers['if-none-match'] === '"a"')
      response.writeHead(304, { 'cache-control': 'max-age=10' }).end()
    else {
      const more = request.url === '/refresh' ? ', stale-while-revalidate=1000' : ', stale-if-error=2000'
      const etag: Record<string, string> = request.url === '/confirm' ? { etag: '"a"' } : {}
      respond(response, `${count}`, { 'cache-control': `max-age=10${more}`, ...etag })
    }
  })
  const [one, two] = [await start(), await start()]
  for (const path of ['/confirm', '/refresh', '/error']) await one.client.ask(path)
  await eventually(async () => (await counted(one, 'store', 'ok')) === 3)
  const left = await Promise.all((await client.keys('jingwei:cache:*:r:*:*')).map((key) => client.pttl(key)))
  t.ok(
    left.every((ms) => ms > 60_000),
    `${left}`
  )
  t.ok(
    left.some((ms) => ms > 1_900_000 && ms <= 2_010_000),
    'stale-if-error'
  )
  t.ok(
    left.some((ms) => ms > 900_000 && ms <= 1_010_000),
    'stale-while-revalidate'
  )
  one.pass(11)
  t.match((await two.client.ask('/confirm')).headers['cache-status'], /fwd=stale; fwd-status=304/)
  await eventually(async () => /hit/.test(String((await one.client.ask('/confirm')).headers['cache-status'])))
  t.equal((await two.client.ask('/refresh')).body.toString(), '2')
  await eventually(async () => (await one.client.ask('/refresh')).body.toString() !== '2')
  isBroken = true
  t.equal((await two.client.ask('/error')).body.toString(), '3')
})

t.test('unsafe methods invalidate on all nodes before their client gets the response', async (t) => {
  const { start } = await cluster(t, (request, response, count) => {
    if (request.method === 'GET') respond(response, `${count}`, { 'cache-control': 'max-age=60' })
    else respond(response, Buffer.alloc(300_000, 'y'), { location: '/other' }, request.url === '/fails' ? 500 : 201)
  })
  const more = { routes: [{ name: 'all', match: { path: '/', methods: ['GET', 'POST', 'DELETE'] }, service: 'any' }] }
  const [one, two] = [await start({ more }), await start({ more })]
  const fill = async () => {
    for (const path of ['/a', '/a?x', '/other', '/fails']) {
      await eventually(async () => /hit/.test(String((await one.client.ask(path)).headers['cache-status'])))
    }
  }
  const isHit = async (node: Caching, path: string) =>
    /hit/.test(String((await node.client.ask(path)).headers['cache-status']))
  for (const [writer, reader] of [
    [one, two],
    [two, one]
  ] as const) {
    await fill()
    const written = await writer.client.ask('/a', { method: 'POST', body: 'z' })
    t.equal(written.status, 201)
    t.ok(written.body.equals(Buffer.alloc(300_000, 'y')))
    t.match(written.headers['cache-status'], /fwd=method/)
    t.notOk(await isHit(reader, '/a'))
    t.notOk(await isHit(reader, '/other'))
    t.ok(await isHit(reader, '/a?x'))
    t.equal((await writer.client.ask('/fails', { method: 'DELETE' })).status, 500)
    t.ok(await isHit(reader, '/fails'))
  }
})

for (const protocol of protocols) {
  t.test(
    `${protocol}: a response that waits for Redis is complete, also if Redis hangs or its client leaves`,
    async (t) => {
      const { start, redis } = await cluster(
        t,
        (request, response) => {
          if (request.method === 'GET') return respond(response, 'x', { 'cache-control': 'max-age=60' })
          if (request.url === '/fails')
            return void response.writeHead(200, { 'content-length': '10' }).write('half', () => response.destroy())
          response.writeHead(200, { trailer: 'x-sum' })
          request.pipe(response, { end: false })
          request.on('end', () => {
            response.addTrailers({ 'x-sum': 'done' })
            response.end()
          })
        },
        '300ms'
      )
      const more = {
        redis: { url: redis.url, timeout: '300ms' },
        routes: [{ name: 'all', match: { path: '/', methods: ['GET', 'PUT', 'POST'] }, service: 'any' }]
      }
      const node = await start({ more, protocol })
      for (const isHanging of [false, true]) {
        if (isHanging) redis.pause()
        for (const body of [bytes, Buffer.alloc(0), Buffer.alloc(3_000_000, 'z')]) {
          const echoed = await node.client.ask('/', { method: 'PUT', body, headers: { te: 'trailers' } })
          t.equal(echoed.status, 200)
          t.ok(echoed.isWhole)
          t.ok(echoed.body.equals(body), `${body.length} bytes`)
        }
        const failed = await node.client.ask('/fails', { method: 'POST' }).catch(() => ({ isWhole: false }))
        t.notOk(failed.isWhole)
        const leaving = node.client.begin('/', { method: 'PUT', body: bytes })
        await leaving.leave()
      }
      redis.resume()
      await isUp(node, true)
      await eventually(async () => /hit/.test(String((await node.client.ask('/')).headers['cache-status'])))
      t.equal((await node.client.ask('/', { method: 'PUT', body: 'a' })).body.toString(), 'a')
    }
  )
}

t.test('the client of an unsafe method gets its response once Redis has invalidated', async (t) => {
  const { start, redis } = await cluster(
    t,
    (request, response, count) =>
      respond(response, `${count}`, request.method === 'GET' ? { 'cache-control': 'max-age=60' } : {}),
    '30s'
  )
  const node = await start()
  await eventually(async () => /hit/.test(String((await node.client.ask('/')).headers['cache-status'])))
  redis.pause()
  let isOver = false
  const written = node.client.ask('/', { method: 'POST', body: 'x' }).finally(() => {
    isOver = true
  })
  await eventually(() => node.seen.at(-1)!.method === 'POST')
  // The service has responded by now, and a response that were not held would have arrived.
  await sleep(300)
  t.notOk(isOver)
  redis.resume()
  t.equal((await written).status, 200)
  t.notMatch((await node.client.ask('/')).headers['cache-status'], /hit/)
})

t.test('key.consumer: callers have responses of their own on all nodes', async (t) => {
  const { start } = await cluster(t, (request, response, count) =>
    respond(response, `${count} ${request.headers['x-consumer-id'] ?? ''}`, {
      'cache-control': decodeURIComponent(request.url!.slice(1))
    })
  )
  const keys = { alice: 'key-of-alice-0123', bob: 'key-of-bob-4567890' }
  const consumers = Object.entries(keys).map(([name, key]) => ({
    name,
    keyAuth: { hash: `sha256:${createHash('sha256').update(key).digest('hex')}` }
  }))
  const edge = { keyAuth: { hideCredentials: true } }
  const startNode = () => start({ cache: { key: { consumer: true } }, edge, consumers })
  const [one, two] = [await startNode(), await startNode()]
  const ask = async (node: Caching, name: keyof typeof keys, path: string) => {
    const before = node.seen.length
    const { body, status } = await node.client.ask(path, { headers: { 'x-api-key': keys[name] } })
    t.equal(status, 200)
    return [body.toString().split(' ')[0], node.seen.length > before]
  }
  t.strictSame(await ask(one, 'alice', '/max-age=60'), ['1', true])
  t.strictSame(await ask(one, 'bob', '/max-age=60'), ['2', true])
  await eventually(async () => (await counted(one, 'store', 'ok')) === 2)
  t.strictSame(await ask(two, 'alice', '/max-age=60'), ['1', false])
  t.strictSame(await ask(two, 'bob', '/max-age=60'), ['2', false])
  t.strictSame(await ask(one, 'alice', '/max-age=60,private'), ['3', true])
  t.strictSame(await ask(two, 'alice', '/max-age=60,private'), ['4', true])
})

t.test('commands that Redis refuses are logged, and requests are served', async (t) => {
  const { start, client } = await cluster(t, (_request, response) =>
    respond(response, 'x', { 'cache-control': 'max-age=60' })
  )
  const node = await start()
  await client.call('ACL', 'SETUSER', 'default', '-evalsha', '-eval')
  for (let round = 0; round < 5; round++) t.equal((await node.client.ask('/')).status, 200)
  t.equal(node.seen.length, 5)
  const lines = node.logged.filter(({ msg }) => /^Redis refuses a command/.test(String(msg)))
  t.equal(lines.length, 1)
  t.match(lines[0], { err: { message: /NOPERM/ } })
  t.ok((await counted(node, 'lookup', 'error')) >= 5)
})

t.test('purges remove from all nodes', async (t) => {
  const { start, client } = await cluster(t, (request, response) => {
    const [, tag] = request.url!.split('/')
    respond(response, 'x', { 'cache-control': 'max-age=60', 'surrogate-key': `all ${tag}` })
  })
  const [one, two] = [await start(), await start()]
  const paths = ['/a/1', '/a/1?x=1', '/a/2', '/b/1', '/ab']
  const isHit = async (path: string) => /hit/.test(String((await two.client.ask(path)).headers['cache-status']))
  const cases: [query: string, left: string[]][] = [
    ['path=/a/1', ['/a/2', '/b/1', '/ab']],
    ['path=/a/1%3Fx=1', ['/a/1', '/a/2', '/b/1', '/ab']],
    ['prefix=/a/', ['/b/1', '/ab']],
    ['tag=a', ['/b/1', '/ab']],
    ['tag=all&prefix=/b', ['/a/1', '/a/1?x=1', '/a/2', '/ab']],
    ['host=other.example', paths],
    ['route=all', []],
    ['all=true', []]
  ]
  for (const [query, left] of cases) {
    for (const path of paths) await eventually(() => isHit(path))
    t.strictSame(await one.purge(query), { statusCode: 200, body: { purged: 0, memory: false, redis: true } }, query)
    const kept: string[] = []
    for (const path of paths) if (await isHit(path)) kept.push(path)
    t.strictSame(kept, left, query)
  }
  // Each purge of other criteria is remembered, up to a bound; equal ones take one place.
  for (let round = 0; round < 3; round++) await one.purge('tag=same')
  t.equal(await client.hlen('jingwei:cache:1:purges'), 4)
  t.equal((await one.purge(`tag=${'x'.repeat(3000)}`)).statusCode, 400)
})

t.test('a purge that Redis does not confirm removes from memory, and is to be repeated', async (t) => {
  const { start, redis } = await cluster(t, (_request, response) =>
    respond(response, 'x', { 'cache-control': 'max-age=60' })
  )
  const routes = [
    { name: 'all', match: { path: '/' }, service: 'any' },
    { name: 'local', match: { path: '/local' }, service: 'any', edge: { cache: { store: 'memory' } } }
  ]
  const node = await start({ more: { redis: { url: redis.url, timeout: '2s' }, routes } })
  for (const path of ['/', '/local']) await node.client.ask(path)
  await eventually(async () => (await counted(node, 'store', 'ok')) === 1)
  redis.pause()
  t.strictSame(await node.purge('all=true'), {
    statusCode: 503,
    body: {
      statusCode: 503,
      error: 'Service Unavailable',
      message:
        'Redis did not confirm the purge (no response within 2000 ms): repeat it; removed from the memory of this node: 1',
      purged: 1,
      memory: true,
      redis: true
    }
  })
  redis.resume()
  await isUp(node, true)
  t.strictSame(await node.purge('all=true'), { statusCode: 200, body: { purged: 0, memory: true, redis: true } })
})

t.test('more purges than are remembered purge older responses', async (t) => {
  const { start, client } = await cluster(t, (_request, response) =>
    respond(response, 'x', { 'cache-control': 'max-age=60' })
  )
  const node = await start()
  const isHit = async () => /hit/.test(String((await node.client.ask('/')).headers['cache-status']))
  await eventually(isHit)
  for (let at = 0; at < 1000; at++) await node.purge(`tag=t${at}`)
  t.ok(await isHit())
  await node.purge('tag=last')
  t.notOk(await isHit())
  t.equal(await client.hlen('jingwei:cache:1:purges'), 1003)
  await eventually(isHit)
})

t.test('what is invalidated or purged while it is received is not stored, on any node', async (t) => {
  const responses: ServerResponse[] = []
  const { start } = await cluster(t, (request, response) => {
    if (request.method === 'GET') responses.push(response)
    else respond(response, '')
  })
  const more = { routes: [{ name: 'all', match: { path: '/', methods: ['GET', 'POST'] }, service: 'any' }] }
  const [one, two] = [await start({ more }), await start({ more })]
  const changes = [
    () => two.client.ask('/', { method: 'POST' }),
    () => two.purge('tag=none'),
    () => two.purge('all=true')
  ]
  for (const [index, change] of changes.entries()) {
    const before = responses.length
    const asked = one.client.ask('/')
    await eventually(() => responses.length === before + 1)
    await change()
    respond(responses.at(-1)!, 'old', { 'cache-control': 'max-age=60' })
    await asked
    await eventually(async () => (await counted(one, 'store', 'outdated')) === index + 1)
    const next = two.client.ask('/')
    await eventually(() => responses.length === before + 2)
    respond(responses.at(-1)!, 'no', { 'cache-control': 'no-store' })
    t.equal((await next).body.toString(), 'no')
  }
})

t.test('equal requests of a node take one fetch, with and without Redis', async (t) => {
  const responses: ServerResponse[] = []
  const { start, redis } = await cluster(t, (_request, response) => void responses.push(response))
  const node = await start()
  for (const isAway of [false, true]) {
    if (isAway) {
      await redis.stop()
      await isUp(node, false)
    }
    const before = responses.length
    const all = Array.from({ length: 10 }, () => node.client.ask(`/${isAway}`))
    await eventually(() => responses.length === before + 1)
    const other = node.client.ask('/other')
    await eventually(() => responses.length === before + 2)
    respond(responses.at(-1)!, 'other', { 'cache-control': 'no-store' })
    await other
    respond(responses.at(-2)!, 'x', { 'cache-control': 'max-age=60' })
    t.ok((await Promise.all(all)).every(({ body }) => body.toString() === 'x'))
    t.equal(responses.length, before + 2)
  }
})

t.test('a Redis that hangs, restarts or is away delays no request for long, and fails none', async (t) => {
  const { start, redis, client } = await cluster(
    t,
    (request, response, count) =>
      respond(response, `${count}`, request.method === 'GET' ? { 'cache-control': 'max-age=60' } : {}),
    '100ms'
  )
  const more = {
    redis: { url: redis.url, timeout: '100ms' },
    routes: [{ name: 'all', match: { path: '/', methods: ['GET', 'POST'] }, service: 'any' }]
  }
  const [one, two] = [await start({ more }), await start({ more })]
  const isHit = async (node: Caching, path = '/') =>
    /hit/.test(String((await node.client.ask(path)).headers['cache-status']))
  await eventually(() => isHit(one))
  redis.pause()
  for (let round = 0; round < 10; round++) t.equal((await one.client.ask('/')).status, 200)
  t.ok((await counted(one, 'lookup', 'timeout')) >= 3)
  t.ok((await counted(one, 'lookup', 'unavailable')) >= 1)
  t.equal((await one.client.ask('/', { method: 'POST' })).status, 200)
  t.match(await one.purge('all=true'), { statusCode: 503, body: { message: /^Redis did not confirm the purge/ } })
  redis.resume()
  await isUp(one, true)
  // The invalidation is repeated before this node uses Redis again.
  t.notOk(await isHit(one))
  await isUp(two, true)
  await eventually(() => isHit(two))
  const { port } = redis
  await redis.stop()
  await isUp(one, false)
  t.equal((await one.client.ask('/')).status, 200)
  const again = await startRedis({ port })
  t.teardown(() => again.stop())
  await isUp(one, true)
  t.notOk(await isHit(one), 'it has lost all')
  await eventually(() => isHit(one))
  t.equal(one.logged.filter(({ msg }) => String(msg).startsWith('Redis is unavailable: requests are sent')).length, 2)
  client.disconnect()
})

t.test('values that are damaged, foreign, of another type or of another key are misses', async (t) => {
  const { start, client } = await cluster(t, (request, response) =>
    respond(response, request.url!, { 'cache-control': 'max-age=60' })
  )
  const node = await start()
  const isHit = async (path: string) => {
    const { headers, body, status } = await node.client.ask(path)
    t.equal(body.toString(), path)
    t.equal(status, 200)
    return /hit/.test(String(headers['cache-status']))
  }
  const values = async () => (await client.keys('jingwei:cache:1:r:*:*')).filter((key) => !key.endsWith(':'))
  await eventually(() => isHit('/a'))
  const [a] = await values()
  const genuine = (await client.getBuffer(a!))!
  const damages: (() => Promise<unknown>)[] = [
    () => client.set(a!, 'x'),
    () => client.set(a!, ''),
    () => client.set(a!, Buffer.concat([genuine.subarray(0, 45), Buffer.from('P')])),
    () => client.set(a!, genuine.subarray(0, genuine.length - 1)),
    () => client.set(a!, Buffer.concat([genuine, Buffer.from('x')])),
    ...[45, 50, 70, 98, 120, genuine.length - 1].map((at) => () => {
      const changed = Buffer.from(genuine)
      changed[at]! ^= 1
      return client.set(a!, changed)
    }),
    async () => {
      await client.del(a!)
      await client.lpush(a!, 'x')
    },
    async () => {
      for (const key of await client.keys('jingwei:cache:1:*')) {
        await client.del(key)
        await client.lpush(key, 'x')
      }
    },
    async () => {
      for (const key of await client.keys('jingwei:cache:1:*')) await client.set(key, 'x')
    },
    async () => {
      await client.del('jingwei:cache:1:purges')
      await client.hset('jingwei:cache:1:purges', 'epoch', 'x', 'seq', 'y', 'c{', 'z')
    },
    () => client.del('jingwei:cache:1:purges')
  ]
  for (const [index, damage] of damages.entries()) {
    await eventually(() => isHit('/a'))
    await damage()
    t.notOk(await isHit('/a'), `damage ${index}`)
  }
  await client.hset('jingwei:cache:1:purges', 'c{', '999999999999')
  await eventually(() => isHit('/b'))
  await eventually(() => isHit('/a'))
  const b = (await values()).find((key) => key !== a)!
  await client.set(b, (await client.getBuffer(a!))!)
  t.notOk(await isHit('/b'), 'a response of another key')
  t.ok((await counted(node, 'lookup', 'corrupt')) >= 8)
})

t.test('services that send a field several times harm no request', async (t) => {
  const { start, client } = await cluster(t, (request, response) => {
    response.setHeader('cache-control', 'max-age=60')
    response.setHeader(request.url!.slice(1), ['"a"', '"b"'])
    response.setHeader('content-length', '4')
    response.end('body')
  })
  const node = await start()
  const names = ['etag', 'last-modified', 'date', 'location', 'content-type', 'vary', 'cache-tag', 'content-encoding']
  const conditions: Record<string, string>[] = [
    {},
    { 'if-none-match': '"a"' },
    { range: 'bytes=0-1', 'if-range': '"a"' }
  ]
  for (const name of names)
    for (const headers of [...conditions, ...conditions]) {
      const { status } = await node.client.ask(`/${name}`, { headers })
      t.ok([200, 206, 304].includes(status), `${name}: ${status}`)
    }
  // An entry that has them all the same, as an earlier release could have stored it.
  await eventually(async () => /hit/.test(String((await node.client.ask('/x')).headers['cache-status'])))
  for (const key of await client.keys('jingwei:cache:1:r:*:*')) {
    const genuine = (await client.getBuffer(key))!
    const { stored } = decoded(genuine, [key.split(':')[4]!])!
    const headers = { ...stored.headers, etag: ['"a"', '"b"'], 'last-modified': ['x', 'y'], date: ['x'] }
    const forged = encoded({ ...stored, headers: headers as never })
    await client.set(key, Buffer.concat([genuine.subarray(0, 45), forged]))
  }
  for (const headers of conditions) t.equal((await node.client.ask('/x', { headers })).body.toString(), 'body')
})

t.test('forged values reach no client', async (t) => {
  const { start, client } = await cluster(t, (_request, response) =>
    respond(response, 'genuine', { 'cache-control': 'max-age=60' })
  )
  const node = await start()
  await eventually(async () => /hit/.test(String((await node.client.ask('/')).headers['cache-status'])))
  const [key] = (await client.keys('jingwei:cache:1:r:*:*')) as [string]
  const genuine = (await client.getBuffer(key))!
  const { stored } = decoded(genuine, [key.split(':')[4]!])!
  const forge = async (change: object) => {
    const value = encoded({ ...stored, body: Buffer.from('forged'), ...change })
    await client.set(key, Buffer.concat([genuine.subarray(0, 45), value]))
    return (await node.client.ask('/')).body.toString()
  }
  // The digest is no signature.
  t.equal(await forge({}), 'forged')
  const changes = [
    ...[
      { 'x-a': 'a\r\nb: c' },
      { 'x a': 'b' },
      { 'x-a': 'a\0' },
      { 'x-a': '€' },
      { 'x-a': 1 },
      { 'transfer-encoding': 'chunked' }
    ].map((headers) => ({ headers: { ...stored.headers, ...headers } })),
    { headers: null },
    { headers: 'x' },
    { status: 101 },
    { status: 304.5 },
    { status: '200' },
    { storedAt: null },
    { tags: 'a' },
    { varyNames: [1] },
    { isPublic: 'yes' },
    { key: 'other' },
    { varyNames: ['accept'], varyValues: 'other' }
  ]
  for (const change of changes) t.equal(await forge(change), 'genuine', JSON.stringify(change))
})

t.test('a Redis without memory stores nothing, and still invalidates and purges', async (t) => {
  const { start, client } = await cluster(t, (request, response) =>
    respond(response, Buffer.alloc(1000), request.method === 'GET' ? { 'cache-control': 'max-age=60' } : {})
  )
  const node = await start()
  const isHit = async (path: string) => /hit/.test(String((await node.client.ask(path)).headers['cache-status']))
  for (const path of ['/a', '/b']) await eventually(() => isHit(path))
  await client.config('SET', 'maxmemory', '1')
  t.ok(await isHit('/a'))
  t.equal((await node.client.ask('/new')).status, 200)
  await eventually(async () => (await counted(node, 'store', 'oom')) === 1)
  t.equal((await node.client.ask('/a', { method: 'POST' })).status, 200)
  t.notOk(await isHit('/a'))
  t.strictSame(await node.purge('tag=none'), { statusCode: 200, body: { purged: 0, memory: false, redis: true } })
  t.notOk(await isHit('/b'), 'everything is purged, since one purge cannot be remembered')
  await client.config('SET', 'maxmemory', '0')
  await eventually(() => isHit('/b'))
  await client.config('SET', 'maxmemory-policy', 'allkeys-lru', 'maxmemory', '3mb')
  for (let at = 0; at < 3000; at++) await node.client.ask(`/many/${at}`)
  t.equal((await node.client.ask('/a')).status, 200, 'evictions make misses')
})

t.test('responses of other configurations and larger bodies stay out', async (t) => {
  const { start, client } = await cluster(t, (request, response) => {
    const size = Number(request.url!.slice(1)) || 1
    respond(response, Buffer.alloc(size), { 'cache-control': 'max-age=60' })
  })
  const [one, two] = [await start(), await start({ cache: { ttl: { 404: '5s' } } })]
  await eventually(async () => /hit/.test(String((await one.client.ask('/')).headers['cache-status'])))
  t.match((await two.client.ask('/')).headers['cache-status'], /uri-miss/)
  const small = await start({ cache: { maxEntry: '1kb' } })
  await small.client.ask('/1025')
  await small.client.ask('/1024')
  await eventually(async () => (await counted(small, 'store', 'ok')) === 1)
  t.match((await small.client.ask('/1025')).headers['cache-status'], /uri-miss/)
  t.match((await small.client.ask('/1024')).headers['cache-status'], /hit/)
  t.ok((await client.keys('*')).every((key) => key.startsWith('jingwei:cache:1:')))
})

t.test(
  'under random requests on two nodes, no client gets a version older than the last change it could know of',
  async (t) => {
    const versions = new Map<string, number>()
    const wait = () => new Promise((resolve) => setTimeout(resolve, Math.random() * 4))
    const { start } = await cluster(t, async (request, response) => {
      const path = request.url!
      if (request.method === 'PUT') {
        await wait()
        versions.set(path, (versions.get(path) ?? 0) + 1)
      }
      const version = `${versions.get(path) ?? 0}`
      await wait()
      const fields = { 'cache-control': 'max-age=60', etag: `"${version}"`, vary: 'accept-language' }
      if (request.method !== 'PUT' && request.headers['if-none-match'] === fields.etag)
        response.writeHead(304, fields).end()
      else respond(response, version, fields)
    })
    const more = { routes: [{ name: 'all', match: { path: '/', methods: ['GET', 'PUT'] }, service: 'any' }] }
    const nodes = [await start({ more }), await start({ more })]
    /** Version that a client knew before it sent its request. */
    const known = new Map<string, number>()
    const paths = ['/a', '/b', '/c']
    const pick = <T>(from: readonly T[]): T => from[Math.floor(Math.random() * from.length)]!
    let hits = 0
    const old: string[] = []
    const run = async () => {
      for (let round = 0; round < 250; round++) {
        const [path, node] = [pick(paths), pick(nodes)]
        const least = known.get(path) ?? 0
        if (Math.random() < 0.15) {
          const { body } = await node.client.ask(path, { method: 'PUT', body: 'x' })
          known.set(path, Math.max(known.get(path) ?? 0, Number(body.toString())))
        } else {
          const headers: Record<string, string> = { 'accept-language': pick(['en', 'de']) }
          if (Math.random() < 0.1) headers['cache-control'] = 'no-cache'
          const { body, headers: given } = await node.client.ask(path, { headers })
          if (/hit/.test(String(given['cache-status']))) hits++
          if (Number(body.toString()) < least) old.push(`${path}: ${body} < ${least} ${given['cache-status']}`)
        }
      }
    }
    await Promise.all(Array.from({ length: 8 }, run))
    t.strictSame(old, [])
    t.ok(hits > 100, `${hits} hits`)
    for (const node of nodes)
      await eventually(async () => (await node.status()).stores[0]!.bytes === 0, 'no memory is reserved')
  }
)
