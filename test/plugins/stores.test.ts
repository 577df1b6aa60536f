// slow: starts Redis
/** State that outlives a configuration: its next claims, and its end. */
import { writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import { setFlagsFromString } from 'node:v8'
import { runInNewContext } from 'node:vm'
import type { FastifyInstance } from 'fastify'
import type { Test } from 'tap'
import t from 'tap'
import { build } from '../../app.ts'
import { Stores } from '../../plugins/stores.ts'
import { claims, keys, pem, token } from '../helpers/edge/tokens.ts'
import { eventually } from '../helpers/eventually.ts'
import { configOf, startService } from '../helpers/gateway.ts'
import { startRedis } from '../helpers/redis.ts'

interface Line {
  readonly kind?: string
  readonly err?: Error
}

function storesOf(options = {}) {
  const lines: Line[] = []
  const log = { error: (line: Line) => void lines.push(line) } as unknown as FastifyInstance['log']
  const stores = new Stores(options)
  return { lines, open: () => stores.open(log) }
}

function garbageCollector(): () => void {
  setFlagsFromString('--expose-gc')
  return runInNewContext('gc') as () => void
}

t.test('two configurations share the state that they claim by the same kind and key', async (t) => {
  const { open } = storesOf()
  const [before, after] = [open(), open()]
  const one = before.claim('a.counts', { route: 'r', window: 1 }, () => ({}))
  t.equal(
    after.claim('a.counts', { window: 1, route: 'r' }, () => ({})),
    one,
    'the order of the fields of the key does not matter'
  )
  t.equal(
    before.claim('a.counts', { route: 'r', window: 1 }, () => ({})),
    one
  )
  t.not(
    after.claim('a.counts', { route: 'r', window: 2 }, () => ({})),
    one
  )
  t.not(
    after.claim('a.counts', { route: 'r', window: 1, more: [{ b: 1, a: undefined }] }, () => ({})),
    one
  )
  t.not(
    after.claim('b.counts', { route: 'r', window: 1 }, () => ({})),
    one
  )
})

t.test('state without a claim is disposed of, once', async (t) => {
  const { open, lines } = storesOf()
  const [before, after] = [open(), open()]
  const ended: string[] = []
  const claim = (claims: ReturnType<typeof open>, key: string) =>
    claims.claim(
      'a.link',
      key,
      () => ({ key }),
      ({ key }) => void ended.push(key)
    )
  const kept = claim(before, 'kept')
  claim(before, 'kept')
  claim(before, 'dropped')
  claim(after, 'kept')
  await before.release()
  t.same(ended, ['dropped'])
  await before.release()
  t.same(ended, ['dropped'])
  const next = open()
  t.equal(claim(next, 'kept'), kept)
  await after.release()
  t.same(ended, ['dropped'])
  await next.release()
  t.same(ended, ['dropped', 'kept'])
  t.not(claim(open(), 'kept'), kept)
  t.same(lines, [])
})

t.test(
  'shared state keeps only the newest dispose function, so that an old configuration can be collected',
  async (t) => {
    const { open } = storesOf()
    const collect = garbageCollector()
    const configuration = () => {
      const held = open()
      const server = { held }
      const value = held.claim(
        'a.pool',
        1,
        () => new Map(),
        () => void server
      )
      return { held, value, server: new WeakRef(server) }
    }
    const before = configuration()
    const after = configuration()
    t.equal(after.value, before.value)
    await before.held.release()
    await eventually(() => {
      collect()
      return before.server.deref() === undefined
    }, 'the configuration before is collected')
    let disposed = ''
    const last = open()
    last.claim(
      'a.pool',
      1,
      () => new Map(),
      () => {
        disposed = 'by the last'
      }
    )
    await after.held.release()
    t.equal(disposed, '')
    await last.release()
    t.equal(disposed, 'by the last')
  }
)

t.test('state whose creation fails is not kept, and a failed disposal is logged', async (t) => {
  const { open, lines } = storesOf()
  const claims = open()
  const fail = () => {
    throw new Error('no')
  }
  t.throws(() => claims.claim('a.link', 1, fail), 'no')
  t.equal(
    claims.claim('a.link', 1, () => 'made', fail),
    'made'
  )
  t.equal(
    claims.claim(
      'a.link',
      2,
      () => 'too',
      async () => fail()
    ),
    'too'
  )
  t.equal(
    claims.claim('a.link', 3, () => undefined, fail),
    undefined
  )
  await claims.release()
  t.match(lines, [{ kind: 'a.link', err: { message: 'no' } }, { kind: 'a.link', err: { message: 'no' } }, {}])
  t.equal(lines.length, 3)
  t.throws(() => claims.claim('a.link', 1, () => 1), { message: /has ended/ })
})

t.test('a dispose function that never ends does not delay a reload', async (t) => {
  const { open, lines } = storesOf({ disposeMs: 20 })
  const claims = open()
  claims.claim(
    'a.link',
    1,
    () => 1,
    () => new Promise(() => {})
  )
  await claims.release()
  t.match(lines, [{ kind: 'a.link' }])
})

t.test('the number of claims is bounded', async (t) => {
  const claims = storesOf({ mostClaims: 100 }).open()
  for (let i = 0; i < 100; i++) claims.claim('a.request', i, () => i)
  t.equal(
    claims.claim('a.request', 99, () => 0),
    99
  )
  t.throws(() => claims.claim('a.request', 100, () => 0), { message: /for each request/ })
})

/** Two gateways after each other, as by a change of the configuration. */
async function gateways(t: Test) {
  const service = await startService((_request, response) => response.end('ok'))
  t.teardown(service.close)
  const stores = new Stores()
  return async (edge: object, more: object = {}) => {
    const config = configOf({
      services: { any: { instances: [service.url] } },
      routes: [{ name: 'all', match: { path: '/' }, service: 'any', edge }],
      ...more
    })
    const server = build(config, { logger: false, stores })
    t.teardown(() => server.close())
    await server.ready()
    const ask = async (headers = {}) => {
      const { statusCode, headers: received } = await server.inject({ url: '/', headers })
      return `${statusCode} ${received['ratelimit-remaining'] ?? ''}`
    }
    return { server, ask }
  }
}

t.test('counts of a rate limit continue with the next configuration', async (t) => {
  const start = await gateways(t)
  const before = await start({ rateLimit: { max: 5, window: '1m' } })
  t.same([await before.ask(), await before.ask()], ['200 4', '200 3'])
  const more = await start({ rateLimit: { max: 10, window: '1m' }, bodyLimit: '1kb' })
  t.equal(await more.ask(), '200 7', 'another `max` continues the count')
  await before.server.close()
  t.equal(await more.ask(), '200 6')
  const other = await start({ rateLimit: { max: 5, window: '1h' } })
  t.equal(await other.ask(), '200 4', 'another window begins a new count')
  await Promise.all([more.server.close(), other.server.close()])
  const last = await start({ rateLimit: { max: 5, window: '1m' } })
  t.equal(await last.ask(), '200 4', 'state without a claim was disposed of')
})

t.test('a key set is fetched once for configurations that follow each other', async (t) => {
  let fetches = 0
  const jwks = await startService((_request, response) => {
    fetches++
    response.end(JSON.stringify({ keys: [{ ...keys.rsa.publicKey.export({ format: 'jwk' }), kid: 'a' }] }))
  })
  t.teardown(jwks.close)
  const start = await gateways(t)
  const bearer = { authorization: `Bearer ${token(claims(), keys.rsa, { alg: 'RS256', kid: 'a' })}` }
  const jwt = { jwks: jwks.url }
  const before = await start({ jwt })
  t.equal(await before.ask(bearer), '200 ')
  const after = await start({ jwt, bodyLimit: '1kb' })
  await before.server.close()
  t.equal(await after.ask(bearer), '200 ')
  t.equal(await after.ask(), '401 ')
  t.equal(fetches, 1)
})

t.test('a token is refused by the next configuration once the key file has another key', async (t) => {
  const start = await gateways(t)
  const publicKey = join(t.testdir({}), 'key.pem')
  const bearer = { authorization: `Bearer ${token(claims(), keys.rsa, { alg: 'RS256' })}` }
  const jwt = { publicKey }
  writeFileSync(publicKey, pem(keys.rsa))
  const before = await start({ jwt })
  t.equal(await before.ask(bearer), '200 ')
  writeFileSync(publicKey, pem(keys.otherRsa))
  const after = await start({ jwt })
  t.equal(await after.ask(bearer), '401 ')
  t.equal(await before.ask(bearer), '200 ')
})

t.test('the connection to Redis is the same for configurations that follow each other', async (t) => {
  const redis = await startRedis()
  t.teardown(redis.stop)
  const start = await gateways(t)
  const rateLimit = { max: 9, window: '1m', store: 'redis' }
  const isUp = async ({ server }: { server: FastifyInstance }) =>
    (await server.metrics.metrics()).includes('jingwei_edge_redis_up 1')
  const before = await start({ rateLimit }, { redis: { url: redis.url } })
  while (!(await isUp(before))) await sleep(5)
  t.equal(await before.ask(), '200 8')
  const after = await start({ rateLimit }, { redis: { url: redis.url } })
  t.ok(await isUp(after), 'the next configuration is connected at once')
  await before.server.close()
  t.equal(await after.ask(), '200 7')
  t.ok(await isUp(after))
})

t.test('a user’s plugin claims state', async (t) => {
  const start = await gateways(t)
  const ended: number[] = []
  const before = await start({})
  const state = before.server.stores.claim(
    'tally',
    null,
    () => ({ count: 1 }),
    ({ count }) => void ended.push(count)
  )
  const after = await start({})
  t.equal(
    after.server.stores.claim('tally', null, () => ({ count: 0 })),
    state
  )
  await before.server.close()
  t.same(ended, [])
  await after.server.close()
  t.same(ended, [1])
})
