/** Destinations of calls, and injected faults: splits, sticky splits, mirrors, injected faults. */
import { setTimeout as sleep } from 'node:timers/promises'
import t from 'tap'
import { claims, secret, token } from '../../helpers/edge/tokens.ts'
import { eventually } from '../../helpers/eventually.ts'
import { parse, raw } from '../../helpers/gateway.ts'
import { gatewayOf, headerSection, instances } from './support.ts'

t.test('split: by weight; a match by header, cookie or consumer goes before it', async (t) => {
  const [main, next] = await instances(t, 'main', 'next')
  const world = await gatewayOf(
    t,
    `
services: { main: { instances: [${main!.url}] }, next: { instances: [${next!.url}] } }
routes:
  - name: shop
    match: { path: /shop }
    split:
      - { service: main, weight: 3 }
      - { service: next, weight: 1 }
  - name: beta
    match: { path: /beta }
    edge: { jwt: { secret: ${secret} } }
    split:
      - { service: main, weight: 1 }
      - { service: next, match: { headers: { X-Beta: "1" } } }
      - { service: next, match: { cookies: { ring: canary }, headers: { x-too: "2" } } }
      - { service: next, match: { consumers: [alice] } }
`
  )
  const shared = await world.spread(80, '/shop')
  t.ok(shared.main! > 40 && shared.next! > 5, JSON.stringify(shared))

  const by = async (sub: string, ...headers: string[]) => {
    const { instance } = await world.send('/beta', [`Authorization: Bearer ${token(claims({ sub }))}`, ...headers])
    return instance
  }
  t.equal(await by('bob'), 'main')
  t.equal(await by('bob', 'x-beta: 1'), 'next')
  t.equal(await by('bob', 'x-beta: 10'), 'main')
  t.equal(await by('bob', 'Cookie: a=b; ring=canary', 'x-too: 2'), 'next')
  t.equal(await by('bob', 'Cookie: ring=canary'), 'main', 'all conditions of a match must hold')
  t.equal(await by('alice'), 'next')

  const named = async (more: string) => (await world.explain('/beta', more)).mesh.map(({ service }) => service)
  t.strictSame(await named('&consumer=alice'), ['next'])
  t.strictSame(await named('&header=x-beta:1'), ['next'])
  t.strictSame((await world.explain('/shop')).mesh[1]!.share, { weight: 1, matched: false })
})

t.test(
  'stickOn and hashOn, each by its cookie: both Set-Cookie headers are sent beside those of the service',
  async (t) => {
    const [a, b, c, d] = await instances(t, 'a', 'b', 'c', 'd')
    const world = await gatewayOf(
      t,
      `
mesh: { balance: { policy: ring-hash, hashOn: "cookie:instance", cookieTtl: 1h } }
services: { blue: { instances: [${a!.url}, ${b!.url}] }, green: { instances: [${c!.url}, ${d!.url}] } }
routes:
  - name: shop
    match: { path: / }
    stickOn: cookie:color
    split: [{ service: blue, weight: 1 }, { service: green, weight: 1 }]
`
    )
    const met = new Set<string>()
    for (let visitor = 0; visitor < 12; visitor++) {
      const first = await world.send('/?header=set-cookie:own=1')
      const cookies = first.headers['set-cookie']!.split('\n')
      t.match(cookies.toSorted(), [
        /^color=\w+; Path=\/; HttpOnly; SameSite=Lax$/,
        /^instance=\w+; Path=\/; HttpOnly; SameSite=Lax; Max-Age=3600$/,
        /^own=1$/
      ])
      met.add(first.instance)
      const cookie = `Cookie: ${cookies.map((line) => line.split(';')[0]).join('; ')}`
      for (let visit = 0; visit < 3; visit++) {
        const again = await world.send('/', [cookie])
        t.equal(again.instance, first.instance)
        t.equal(again.headers['set-cookie'], undefined)
      }
    }
    t.ok(met.size > 1, 'visitors are spread over several instances')
  }
)

t.test('one cookie for stickOn and hashOn is set once; later visits reach the instance of the first', async (t) => {
  const [a, b, c, d] = await instances(t, 'a', 'b', 'c', 'd')
  const world = await gatewayOf(
    t,
    `
mesh: { balance: { policy: ring-hash, hashOn: "cookie:sid", cookieTtl: 1h } }
services: { blue: { instances: [${a!.url}, ${b!.url}] }, green: { instances: [${c!.url}, ${d!.url}] } }
routes:
  - name: shop
    match: { path: / }
    stickOn: cookie:sid
    split: [{ service: blue, weight: 1 }, { service: green, weight: 1 }]
`
  )
  for (let visitor = 0; visitor < 12; visitor++) {
    const { headers, instance } = await world.send('/')
    t.match(headers['set-cookie'], /^sid=\w+; Path=\/; HttpOnly; SameSite=Lax; Max-Age=3600$/)
    t.strictSame(await world.spread(2, '/', () => [`Cookie: ${headers['set-cookie']!.split(';')[0]}`]), {
      [instance]: 2
    })
  }
})

const xs = 'x'.repeat(3000)
const sized = headerSection('/orders?n=1', ['X-Forwarded-For: 9.9.9.9', `Content-Length: ${xs.length}`], 'POST') + xs
const chunked = `${headerSection('/orders?n=2', ['Transfer-Encoding: chunked'], 'POST')}5\r\nhello\r\n6\r\n world\r\n0\r\n\r\n`

t.test('mirror: a copy with the body and the forwarding headers; false on a route', async (t) => {
  const [orders, shadow] = await instances(t, 'orders', 'shadow')
  const world = await gatewayOf(
    t,
    `
listen: { trustProxy: [127.0.0.0/8] }
mesh: { mirror: { service: shadow, maxBody: 4kb } }
services:
  orders: { instances: [${orders!.url}] }
  shadow: { instances: [${shadow!.url}], mesh: { fault: { abort: { status: 500, percent: 0% } } } }
routes:
  - { name: orders, match: { path: /orders }, service: orders }
  - { name: plain, match: { path: /plain }, service: orders, mesh: { mirror: false } }
  - { name: seldom, match: { path: /seldom }, service: orders, mesh: { mirror: { service: shadow, percent: 0% } } }
`
  )
  t.match(parse(await raw(world.port, sized)), { status: 200, headers: { 'x-instance': 'orders' } })
  t.match(parse(await raw(world.port, chunked)), { status: 200, headers: { 'x-instance': 'orders' } })
  await eventually(() => shadow!.seen.length === 2)
  const [first, second] = shadow!.seen
  t.equal(String(first!.body), xs)
  t.match(first, { method: 'POST', url: '/orders?n=1' })
  t.match(first!.headers, { host: 'h-shadow', 'x-forwarded-for': '9.9.9.9, 127.0.0.1', 'x-forwarded-host': 'h' })
  t.equal(first!.headers['content-length'], '3000')
  t.equal(String(second!.body), 'hello world')
  t.match(second!.headers, { 'x-forwarded-for': '127.0.0.1', 'x-forwarded-proto': 'http' })

  t.equal((await world.send('/orders', [], 'HEAD')).status, 200)
  t.equal((await world.send('/orders', [], 'OPTIONS')).status, 200)
  await eventually(() => shadow!.seen.length === 4)
  const large = 'x'.repeat(5000)
  const response = await raw(world.port, headerSection('/orders', ['Content-Length: 5000'], 'POST') + large)
  t.equal(parse(response).status, 200)
  t.equal(String(orders!.seen.at(-1)!.body), large)
  await world.send('/plain')
  await world.send('/seldom')
  await world.idle()
  t.equal(shadow!.seen.length, 4, 'the shadow service does not mirror to itself')
  t.equal(await world.metric('jingwei_mesh_mirrored_total{service="orders",outcome="sent"}'), 4)
  t.equal(await world.metric('jingwei_mesh_mirrored_total{service="orders",outcome="too-large"}'), 1)
  t.equal(await world.metric('jingwei_mesh_attempts_total{service="shadow",outcome="success"}'), 4)
  t.match((await world.service('orders')).concerns, { 'mirror to shadow': { active: 0 } })
  t.ok((await world.chain('/orders')).includes('mirror'))
  t.notOk((await world.chain('/plain')).includes('mirror'))

  const before = shadow!.seen.length
  await shadow!.close()
  t.equal((await world.send('/orders')).status, 200, 'an unavailable shadow service fails no request')
  await world.until('jingwei_mesh_mirrored_total{service="orders",outcome="failed"}', 1)
  t.equal(shadow!.seen.length, before)
})

t.test('mirror: at most maxActive copies in flight; no response waits for them', async (t) => {
  const [orders, shadow] = await instances(t, 'orders', 'shadow')
  shadow!.respond = (_request, response) => shadow!.held.push(response) > 0
  const world = await gatewayOf(
    t,
    `
services:
  orders: { instances: [${orders!.url}], mesh: { mirror: { service: shadow, maxActive: 2 } } }
  shadow: { instances: [${shadow!.url}], mesh: { mirror: { service: orders } } }
routes: [{ name: orders, match: { path: / }, service: orders }]
`
  )
  t.strictSame(await world.spread(5, '/'), { orders: 5 })
  await eventually(() => shadow!.held.length === 2)
  t.equal(await world.metric('jingwei_mesh_mirrored_total{service="orders",outcome="dropped"}'), 3)
  t.match((await world.service('orders')).concerns, { 'mirror to shadow': { active: 2 } })
  for (const response of shadow!.held) response.end()
  await world.idle()
  t.equal(orders!.seen.length, 5, 'a mirrored request is not mirrored again')
})

t.test('fault: delay, abort, bandwidth; percentages; a route’s fault replaces the service’s', async (t) => {
  const [orders] = await instances(t, 'orders')
  const world = await gatewayOf(
    t,
    `
mesh: { fault: { abort: { status: 418 } } }
services:
  orders: { instances: [${orders!.url}] }
  calm: { instances: [${orders!.url}], mesh: { fault: false } }
routes:
  - { name: abort, match: { path: /abort }, service: orders }
  - { name: delay, match: { path: /delay }, service: orders, mesh: { fault: { delay: { for: 200ms } } } }
  - { name: slow, match: { path: /slow }, service: orders, mesh: { fault: { bandwidth: { limit: 2kb } } } }
  - { name: some, match: { path: /some }, service: orders, mesh: { fault: { abort: { status: 503, percent: 50% } } } }
  - { name: none, match: { path: /none }, service: orders, mesh: { fault: false } }
  - { name: calm, match: { path: /calm }, service: calm }
`
  )
  const timed = async (target: string) => {
    const begun = performance.now()
    const { status } = await world.send(target)
    return { status, ms: performance.now() - begun }
  }
  t.match(await world.send('/abort'), { status: 418, body: 'injected fault' })
  t.match(await world.send('/abort', [], 'HEAD'), { status: 418, body: '' })
  t.equal(orders!.seen.length, 0)
  const delayed = await timed('/delay')
  t.ok(delayed.status === 200 && delayed.ms >= 190, `${delayed.ms} ms`)
  orders!.respond = (_request, response) => Boolean(response.end('x'.repeat(1024)))
  const slow = await timed('/slow')
  t.ok(slow.status === 200 && slow.ms >= 400, `${slow.ms} ms for 1 kb at 2 kb/s`)
  orders!.respond = () => false
  const some = await world.spread(60, '/some')
  t.ok(some.orders! > 10 && some['503']! > 10, JSON.stringify(some))
  t.equal((await world.send('/none')).status, 200)
  t.equal((await world.send('/calm')).status, 200)
  t.ok((await world.metric('jingwei_mesh_faults_total{service="orders",kind="abort"}'))! > 12)
  t.equal(await world.metric('jingwei_mesh_faults_total{service="orders",kind="delay"}'), 1)
  t.equal(await world.metric('jingwei_mesh_faults_total{service="orders",kind="bandwidth"}'), 1)
  t.ok((await world.chain('/abort')).includes('fault'))
  for (const path of ['/none', '/calm']) t.notOk((await world.chain(path)).includes('fault'))
  t.match((await world.service('orders')).concerns, { fault: { active: 0 } })
})

t.test('fault.header: only for peers in trustProxy; the header of another client is not forwarded', async (t) => {
  const [orders] = await instances(t, 'orders')
  const yaml = (trusted: string, maxActive = 1000) => `
listen: { trustProxy: [${trusted}] }
services: { orders: { instances: [${orders!.url}], mesh: { fault: { header: true, maxActive: ${maxActive} } } } }
routes: [{ name: orders, match: { path: / }, service: orders }]
`
  const inner = await gatewayOf(t, yaml('127.0.0.1'))
  const faultHeader = ['X-Jingwei-Fault-Abort: 418']
  t.equal((await inner.send('/', faultHeader)).status, 418)
  const begun = performance.now()
  t.equal((await inner.send('/', ['x-jingwei-fault-delay: 150'])).status, 200)
  t.ok(performance.now() - begun >= 140)
  t.equal((await inner.send('/', ['x-jingwei-fault-abort: nonsense'])).status, 200)

  const stranger = await gatewayOf(t, yaml('10.0.0.0/8'))
  t.equal((await stranger.send('/', faultHeader)).status, 200)

  const none = await gatewayOf(t, yaml('127.0.0.1', 1))
  const slow = none.begin('/', headerSection('/', ['x-jingwei-fault-delay: 1000']))
  while ((await none.service('orders')).concerns.fault!.active !== 1) await sleep(5)
  t.equal((await none.send('/', faultHeader)).status, 200, 'maxActive faults are active already')
  t.equal(await none.metric('jingwei_mesh_fault_overflows_total{service="orders"}'), 1)
  t.match((await slow.closed).text, /^HTTP\/1\.1 200/)

  // The inner gateway trusts the address of the outer one. The outer gateway does not trust its client.
  const outer = await gatewayOf(
    t,
    `
services: { inner: { instances: ["http://127.0.0.1:${inner.port}"] } }
routes: [{ name: inner, match: { path: / }, service: inner }]
`
  )
  t.equal((await outer.send('/', faultHeader)).status, 200, 'the outer gateway removes the header')
})
