// Keys of rate limits in all their spellings, and the units that a refused request uses: none.
import { createHash } from 'node:crypto'
import t from 'tap'
import rateLimit from '../../../plugins/edge/concerns/rate-limit/index.ts'
import { LocalCounter } from '../../../plugins/edge/concerns/rate-limit/store.ts'
import { anyClient, listenFor, protocols } from '../../helpers/edge/asking-client.ts'
import { edgeAppWith } from '../../helpers/edge/edge-app.ts'
import { limitOptions } from '../../helpers/edge/rate-limit-options.ts'
import { gatewayBefore, get, startEcho } from '../../helpers/gateway.ts'

const edgeApp = edgeAppWith(rateLimit)

for (const protocol of protocols) {
  t.test(`by header:host over ${protocol}: a host in all its spellings is one key`, async (t) => {
    const service = await startEcho()
    t.teardown(service.close)
    const limit = { max: 2, window: '1h', by: 'header:Host', maxPerAddress: 100 }
    const pair = { max: 2, window: '1h', by: ['ip', 'header:host'], maxPerAddress: 100 }
    const { port } = await gatewayBefore(t, service.url, {
      listen: listenFor(t, protocol),
      routes: [
        { name: 'alone', match: { path: '/alone' }, service: 'any', edge: { rateLimit: limit } },
        { name: 'pair', match: { path: '/pair' }, service: 'any', edge: { rateLimit: [pair] } }
      ]
    })
    const client = anyClient(t, protocol, port)
    const ask = async (path: string, host: string) => {
      const headers = { [protocol === 'HTTP/2' ? ':authority' : 'host']: host }
      const { status, headers: given } = await client.ask(path, { headers })
      return [status, given['ratelimit-remaining']]
    }
    for (const path of ['/alone', '/pair']) {
      t.same(await ask(path, 'a.example'), [200, '1'])
      t.same(await ask(path, 'A.Example:443'), [200, '0'])
      for (const other of ['a.example', 'a.EXAMPLE', 'a.example.', 'a.example:8080'])
        t.same(await ask(path, other), [429, '0'], other)
      t.same(await ask(path, 'b.example'), [200, '1'], 'another host from the same address')
    }
  })
}

t.test('by header: a value that looks like the hash of a long one is another key', async (t) => {
  const app = await edgeApp([{ name: 'x', edge: { rateLimit: limitOptions({ max: 1, by: 'header:x-key' }) } }])
  t.teardown(() => app.close())
  const ask = async (key: string) => (await app.inject({ url: '/x', headers: { 'x-key': key } })).statusCode
  const long = 'k'.repeat(100)
  const hash = createHash('sha256').update(long).digest('base64url')
  t.equal(await ask(`sha256:${hash}`), 200)
  t.equal(await ask(long), 200, 'the other caller has not used its limit')
  t.equal(await ask(`sha256:${hash}`), 429)
  t.equal(await ask(long), 429)
})

t.test('by header: a request that is refused by its key uses nothing of maxPerAddress', async (t) => {
  const service = await startEcho()
  t.teardown(service.close)
  const limit = { max: 1, window: '1h', by: 'header:x-key', maxPerAddress: 3 }
  const { port } = await gatewayBefore(t, service.url, {
    routes: [
      { name: 'alone', match: { path: '/alone' }, service: 'any', edge: { rateLimit: limit } },
      { name: 'list', match: { path: '/list' }, service: 'any', edge: { rateLimit: [limit] } }
    ]
  })
  for (const path of ['/alone', '/list']) {
    const statuses: number[] = []
    for (const key of ['a', 'a', 'a', 'a', 'b', 'c', 'd'])
      statuses.push((await get(port, path, [`X-Key: ${key}`])).status)
    t.same(statuses, [200, 429, 429, 429, 200, 200, 429], path)
  }
})

t.test('headers: ietf name the limit of the address apart from that of the key', async (t) => {
  const service = await startEcho()
  t.teardown(service.close)
  const limit = { max: 2, window: '1h', by: 'header:x-key', maxPerAddress: 1, headers: 'ietf' }
  const { port } = await gatewayBefore(t, service.url, {
    routes: [
      { name: 'plain', match: { path: '/plain' }, service: 'any', edge: { rateLimit: limit } },
      { name: 'named', match: { path: '/named' }, service: 'any', edge: { rateLimit: { ...limit, name: 'keys' } } }
    ]
  })
  for (const [path, own, address] of [
    ['/plain', '2-in-3600s', '1-in-3600s'],
    ['/named', 'keys', 'keys-per-address']
  ]) {
    const accepted = await get(port, path!, ['X-Key: a'])
    t.equal(accepted.headers['ratelimit-policy'], `"${own}";q=2;w=3600`)
    const refused = await get(port, path!, ['X-Key: b'])
    t.equal(refused.status, 429)
    t.equal(refused.headers['ratelimit-policy'], `"${address}";q=1;w=3600`)
    t.match(refused.headers.ratelimit, `"${address}";r=0;t=`)
  }
})

t.test('a request that is refused uses nothing of a larger limit that takes effect within the window', async (t) => {
  const counter = new LocalCounter(60_000)
  const counted = () => {
    let current = 0
    counter.incr('a', (_error, count) => (current = count.current))
    return current
  }
  t.equal(counter.admit('a', 1)?.current, 1)
  t.equal(counter.admit('a', 1), null)
  t.equal(counted(), 2, 'more than the limit, so that the plugin refuses')
  t.equal(counted(), 2)
  t.equal(counter.admit('a', 2)?.current, 2, 'with the larger limit')
})
