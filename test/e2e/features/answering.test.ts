/** Every key of `mesh.collapse` and `mesh.fallback`, and the order in which fallbacks apply. */
import type { Test } from 'tap'
import t from 'tap'
import { claims, secret, token } from '../../helpers/edge/tokens.ts'
import { eventually } from '../../helpers/eventually.ts'
import { parse } from '../../helpers/gateway.ts'
import { gatewayOf, headerSection, instances } from './support.ts'

const collapsed = 'jingwei_mesh_collapsed_total{service="orders"}'
const fallbacks = (kind: string, service = 'orders') =>
  `jingwei_mesh_fallbacks_total{service="${service}",kind="${kind}"}`

async function gatewayTo(t: Test, mesh: string, routes = '', more = '') {
  const [orders, spare] = await instances(t, 'orders', 'spare')
  const world = await gatewayOf(
    t,
    `
mesh: { retry: false }
services:
  orders: { instances: [${orders!.url}], mesh: { ${mesh} } }
  spare: { instances: [${spare!.url}] }
${more.replaceAll('SPARE', spare!.url)}
routes:
  - { name: orders, match: { path: / }, service: orders }
${routes}
`
  )
  return { orders: orders!, spare: spare!, ...world }
}

t.test('collapse: identical GETs share a response; other users, methods and routes do not', async (t) => {
  const world = await gatewayTo(
    t,
    'collapse: true',
    `  - { name: apart, match: { path: /apart }, service: orders, mesh: { collapse: false } }
  - { name: named, match: { path: /named }, service: orders, mesh: { collapse: { headers: [traceparent], maxBody: 100b } } }
  - { name: but, match: { path: /but }, service: orders, mesh: { collapse: { excludeHeaders: [X-Campaign] } } }
  - { name: users, match: { path: /users }, service: orders, edge: { jwt: { secret: ${secret} } } }`
  )
  const { orders } = world
  const together = async (paths: string[], sent: number) => {
    const before = orders.seen.length
    const clients = paths.map((text) => world.begin('', text))
    await eventually(() => orders.held.length === sent)
    await eventually(() => clients.every(({ socket }) => socket.bytesWritten > 0))
    await new Promise((resolve) => setTimeout(resolve, 50))
    t.equal(orders.seen.length - before, sent)
    for (const response of orders.held.splice(0)) response.setHeader('content-length', 4).end('done')
    const responses = await Promise.all(clients.map(async ({ closed }) => parse((await closed).text)))
    t.ok(responses.every(({ status }) => status === 200))
    return responses
  }
  const get = (target: string, ...headers: string[]) => headerSection(target, headers)
  const responses = await together([get('/?hold'), get('/?hold'), get('/?hold', 'Traceparent: 2'), get('/?hold&2')], 2)
  t.ok(responses.every(({ body }) => body === 'done'))
  t.equal(await world.metric(collapsed), 2)
  t.equal(
    new Set(responses.map(({ headers }) => headers['x-request-id'])).size,
    4,
    'each response has its own request id'
  )
  const other = [get('/?hold', 'Cookie: sid=2'), get('/?hold', 'Authorization: x'), headerSection('/?hold', [], 'HEAD')]
  await together([get('/?hold', 'Cookie: sid=1'), ...other], 4)
  await together([headerSection('/?hold', [], 'POST'), headerSection('/?hold', [], 'POST')], 2)
  await together([get('/apart?hold'), get('/apart?hold')], 2)
  await together([get('/named?hold', 'Cookie: sid=1'), get('/named?hold', 'Cookie: sid=2')], 2)
  await together([get('/named?hold', 'Traceparent: 1'), get('/named?hold', 'Traceparent: 2')], 2)
  await together([get('/but?hold', 'X-Campaign: 1'), get('/but?hold', 'X-Campaign: 2')], 1)
  await together([get('/named?hold', 'Accept: a/b'), get('/named?hold', 'Accept: c/d')], 2)
  const user = (sub: string) => get('/users?hold', `Authorization: Bearer ${token(claims({ sub }))}`)
  await together([user('ann'), user('bob')], 2)
  t.ok((await world.chain('/')).includes('collapse'))
  t.notOk((await world.chain('/apart')).includes('collapse'))
  await world.idle()
})

t.test('collapse: after a response that may not be shared, each caller sends its own request', async (t) => {
  const world = await gatewayTo(t, 'collapse: { maxBody: 1kb }')
  for (const header of [
    'set-cookie:sid=1',
    'cache-control:private',
    'vary:x-any,x-other',
    'content-type:text/event-stream'
  ]) {
    const before = world.orders.seen.length
    const vary = header.startsWith('vary') ? (i: number) => [`x-any: ${i}`] : () => []
    const clients = [0, 1, 2].map((i) => world.begin('', headerSection(`/?delay=100&header=${header}`, vary(i))))
    for (const { closed } of clients) t.match((await closed).text, /^HTTP\/1\.1 200/)
    t.equal(world.orders.seen.length - before, 3, header)
  }
  world.orders.respond = (_request, response) => {
    setTimeout(() => response.end('x'.repeat(2000)), 100)
    return true
  }
  const clients = [0, 1, 2].map(() => world.begin('/large'))
  for (const { closed } of clients) t.equal(parse((await closed).text).body.length, 2000)
  t.equal(world.orders.seen.filter(({ url }) => url === '/large').length, 3)
  t.equal(await world.metric(collapsed), 0)
  await world.idle()
})

t.test('fallback to a static response: status, headers, body; on; HEAD; false on a route', async (t) => {
  const world = await gatewayTo(
    t,
    `attemptTimeout: 500ms, fallback: [
      { on: [timeout], status: 203, body: slow },
      { on: [404], status: 200, headers: { Content-Type: application/problem+json, X-Own: "1" }, body: '{"items":[]}' },
      { on: [5xx, reset], status: 204 } ]`,
    '  - { name: plain, match: { path: /plain }, service: orders, mesh: { fallback: false } }'
  )
  const marked = { 'x-jingwei-fallback': 'static' }
  t.match(await world.send('/?delay=2500'), { status: 203, body: 'slow', headers: marked })
  const empty = await world.send('/?status=404')
  t.match(empty, { status: 200, body: '{"items":[]}' })
  t.match(empty.headers, {
    ...marked,
    'content-type': 'application/problem+json',
    'x-own': '1',
    'content-length': '12'
  })
  const bare = await world.send('/?status=404', [], 'HEAD')
  t.match(bare, { status: 200, body: '', headers: { 'content-length': '12' } })
  t.match(await world.send('/?status=500'), { status: 204, body: '' })
  t.match(await world.send('/?reset'), { status: 204 })
  t.match(
    await world.send('/?reset', [], 'POST'),
    { status: 204 },
    'the fallback also applies to POST, since it sends no request'
  )
  t.match(await world.send('/?status=429'), { status: 429, instance: 'orders' })
  t.equal((await world.send('/plain?status=404')).status, 404)
  t.equal(await world.metric(fallbacks('static')), 6)
  t.ok((await world.chain('/')).includes('fallback'))
  t.notOk((await world.chain('/plain')).includes('fallback'))
})

t.test('fallback to another service, with its own policy; POST only if no byte of it was sent', async (t) => {
  const world = await gatewayTo(
    t,
    'circuitBreaker: { minRequests: 2, openFor: 1h }, fallback: [{ on: [5xx, reset, circuit-open], service: backup }]',
    '',
    '  backup: { instances: [SPARE], mesh: { circuitBreaker: { minRequests: 2, openFor: 1h } } }'
  )
  const { orders, spare } = world
  const post = (target: string) => world.begin('', `${headerSection(target, ['Content-Length: 5'], 'POST')}hello`)
  const once = parse((await post('/?status=500').closed).text)
  t.equal(once.status, 500, 'no fallback: the first service may have processed the POST')
  t.equal(spare.seen.length, 0)
  const response = await world.send('/?status=500&at=orders')
  t.match(response, { status: 200, instance: 'spare', headers: { 'x-jingwei-fallback': 'service:backup' } })
  t.equal(await world.metric('jingwei_mesh_circuit_state{service="orders"}'), 2)
  const unsent = parse((await post('/').closed).text)
  t.match(unsent, { status: 200, headers: { 'x-instance': 'spare', 'x-jingwei-fallback': 'service:backup' } })
  t.equal(String(spare.seen.at(-1)!.body), 'hello')
  t.equal(orders.seen.length, 2)

  // Once the circuit of the fallback service opens too, the client gets the failure of the original service.
  for (let i = 0; (await world.send('/?status=500')).status === 500; i++) if (i > 9) throw new Error('never opens')
  t.equal(await world.metric('jingwei_mesh_circuit_state{service="backup"}'), 2)
  t.match(await world.send('/'), { status: 503, code: 'JW_CIRCUIT_OPEN' })
  t.ok(Number((await world.send('/')).headers['retry-after']) > 3000)
  await world.idle()
})

t.test(
  'while the circuit is open: the stale response with Age and Cache-Status, then the static one; never a personal response',
  async (t) => {
    const world = await gatewayTo(
      t,
      `circuitBreaker: { minRequests: 3, openFor: 1h }, fallback: [
      { on: [circuit-open, 5xx], stale: { maxAge: 1h, maxEntries: 2, maxBody: 1kb } },
      { on: [circuit-open], status: 200, body: none } ]`
    )
    const first = await world.send('/?header=etag:"1"')
    await world.send('/private?header=cache-control:private')
    await world.send('/mine', ['Cookie: sid=1'])
    const stale = () => world.send('/?header=etag:"1"')
    t.equal((await world.send('/?status=500')).status, 500)
    world.orders.respond = (_request, response) => Boolean(response.writeHead(500).end('broken'))
    const again = await stale()
    t.match(again, { status: 200, body: first.body, headers: { 'x-jingwei-fallback': 'stale', etag: '"1"' } })
    t.match(again.headers, { age: /^\d+$/, 'cache-status': 'jingwei; hit; detail=stale-if-error' })
    for (let i = 0; (await world.metric('jingwei_mesh_circuit_state{service="orders"}')) !== 2; i++) {
      if (i > 9) throw new Error('never opens')
      await world.send('/private?header=cache-control:private')
    }
    const before = world.orders.seen.length
    t.match(await stale(), { status: 200, body: first.body })
    t.match(await world.send('/?header=etag:"1"', [], 'HEAD'), { status: 200, body: '' })
    for (const path of ['/private?header=cache-control:private', '/mine', '/other']) {
      t.match(await world.send(path), { status: 200, body: 'none', headers: { 'x-jingwei-fallback': 'static' } }, path)
    }
    t.equal(world.orders.seen.length, before)
    t.match((await world.service('orders')).concerns, { stale: { answers: 1 } })
    t.equal(await world.metric(fallbacks('stale')), 3)
    t.equal(await world.metric(fallbacks('static')), 3)
  }
)

t.test('fallback for errors of the mesh itself: overloaded, no-instance, connect-failure', async (t) => {
  const [orders, gone] = await instances(t, 'orders', 'gone')
  await gone!.close()
  const world = await gatewayOf(
    t,
    `
mesh: { fallback: [{ status: 299 }] }
services:
  limited: { instances: [${orders!.url}], mesh: { limit: { rate: 1, per: 1h, queueTimeout: 1ms } } }
  capped: { instances: [${orders!.url}], mesh: { circuitBreaker: { maxRequests: 1 } } }
  gone: { instances: [${gone!.url}], mesh: { healthCheck: { interval: 50ms }, balance: { panicThreshold: 0% } } }
  reset: { instances: [${orders!.url}] }
routes:
  - { name: limited, match: { path: /limited }, service: limited }
  - { name: capped, match: { path: /capped }, service: capped }
  - { name: gone, match: { path: /gone }, service: gone }
  - { name: reset, match: { path: /reset }, service: reset }
`
  )
  t.equal((await world.send('/limited')).status, 200)
  t.equal((await world.send('/limited')).status, 299)
  const client = world.begin('/capped?hold')
  await eventually(() => orders!.held.length === 1)
  t.equal((await world.send('/capped')).status, 299)
  orders!.held[0]!.end()
  await client.closed
  t.equal(
    (await world.send('/gone')).status,
    299,
    'connect-failure, or no-instance if the instance is already unavailable'
  )
  await world.until('jingwei_mesh_instances{service="gone",state="unavailable"}', 1)
  t.equal((await world.send('/gone')).status, 299, 'no-instance')
  t.equal((await world.send('/reset?reset')).status, 299)
  t.equal((await world.send('/reset?status=503')).status, 503, '5xx applies only if listed in fallback.on')
})
