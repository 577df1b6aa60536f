/** Every key of `mesh.retry`, `mesh.hedge` and the timeouts. */
import type { Test } from 'tap'
import t from 'tap'
import { eventually } from '../../helpers/eventually.ts'
import { parse, raw } from '../../helpers/gateway.ts'
import { gatewayOf, headerSection, instances, urls } from './support.ts'

const series = (name: string, ...labels: string[]) => `jingwei_mesh_${name}{service="orders"${labels.join('')}}`
const retries = (reason: string) => series('retries_total', `,reason="${reason}"`)

/** Gateway whose service `orders` uses round-robin, so that every other call reaches the first instance. */
async function gatewayTo(t: Test, mesh: string, routes = '', names = ['a', 'b']) {
  const some = await instances(t, ...names)
  const world = await gatewayOf(
    t,
    `
services: { orders: { instances: ${urls(some)}, mesh: { balance: round-robin, ${mesh} } } }
routes:
  - { name: orders, match: { path: / }, service: orders }
${routes}
`
  )
  return { some, ...world }
}
const post = (target: string, body: string, ...headers: string[]) =>
  headerSection(target, [...headers, `Content-Length: ${body.length}`], 'POST') + body

t.test('retry, by default: a reset and a refused connection, but no status; false on a route', async (t) => {
  const gone = await instances(t, 'gone')
  await gone[0]!.close()
  const route = '  - { name: once, match: { path: /once }, service: orders, mesh: { retry: false } }'
  const world = await gatewayTo(t, 'retry: { backoff: { base: 1ms, max: 2ms } }', route)
  t.strictSame(await world.spread(4, '/?reset&at=a'), { b: 4 })
  t.ok((await world.metric(retries('reset')))! >= 2)
  t.strictSame(await world.spread(4, '/?status=503&at=a'), { b: 2, 503: 2 })
  t.strictSame(await world.spread(4, '/once?reset&at=a'), { b: 2, 502: 2 })
  t.ok((await world.chain('/')).includes('retry'))
  t.notOk((await world.chain('/once')).includes('retry'))
  t.match((await world.service('orders')).concerns, { retries: { active: 0 } })
})

t.test('retry.on: statuses, gateway-error, 5xx, a header; the last response is forwarded', async (t) => {
  const on = (name: string, on: string) =>
    `  - { name: ${name}, match: { path: /${name} }, service: orders, mesh: { retry: { on: ${on}, backoff: { base: 0s }, budget: 100% } } }`
  const kinds = [
    on('listed', '[429, 503]'),
    on('gateway', '[gateway-error]'),
    on('any', '[5xx]'),
    on('header', '[retriable-header:X-Again]')
  ]
  const world = await gatewayTo(t, 'timeout: 5s', kinds.join('\n'))
  t.strictSame(await world.spread(4, '/listed?status=429&at=a'), { b: 4 })
  t.strictSame(await world.spread(4, '/listed?status=500&at=a'), { b: 2, 500: 2 })
  t.strictSame(await world.spread(4, '/gateway?status=502&at=a'), { b: 4 })
  t.strictSame(await world.spread(4, '/gateway?status=500&at=a'), { b: 2, 500: 2 })
  t.strictSame(await world.spread(4, '/gateway?reset&at=a'), { b: 4 }, 'a missing response is a gateway-error')
  t.strictSame(await world.spread(4, '/any?status=500&at=a'), { b: 4 })
  world.some[0]!.respond = ({ url }, response) =>
    url === '/header' && Boolean(response.writeHead(200, { 'x-again': '1', 'x-instance': 'a' }).end())
  t.strictSame(await world.spread(4, '/header'), { b: 4 })
  t.ok((await world.metric(retries('retriable-header')))! >= 2)
  const last = await world.send('/any?status=500&header=x-try:last')
  t.match(last, { status: 500, headers: { 'x-try': 'last' } })
  t.match(JSON.parse(last.body), { method: 'GET' })
})

t.test(
  'retry.attempts, budget, backoff; Retry-After applies only to its sender, and only up to backoff.max',
  async (t) => {
    const world = await gatewayTo(
      t,
      'timeout: 2s, attemptTimeout: 1s, retry: { on: [503], attempts: 4, budget: 0%, backoff: { base: 100ms, max: 100ms } }'
    )
    const seen = () => world.some.reduce((sum, each) => sum + each.seen.length, 0)
    t.equal((await world.send('/?status=503')).status, 503)
    t.equal(seen(), 5, 'the first attempt and four retries')
    t.match((await world.send('/?status=503&header=retry-after:60')).headers, { 'retry-after': '60' })
    t.equal(seen(), 7, 'one attempt at each instance')
    t.strictSame(
      await world.spread(4, '/?status=503&header=retry-after:60&at=a'),
      { b: 4 },
      'the other instance, at once'
    )

    const brief = await gatewayTo(t, 'retry: { on: [503], attempts: 8, budget: 0%, backoff: { base: 0s } }')
    for (let call = 0; call < 16; call++) await brief.send('/?status=503')
    t.equal(await brief.metric(retries('503')), 100, '10 per second over the 10 s window, besides the budget')
    t.ok((await brief.metric(series('retry_overflows_total')))! >= 1)
  }
)

t.test('retry.methods, idempotencyKey, maxBody: requests that may be sent twice', async (t) => {
  const world = await gatewayTo(
    t,
    'retry: { on: [503, reset], methods: [GET, PATCH], maxBody: 1kb, budget: 100%, backoff: { base: 0s } }',
    '  - { name: strict, match: { path: /strict }, service: orders, mesh: { retry: { on: [503], idempotencyKey: false } } }'
  )
  const statuses = async (request: string) => {
    const responses = [await raw(world.port, request), await raw(world.port, request)]
    return responses.map((text) => parse(text).status).sort()
  }
  const bad = '/?status=503&at=a'
  t.strictSame(await statuses(post(bad, 'order')), [200, 503])
  t.strictSame(await statuses(post(bad, 'order', 'Idempotency-Key: "k1"')), [200, 200])
  t.strictSame(await statuses(post(`/strict${bad}`, 'order', 'Idempotency-Key: "k1"')), [200, 503])
  t.strictSame(await statuses(post(bad, 'order').replace('POST', 'PATCH')), [200, 200])
  t.strictSame(await statuses(post(bad, 'order').replace('POST', 'PUT')), [200, 503])
  t.strictSame(await statuses(headerSection(bad, [], 'HEAD')), [200, 503])
  const bodies = world.some[1]!.seen.filter(({ method }) => method === 'PATCH').map(({ body }) => String(body))
  t.ok(bodies.every((body) => body === 'order'))
  const large = 'x'.repeat(2000)
  t.strictSame(await statuses(post(bad, large, 'Idempotency-Key: "k1"')), [200, 503], 'larger than maxBody: sent once')
  t.ok(world.some.every(({ seen }) => seen.at(-1)!.body.length === 2000))
})

t.test('a failure to connect is retried for every method, and costs no budget', async (t) => {
  const [gone, b] = await instances(t, 'gone', 'b')
  await gone!.close()
  const world = await gatewayOf(
    t,
    `
mesh: { balance: round-robin, retry: { budget: 0%, backoff: { base: 0s } } }
services: { orders: { instances: [${gone!.url}, ${b!.url}] } }
routes: [{ name: orders, match: { path: / }, service: orders }]
`
  )
  for (let i = 0; i < 30; i++) t.equal(parse(await raw(world.port, post('/', 'once'))).status, 200)
  t.equal(b!.seen.length, 30)
  t.ok((await world.metric(retries('connect-failure')))! >= 15)
})

t.test('timeout, attemptTimeout, idleTimeout, responseTimeout', async (t) => {
  const world = await gatewayTo(
    t,
    'timeout: 4s, attemptTimeout: 300ms, idleTimeout: 200ms, retry: { on: [gateway-error], attempts: 1, backoff: { base: 0s } }',
    `  - { name: short, match: { path: /short }, service: orders, mesh: { timeout: 80ms, retry: false } }
  - { name: patient, match: { path: /patient }, service: orders, mesh: { attemptTimeout: 3s, idleTimeout: false } }
  - { name: whole, match: { path: /whole }, service: orders, mesh: { idleTimeout: false, responseTimeout: 300ms } }`
  )
  t.strictSame(await world.spread(2, '/?delay=1500&at=a'), { b: 2 })
  t.ok((await world.metric(retries('timeout')))! >= 1)
  t.match(await world.send('/?delay=1500'), { status: 504, code: 'JW_ATTEMPT_TIMEOUT' })
  t.match(await world.send('/short?delay=400'), { status: 504, code: 'JW_CALL_TIMEOUT' })
  t.equal((await world.send('/patient?delay=500')).status, 200)
  for (const each of world.some) {
    each.respond = (_request, response) => {
      response.write('begin ')
      setTimeout(() => response.end('end'), 2500).unref()
      return true
    }
  }
  const aborted = await raw(world.port, headerSection('/'))
  t.match(aborted, /begin/)
  t.notMatch(aborted, /end\r\n0/, 'the response is reset, not ended')
  t.equal((await world.send('/patient')).body, 'begin end')
  const late = await raw(world.port, headerSection('/whole'))
  t.match(late, /begin/)
  t.notMatch(late, /end\r\n0/, 'the response is reset, not ended')
  await world.idle()
})

t.test('hedge.after: the fast attempt wins, the slow one is aborted; methods; metrics', async (t) => {
  const world = await gatewayTo(
    t,
    'retry: false, hedge: { after: 100ms }, outlierDetection: { consecutive5xx: 1 }',
    `  - { name: plain, match: { path: /plain }, service: orders, mesh: { hedge: false } }
  - { name: posts, match: { path: /posts }, service: orders, mesh: { hedge: { after: 50ms, methods: [POST] } } }`
  )
  const slow = '?delay=4000&at=a'
  t.strictSame(await world.spread(4, `/${slow}`), { b: 4 })
  const won = (await world.metric(series('hedges_total', ',outcome="won"')))!
  t.ok(won >= 2)
  await eventually(() => world.some[0]!.aborted >= won)
  t.ok((await world.metric(series('attempts_total', ',outcome="hedged"')))! >= won)
  t.equal((await world.service('orders')).instances[0]!.available, true, 'the attempt that lost counts as no failure')
  const responses = [
    await raw(world.port, post(`/posts${slow}`, 'x')),
    await raw(world.port, post(`/posts${slow}`, 'x'))
  ]
  t.strictSame(
    responses.map((text) => parse(text).headers['x-instance']),
    ['b', 'b']
  )
  t.ok(world.some[1]!.seen.filter(({ method }) => method === 'POST').every(({ body }) => String(body) === 'x'))
  t.ok((await world.chain('/')).includes('hedge'))
  t.notOk((await world.chain('/plain')).includes('hedge'))
  t.strictSame(await world.spread(2, '/plain?delay=200&at=a'), { a: 1, b: 1 })
  await world.idle()
})

t.test('hedge.percentile, once 50 latencies are known; hedge.attempts', async (t) => {
  const names = ['a', 'b', 'c']
  const world = await gatewayTo(t, 'hedge: { percentile: 90, attempts: 2 }, retry: { budget: 100% }', '', names)
  await world.spread(60, '/')
  world.some[0]!.respond = () => true
  world.some[1]!.respond = () => true
  // Two hedges: the first may select the other instance that never responds.
  // So many that some certainly begin at one of these.
  t.strictSame(await world.spread(30, '/'), { c: 30 })
  t.ok((await world.metric(series('hedges_total', ',outcome="won"')))! >= 1)
  await world.idle()
})
