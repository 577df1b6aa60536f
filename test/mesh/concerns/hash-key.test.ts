/** The hash of a call: its sources, the generated cookie, and the same hash for all attempts. */
import type { Test } from 'tap'
import t from 'tap'
import type { HashSource } from '../../../config/schema.ts'
import { hash32 } from '../../../plugins/mesh/balancing/hash.ts'
import { createBalancer } from '../../../plugins/mesh/balancing/index.ts'
import type { BalanceOptions } from '../../../plugins/mesh/balancing/schema.ts'
import type { DispatchHandler, DispatchOptions } from '../../../plugins/mesh/core/types.ts'
import { fleet, options, seeded } from '../../helpers/mesh/instances.ts'
import { meshOf, Recorder, retryOptions, service } from '../../helpers/mesh/mesh.ts'
import { resetting, upstream } from '../../helpers/mesh/servers.ts'

/** A service of three instances, balanced by ring-hash; each responds with its number. */
async function ofThree(t: Test, balance: Partial<BalanceOptions>, setCookie?: string | string[]) {
  const servers = await Promise.all(
    ['1', '2', '3'].map((name) =>
      upstream(t, name, (_request, response) => {
        if (setCookie !== undefined) response.setHeader('set-cookie', setCookie)
        response.end(name)
      })
    )
  )
  const urls = servers.map(({ url }) => url)
  const policy = options({ policy: 'ring-hash', ...balance })
  const mesh = meshOf(t, [service('s', urls, { balance: policy })], { random: seeded(1) })
  const ask = async (more: Partial<DispatchOptions> = {}) => {
    const request = { origin: 'http://s.mesh', path: '/', method: 'GET', ...more } as DispatchOptions
    const { body, headers } = await mesh.request(request as Parameters<typeof mesh.request>[0])
    return { by: await body.text(), cookie: headers['set-cookie'] }
  }
  return { ask, mesh, urls, servers }
}

t.test('calls with the same key go to the same instance, and many keys use all instances', async (t) => {
  const { ask, mesh } = await ofThree(t, { hashOn: 'header:x-user' })
  t.ok(mesh.describe('s').includes('hash'))
  const homes = new Map<string, string>()
  for (let user = 0; user < 60; user++) homes.set(String(user), (await ask({ headers: { 'x-user': String(user) } })).by)
  t.equal(new Set(homes.values()).size, 3)
  for (const [user, home] of homes)
    t.equal((await ask({ headers: ['X-User', user] })).by, home, `instance of user ${user}`)
})

t.test('the key can be a query parameter, the consumer or the address', async (t) => {
  const caller = (id: string) => ({ ip: `10.0.0.${id}`, consumer: { id }, trusted: false })
  const requests: [HashSource, (key: string) => Partial<DispatchOptions>][] = [
    ['query:q', (key) => ({ path: `/?q=${key}` })],
    ['consumer', (key) => ({ caller: caller(key) })],
    ['ip', (key) => ({ caller: caller(key) })],
    ['cookie:c', (key) => ({ headers: { cookie: `c=${key}` } })]
  ]
  for (const [hashOn, requestOf] of requests) {
    const { ask } = await ofThree(t, { policy: 'maglev', hashOn })
    const homes: string[] = []
    for (let i = 0; i < 60; i++) homes.push((await ask(requestOf(String(i)))).by)
    t.equal(new Set(homes).size, 3, hashOn)
    for (const i of [0, 7, 13]) t.equal((await ask(requestOf(String(i)))).by, homes[i], hashOn)
  }
})

t.test('a call without a value goes to any instance, and sets no cookie unless configured', async (t) => {
  for (const hashOn of ['header:x-user', 'cookie:c', 'query:q', 'ip', 'consumer'] as const) {
    const { ask } = await ofThree(t, { hashOn })
    const seen = new Set<string>()
    for (let i = 0; i < 60; i++) {
      const { by, cookie } = await ask()
      seen.add(by)
      t.equal(cookie, undefined)
    }
    t.equal(seen.size, 3, hashOn)
  }
})

t.test('a caller without the cookie gets the one of its instance', async (t) => {
  const { ask } = await ofThree(t, { hashOn: 'cookie:jw', cookieTtl: 3_600_000 })
  const minted = new Set<string>()
  for (let i = 0; i < 10; i++) {
    const first = await ask({ headers: { cookie: 'other=1' } })
    const [, pair] = /^(jw=[0-9a-f]{16}); Path=\/; HttpOnly; SameSite=Lax; Max-Age=3600$/.exec(String(first.cookie))!
    minted.add(pair!)
    const again = await ask({ headers: { cookie: `other=1; ${pair}` } })
    t.equal(again.by, first.by)
    t.equal(again.cookie, undefined, 'once')
  }
  t.equal(minted.size, 10)
})

t.test('a session cookie is set beside the cookies of the service', async (t) => {
  const one = await ofThree(t, { hashOn: 'cookie:jw', cookieTtl: 0 }, 'theirs=1')
  t.match((await one.ask()).cookie, ['theirs=1', /^jw=[0-9a-f]{16}; Path=\/; HttpOnly; SameSite=Lax$/])
  const two = await ofThree(t, { hashOn: 'cookie:jw', cookieTtl: 0 }, ['theirs=1', 'theirs=2'])
  t.match((await two.ask()).cookie, ['theirs=1', 'theirs=2', /^jw=/])
  t.equal((await two.ask({ headers: { cookie: 'jw=x' } })).cookie?.length, 2)
})

t.test('the cookie is on the response and on an upgrade, not on a 1xx', async (t) => {
  const hinting = await upstream(t, 'hinting', (_request, response) => {
    response.writeEarlyHints({ link: '</a.css>; rel=preload' })
    response.end()
  })
  hinting.server.on('upgrade', (_request, socket) => {
    socket.end('HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n')
  })
  const balance = options({ policy: 'ring-hash', hashOn: 'cookie:jw', cookieTtl: 0 })
  const mesh = meshOf(t, [service('s', [hinting.url], { balance })])
  const seen: [status: number, cookie: unknown][] = []
  const recorder = Object.assign(new Recorder(), {
    onResponseStart: (_: unknown, status: number, headers: Record<string, unknown>) =>
      void seen.push([status, headers['set-cookie']])
  })
  mesh.dispatch({ origin: 'http://s.mesh', path: '/', method: 'GET' }, recorder)
  await recorder.done
  t.match(seen, [
    [103, undefined],
    [200, [/^jw=/]]
  ])
  const upgraded = Promise.withResolvers<unknown>()
  const onRequestUpgrade: DispatchHandler['onRequestUpgrade'] = (_controller, _status, headers, socket) => {
    socket.destroy()
    upgraded.resolve(headers['set-cookie'])
  }
  const handler = Object.assign(new Recorder(), { onRequestUpgrade })
  mesh.dispatch({ origin: 'http://s.mesh', path: '/', method: 'GET', upgrade: 'websocket' }, handler)
  t.match(await upgraded.promise, [/^jw=/])
})

t.test('other policies hash nothing', async (t) => {
  const { ask, mesh } = await ofThree(t, { policy: 'round-robin', hashOn: 'cookie:jw', cookieTtl: 0 })
  t.notOk(mesh.describe('s').includes('hash'))
  t.equal((await ask()).cookie, undefined)
  const none = await ofThree(t, { policy: 'ring-hash' })
  t.notOk(none.mesh.describe('s').includes('hash'))
})

t.test('a retry goes to the next instance of the ring, the same for all calls of a key', async (t) => {
  const [bad, one, two] = [await resetting(t), await upstream(t, '1'), await upstream(t, '2')]
  const balance = options({ policy: 'ring-hash', hashOn: 'header:x-user' })
  const mesh = meshOf(t, [service('s', [bad.url, one.url, two.url], { balance, retry: retryOptions })])
  const specs = [bad.url, one.url, two.url].map((url, i) => ({ ...fleet(3)[i]!, id: url }))
  const ring = createBalancer(balance, specs, { random: () => 0, now: () => 0 })
  const users = Array.from({ length: 200 }, (_, i) => `u${i}`)
  const unlucky = users.filter((user) => ring.pick(null, hash32(user))!.id === bad.url).slice(0, 8)
  t.ok(unlucky.length > 3)
  for (const user of unlucky) {
    const { body } = await mesh.request({
      origin: 'http://s.mesh',
      path: '/',
      method: 'GET',
      headers: { 'x-user': user }
    })
    const expected = ring.pick(new Set([specs[0]!.endpoint]), hash32(user))!.id
    t.equal(await body.text(), expected === one.url ? '1' : '2', user)
  }
  t.equal(bad.count(), unlucky.length)
})
