import type { FastifyInstance } from 'fastify'
import t from 'tap'
import { CLOCK } from '../../../plugins/clock.ts'
import rateLimit from '../../../plugins/edge/concerns/rate-limit/index.ts'
import { isPlain } from '../../../plugins/edge/concerns/rate-limit/plain.ts'
import { anyClient, listenFor, protocols } from '../../helpers/edge/asking-client.ts'
import { edgeAppWith } from '../../helpers/edge/edge-app.ts'
import { limitOptions } from '../../helpers/edge/rate-limit-options.ts'
import { claims, secret, token } from '../../helpers/edge/tokens.ts'
import { gatewayBefore, get, startEcho, startService } from '../../helpers/gateway.ts'

const edgeApp = edgeAppWith(rateLimit)

/** Returns the statuses of requests that are sent one after another. */
async function statuses(port: number, path: string, requests: string[][]): Promise<number[]> {
  const all: number[] = []
  for (const headers of requests) all.push((await get(port, path, headers)).status)
  return all
}

/** Starts a gateway in front of an echo service; each option is the `edge` of the route `/NAME`. */
async function gatewayWith(t: Parameters<typeof gatewayBefore>[0], edges: Record<string, object>, more = {}) {
  const service = await startEcho()
  t.teardown(service.close)
  const routes = Object.entries(edges).map(([name, edge]) => ({
    name,
    match: { path: `/${name}` },
    service: 'any',
    edge
  }))
  return gatewayBefore(t, service.url, { routes, ...more })
}

const times = (count: number, headers: string[] = []) => Array.from({ length: count }, () => headers)

t.test('keys: claim, nested claim, route, and combinations', async (t) => {
  const jwt = { secret }
  const limit = (by: string | string[], more = {}) => ({ jwt, rateLimit: { max: 1, window: '1m', by, ...more } })
  const { port } = await gatewayWith(t, {
    tenant: limit('claim:tenant'),
    nested: limit('claim:org.id'),
    all: { rateLimit: { max: 2, window: '1m', by: 'route' } },
    pair: limit(['consumer', 'claim:tenant']),
    mixed: { rateLimit: { max: 1, window: '1m', by: ['ip', 'header:x-key'], maxPerAddress: 3 } }
  })
  const as = (more: Record<string, unknown>) => [`Authorization: Bearer ${token(claims(more))}`]
  const asked = [as({ sub: 'a', tenant: 'x' }), as({ sub: 'b', tenant: 'x' }), as({ sub: 'a', tenant: 'y' })]
  t.same(await statuses(port, '/tenant', asked), [200, 429, 200], 'callers of one tenant are counted together')
  t.same(await statuses(port, '/tenant', [as({ sub: 'a' }), as({ sub: 'b' })]), [200, 429], 'without it: by address')
  t.same(await statuses(port, '/tenant', [as({ sub: 'a', tenant: 7 }), as({ sub: 'b', tenant: '7' })]), [200, 429])
  t.same(
    await statuses(port, '/nested', [as({ org: { id: 1 } }), as({ org: { id: 1 } }), as({ org: { id: 2 } })]),
    [200, 429, 200]
  )
  t.same(await statuses(port, '/all', times(3)), [200, 200, 429])
  const pairs = [asked[0]!, asked[1]!, asked[2]!, asked[0]!]
  t.same(await statuses(port, '/pair', pairs), [200, 200, 200, 429], 'both parts make the key')
  const values = ['a', 'a', 'b', 'c', 'd'].map((value) => [`X-Key: ${value}`])
  t.same(await statuses(port, '/mixed', values), [200, 429, 200, 200, 429], 'maxPerAddress is a second limit')
})

t.test('a combination cannot be imitated by separators within its parts', async (t) => {
  const by = ['header:a', 'header:b']
  const app = await edgeApp([{ name: 'x', edge: { rateLimit: limitOptions({ max: 1, by, maxPerAddress: 100 }) } }])
  t.teardown(() => app.close())
  const ask = async (a: string, b: string) => (await app.inject({ url: '/x', headers: { a, b } })).statusCode
  t.equal(await ask('1', '2'), 200)
  for (const [a, b] of [
    ['12', ''],
    ['', '12'],
    ['1header:2', ''],
    ['1', '2 2'],
    ['18:header:2', '']
  ]) {
    t.equal(await ask(a!, b!), 200, `${a} and ${b}`)
  }
  t.equal(await ask('1', '2'), 429)
})

t.test('one limit with a name for several routes', async (t) => {
  const rateLimit = { max: 2, window: '1m', name: 'public' }
  const { port } = await gatewayWith(t, {
    a: { rateLimit },
    b: { rateLimit },
    c: { rateLimit: { max: 2, window: '1m' } }
  })
  t.same(await statuses(port, '/a', times(1)), [200])
  t.same(await statuses(port, '/b', times(2)), [200, 429])
  t.same(await statuses(port, '/a', times(1)), [429])
  t.same(await statuses(port, '/c', times(1)), [200], 'a limit without a name is separate')
})

t.test('ipv6Prefix: a network of this length is one client', async (t) => {
  const limit = { max: 1, window: '1m' }
  const edges = {
    wide: { rateLimit: { ...limit, ipv6Prefix: 48 } },
    exact: { rateLimit: { ...limit, ipv6Prefix: 128 } }
  }
  const { port } = await gatewayWith(t, edges, { listen: { trustProxy: ['127.0.0.1'] } })
  const from = (...addresses: string[]) => addresses.map((address) => [`X-Forwarded-For: ${address}`])
  t.same(await statuses(port, '/wide', from('2001:db8:1:1::1', '2001:db8:1:2::1', '2001:db8:2::1')), [200, 429, 200])
  t.same(await statuses(port, '/exact', from('2001:db8::1', '2001:db8::2', '2001:DB8:0::1')), [200, 200, 429])
})

/** A clock that only the test moves. */
function clockOf() {
  let now = 1_000_000
  const before = (server: FastifyInstance) => {
    server.decorate(CLOCK, { now: () => now, date: () => now })
  }
  return { before, move: (ms: number) => (now += ms) }
}

for (const protocol of protocols) {
  t.test(`several windows at once over ${protocol}; a refused request uses none of them`, async (t) => {
    const service = await startEcho()
    t.teardown(service.close)
    const { before, move } = clockOf()
    const limit = { headers: 'ietf' }
    const rateLimit = [{ ...limit, max: 2, window: '1s' }, { ...limit, max: 4, window: '30d' }] // biome-ignore format: two limits
    const gateway = await gatewayBefore(
      t,
      service.url,
      { edge: { rateLimit }, listen: listenFor(t, protocol) },
      { before }
    )
    const { ask } = anyClient(t, protocol, gateway.port)
    const first = await ask('/')
    t.equal(first.status, 200)
    t.equal(first.headers['ratelimit-policy'], '"2-in-1s";q=2;w=1, "4-in-2592000s";q=4;w=2592000')
    t.equal(first.headers.ratelimit, '"2-in-1s";r=1;t=1, "4-in-2592000s";r=3;t=2592000')
    t.equal(first.headers['ratelimit-limit'], undefined)
    const next = async () => (await ask('/')).status
    t.same([await next(), await next(), await next()], [200, 429, 429])
    move(1000)
    t.same([await next(), await next()], [200, 200], 'refused requests left the long window alone')
    t.equal((await ask('/')).headers.ratelimit, '"2-in-1s";r=0;t=1, "4-in-2592000s";r=0;t=2591999')
    move(1000)
    const last = await ask('/')
    t.equal(last.status, 429)
    t.equal(last.headers.ratelimit, '"4-in-2592000s";r=0;t=2591998')
    t.equal(last.headers['retry-after'], '2591998')
    t.match(JSON.parse(last.body.toString()), { code: 'JW_RATE_LIMITED' })
  })
}

t.test('sliding window: the window before counts by the share that is still in sight', async (t) => {
  const { before, move } = clockOf()
  const rateLimit = limitOptions({ max: 4, window: 1000, algorithm: 'sliding-window' })
  const app = await edgeApp([{ name: 'x', edge: { rateLimit } }], { before })
  t.teardown(() => app.close())
  const ask = async () => (await app.inject('/x')).statusCode
  move(900)
  t.same([await ask(), await ask(), await ask(), await ask()], [200, 200, 200, 200])
  const refused = await app.inject('/x')
  t.equal(refused.statusCode, 429)
  t.equal(refused.headers['retry-after'], '1')
  move(100)
  t.equal(await ask(), 429, 'a fixed window would begin anew')
  move(249)
  t.equal(await ask(), 429)
  move(1)
  t.same([await ask(), await ask()], [200, 429])
  move(250)
  t.same([await ask(), await ask()], [200, 429])
  move(3000)
  t.same([await ask(), await ask(), await ask(), await ask(), await ask()], [200, 200, 200, 200, 429])
})

t.test('token bucket: a burst, then the rate', async (t) => {
  const { before, move } = clockOf()
  const rateLimit = limitOptions({ max: 10, window: 1000, burst: 3, algorithm: 'token-bucket' })
  const app = await edgeApp([{ name: 'x', edge: { rateLimit } }], { before })
  t.teardown(() => app.close())
  const ask = async () => (await app.inject('/x')).statusCode
  t.same([await ask(), await ask(), await ask()], [200, 200, 200])
  const refused = await app.inject('/x')
  t.equal(refused.statusCode, 429)
  t.match(refused.headers, { 'ratelimit-limit': '3', 'ratelimit-remaining': '0', 'retry-after': '1' })
  move(99)
  t.equal(await ask(), 429)
  move(1)
  t.same([await ask(), await ask()], [200, 429])
  move(10_000)
  t.same([await ask(), await ask(), await ask(), await ask()], [200, 200, 200, 429], 'the bucket holds no more')
})

t.test('cost: a request uses several units; one that does not fit uses none', async (t) => {
  const shared = { max: 10, window: '1m', name: 'units' }
  const { port } = await gatewayWith(t, { dear: { rateLimit: { ...shared, cost: 4 } }, cheap: { rateLimit: shared } })
  t.same(await statuses(port, '/dear', times(3)), [200, 200, 429])
  t.same(await statuses(port, '/cheap', times(3)), [200, 200, 429])
})

t.test('headers: those that are chosen, and none of the service', async (t) => {
  const service = await startService((_request, response) => {
    response.writeHead(200, { 'x-ratelimit-limit': '9', 'ratelimit-limit': '9', ratelimit: '"a";r=9' }).end()
  })
  t.teardown(service.close)
  const limit = (headers?: string) => ({
    rateLimit: { max: 5, window: '10s', name: `n-${headers}`, ...(headers && { headers }) }
  })
  const routes = ['separate', 'ietf', 'x-ratelimit', 'none'].map((name) => ({
    name, match: { path: `/${name}` }, service: 'any', edge: limit(name)
  })) // biome-ignore format: a route on a line
  const { port } = await gatewayBefore(t, service.url, { routes })
  const fields = async (path: string) => {
    const { headers } = await get(port, path)
    return Object.fromEntries(Object.entries(headers).filter(([name]) => name.includes('ratelimit')))
  }
  const own = { limit: '5', remaining: '4', reset: '10' }
  t.same(await fields('/separate'), { ...prefixed('ratelimit-', own), 'x-ratelimit-limit': '9' })
  t.same(await fields('/x-ratelimit'), {
    ...prefixed('x-ratelimit-', own),
    'ratelimit-limit': '9',
    ratelimit: '"a";r=9'
  })
  t.same(await fields('/ietf'), {
    'ratelimit-policy': '"n-ietf";q=5;w=10', ratelimit: '"n-ietf";r=4;t=10', 'x-ratelimit-limit': '9'
  }) // biome-ignore format: as sent
  t.same(await fields('/none'), { 'x-ratelimit-limit': '9', 'ratelimit-limit': '9', ratelimit: '"a";r=9' })
})

const prefixed = (prefix: string, fields: Record<string, string>) =>
  Object.fromEntries(Object.entries(fields).map(([name, value]) => [prefix + name, value]))

t.test('the simple limits stay with @fastify/rate-limit', async (t) => {
  t.equal(isPlain(limitOptions()), true)
  t.equal(isPlain(limitOptions({ algorithm: 'sliding-window' })), false)
  t.equal(isPlain([limitOptions()]), false)
})
