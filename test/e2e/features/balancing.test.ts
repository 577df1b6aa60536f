/** Every key of `mesh.balance`. */
import { setTimeout as sleep } from 'node:timers/promises'
import type { Test } from 'tap'
import t from 'tap'
import { claims, secret, token } from '../../helpers/edge/tokens.ts'
import { eventually } from '../../helpers/eventually.ts'
import type { Instance } from './support.ts'
import { gatewayOf, instances, urls } from './support.ts'

async function balanced(t: Test, balance: string, names = ['a', 'b', 'c'], more = '') {
  const some = await instances(t, ...names)
  const world = await gatewayOf(
    t,
    `
listen: { trustProxy: [127.0.0.1] }
services:
  orders:
    instances: ${urls(some)}
    mesh: { balance: ${balance}${more} }
routes: [{ name: orders, match: { path: / }, service: orders }]
`
  )
  return { some, ...world }
}

t.test('round-robin, for all services; another policy for one; weights', async (t) => {
  const [a, b] = await instances(t, 'a', 'b')
  const world = await gatewayOf(
    t,
    `
mesh: { balance: round-robin }
services:
  even: { instances: [${a!.url}, ${b!.url}] }
  heavy: { instances: [{ url: "${a!.url}", weight: 3 }, ${b!.url}] }
  drained: { instances: [{ url: "${a!.url}", weight: 0 }, ${b!.url}] }
  random: { instances: [${a!.url}, ${b!.url}], mesh: { balance: random } }
routes:
  - { name: even, match: { path: /even }, service: even }
  - { name: heavy, match: { path: /heavy }, service: heavy }
  - { name: drained, match: { path: /drained }, service: drained }
  - { name: random, match: { path: /random }, service: random }
`
  )
  t.strictSame(await world.spread(10, '/even'), { a: 5, b: 5 })
  t.strictSame(await world.spread(8, '/heavy'), { a: 6, b: 2 })
  t.strictSame(await world.spread(5, '/drained'), { b: 5 })
  const random = await world.spread(60, '/random')
  t.ok(random.a! > 10 && random.b! > 10, JSON.stringify(random))
  t.equal((await world.service('heavy')).instances[0]!.weight, 3)
  t.equal(await world.metric('jingwei_mesh_instances{service="even",state="available"}'), 2)
})

t.test('least-request, the default: an instance with many active requests gets no more; choices', async (t) => {
  const { some, begin, spread, idle } = await balanced(t, '{ choices: 16 }')
  const [slow] = some as [Instance]
  // With 16 choices all three instances are compared, so the selection is deterministic.
  const clients = Array.from({ length: 3 }, () => begin('/?hold'))
  await eventually(() => some.every(({ held }) => held.length === 1))
  for (const { held } of some.slice(1)) held[0]!.end()
  await eventually(() => some.every(({ seen }) => seen.length === 1))
  await sleep(20)
  const tally = await spread(20, '/')
  t.equal(tally.a, undefined, JSON.stringify(tally))
  slow.held[0]!.end()
  for (const client of clients) t.match((await client.closed).text, /^HTTP\/1\.1 200/)
  await idle()
})

for (const policy of ['ring-hash, ringSize: 512', 'maglev, tableSize: 1021']) {
  t.test(`hashOn header, query, ip, consumer, cookie: ${policy}`, async (t) => {
    const sources: [string, (who: string) => [target: string, headers: string[]]][] = [
      ['header:X-User', (who) => ['/', [`x-user: ${who}`]]],
      ['query:user', (who) => [`/?user=${who}`, []]],
      ['ip', (who) => ['/', [`X-Forwarded-For: 10.0.0.${Number.parseInt(who, 36) % 250}`]]],
      ['consumer', (who) => ['/', [`Authorization: Bearer ${token(claims({ sub: who }))}`]]],
      ['cookie:sid', (who) => ['/', [`Cookie: a=b; sid=${who}`]]]
    ]
    const some = await instances(t, 'a', 'b', 'c')
    const name = (source: string) => source.split(':')[0]
    const world = await gatewayOf(
      t,
      `
listen: { trustProxy: [127.0.0.1] }
services:
${sources.map(([source]) => `  ${name(source)}: { instances: ${urls(some)}, mesh: { balance: { policy: ${policy}, hashOn: "${source}" } } }`).join('\n')}
routes:
${sources.map(([source]) => `  - { name: ${name(source)}, match: { path: /, hosts: [${name(source)}] }, service: ${name(source)}${source === 'consumer' ? `, edge: { jwt: { secret: ${secret} } }` : ''} }`).join('\n')}
`
    )
    for (const [source, request] of sources) {
      const met = new Set<string>()
      for (const who of ['ann', 'bob', 'eve', 'joe', 'kim', 'lea', 'max', 'ned', 'ora', 'pam', 'sid', 'tim']) {
        const [target, headers] = request(who)
        const host = `Host: ${name(source)}`
        const tally = await world.spread(3, target, () => [...headers, host])
        t.equal(Object.keys(tally).length, 1, `${source}, ${who}: ${JSON.stringify(tally)}`)
        met.add(Object.keys(tally)[0]!)
      }
      t.ok(met.size > 1, source)
    }
    const explained = await world.explain('/', '&header=host:header&header=x-user:ann')
    const { instance } = await world.send('/', ['Host: header', 'x-user: ann'])
    const origin = some.find((each) => each.name === instance)!.url
    t.ok(explained.mesh[0]!.chain.includes('hash'))
    t.equal(explained.mesh[0]!.hashed, origin)
  })
}

t.test('maxLoad: a popular key overflows', async (t) => {
  const balance = '{ policy: ring-hash, hashOn: "header:x-user", maxLoad: 120% }'
  const { some, begin, idle } = await balanced(t, balance)
  const popular = 'GET /?hold HTTP/1.1\r\nHost: h\r\nx-user: ann\r\nConnection: close\r\n\r\n'
  const clients = Array.from({ length: 9 }, () => begin('', popular))
  await eventually(() => some.reduce((sum, { held }) => sum + held.length, 0) === 9)
  t.ok(
    some.every(({ held }) => held.length <= 4),
    some.map(({ held }) => held.length).join()
  )
  for (const { held } of some) for (const response of held) response.end()
  for (const client of clients) await client.closed
  await idle()
})

t.test('cookieTtl 0s: a session cookie, set once; for HEAD and OPTIONS too', async (t) => {
  const { send } = await balanced(t, '{ policy: maglev, hashOn: cookie:sid, cookieTtl: 0s }')
  for (const method of ['GET', 'HEAD', 'OPTIONS', 'DELETE']) {
    const { headers } = await send('/', [], method)
    t.match(headers['set-cookie'], /^sid=\w+; Path=\/; HttpOnly; SameSite=Lax$/, method)
  }
})

t.test('peak-ewma: a slow instance gets few requests; the admin port shows the measured latencies', async (t) => {
  const { spread, service } = await balanced(t, '{ policy: peak-ewma, decay: 20s }', ['a', 'b'])
  await spread(4, '/?delay=300&at=a')
  const tally = await spread(30, '/')
  t.ok((tally.a ?? 0) < 8, JSON.stringify(tally))
  const { instances } = await service('orders')
  t.ok(
    instances.some(({ concerns }) => JSON.stringify(concerns.balance).includes('ewmaMs')),
    JSON.stringify(instances[0]!.concerns)
  )
})

t.test(
  'panicThreshold: with few available instances, all get requests; 0% disables this; metric and admin port',
  async (t) => {
    const check = ', healthCheck: { interval: 50ms, healthyThreshold: 1 }, retry: false'
    const down = (some: Instance[]) => {
      for (const one of some) {
        one.respond = ({ url }, response) => {
          if (url !== '/health') return false
          response.writeHead(500).end()
          return true
        }
      }
    }
    const usual = await balanced(t, 'round-robin', ['a', 'b', 'c'], check)
    down(usual.some.slice(1))
    await usual.until('jingwei_mesh_panic{service="orders"}', 1)
    t.strictSame(await usual.spread(6, '/'), { a: 2, b: 2, c: 2 })
    t.equal((await usual.service('orders')).panic, true)
    t.equal(await usual.metric('jingwei_mesh_instances{service="orders",state="unavailable"}'), 2)

    const never = await balanced(t, '{ policy: round-robin, panicThreshold: 0% }', ['a', 'b'], check)
    down(never.some)
    await never.until('jingwei_mesh_instances{service="orders",state="unavailable"}', 2)
    const refused = await never.send('/')
    t.match(refused, { status: 503, code: 'JW_NO_INSTANCE', headers: { 'retry-after': '1' } })
    t.equal(await never.metric('jingwei_mesh_panic{service="orders"}'), 0)
    never.some[0]!.respond = () => false
    await never.until('jingwei_mesh_instances{service="orders",state="available"}', 1)
    t.strictSame(await never.spread(3, '/'), { a: 3 })
  }
)

t.test('slowStart: the weight of a recovered instance grows gradually', async (t) => {
  const check = ', healthCheck: { interval: 50ms, healthyThreshold: 1, unhealthyThreshold: 1 }'
  const { some, spread, until } = await balanced(t, '{ policy: round-robin, slowStart: 1h }', ['a', 'b'], check)
  t.strictSame(await spread(10, '/'), { a: 5, b: 5 }, 'no slow start for instances that exist at startup')
  some[1]!.respond = (_request, response) => Boolean(response.writeHead(500).end())
  await until('jingwei_mesh_instances{service="orders",state="unavailable"}', 1)
  some[1]!.respond = () => false
  await until('jingwei_mesh_instances{service="orders",state="available"}', 2)
  const tally = await spread(33, '/')
  t.ok(tally.a! >= 28 && (tally.b ?? 0) >= 1, JSON.stringify(tally))
})
