// The limits of real configurations for other gateways, each with the requests that show what they mean.
import { createHash } from 'node:crypto'
import type { Test } from 'tap'
import t from 'tap'
import { claims, secret, token } from '../../helpers/edge/tokens.ts'
import { gatewayBefore, get, startEcho } from '../../helpers/gateway.ts'

async function started(t: Test, config: object) {
  const echo = await startEcho()
  t.teardown(echo.close)
  const { port } = await gatewayBefore(t, echo.url, config)
  return async (paths: string[], headers: string[] = []) => {
    const all: number[] = []
    for (const path of paths) all.push((await get(port, path, headers)).status)
    return all
  }
}

const route = (name: string, more: object = {}) => ({ name, match: { path: `/${name}` }, service: 'any', ...more })

t.test('Kong: rate-limiting on a service with several routes, in several windows, with JWT', async (t) => {
  const ask = await started(t, {
    edge: {
      jwt: { secret },
      rateLimit: [
        { max: 3, window: '1m', name: 'events' },
        { max: 4, window: '1h', name: 'events' }
      ]
    },
    routes: ['create', 'list', 'pay', 'refund'].map((name) => route(name))
  })
  const ann = [`Authorization: Bearer ${token(claims())}`]
  t.same(await ask(['/create', '/list', '/pay', '/refund', '/list'], ann), [200, 200, 200, 429, 429])
})

t.test('Kong: rate-limiting of one consumer, with key-auth', async (t) => {
  const keyAuth = (key: string) => [{ hash: `sha256:${createHash('sha256').update(key).digest('hex')}` }]
  const ask = await started(t, {
    consumers: [
      { name: 'farm', keyAuth: keyAuth('the key of the farm, which is long') },
      {
        name: 'bank',
        keyAuth: keyAuth('the key of the bank, which is long'),
        edge: { rateLimit: { max: 3, window: '1m' } }
      }
    ],
    edge: { keyAuth: { header: 'apikey' }, rateLimit: { max: 1, window: '1m', by: 'consumer' } },
    routes: [route('credit')]
  })
  const credit = Array<string>(4).fill('/credit')
  t.same(await ask(credit, ['apikey: the key of the farm, which is long']), [200, 429, 429, 429])
  t.same(await ask(credit, ['apikey: the key of the bank, which is long']), [200, 200, 200, 429])
})

t.test('Traefik: rateLimit with average, period and burst', async (t) => {
  const rateLimit = { max: 1, window: '1h', algorithm: 'token-bucket', burst: 3 }
  const ask = await started(t, { routes: [route('site', { edge: { rateLimit } })] })
  t.same(await ask(Array<string>(5).fill('/site')), [200, 200, 200, 429, 429])
})

t.test('Spring Cloud Gateway: RequestRateLimiter with a key resolver for a header', async (t) => {
  const rateLimit = {
    max: 1, window: '1h', algorithm: 'token-bucket', burst: 4, cost: 2, by: 'header:x-user', maxPerAddress: 50
  } // biome-ignore format: one limit
  const ask = await started(t, { routes: [route('accounts', { edge: { rateLimit } })] })
  t.same(await ask(Array<string>(3).fill('/accounts'), ['X-User: ann']), [200, 200, 429])
  t.same(await ask(['/accounts'], ['X-User: bob']), [200])
})

t.test('nginx: one limit_req zone over all locations, and another for logins', async (t) => {
  const bucket = { window: '1h', algorithm: 'token-bucket' }
  const all = { ...bucket, max: 10, burst: 6, name: 'all' }
  const login = { ...bucket, max: 5, burst: 2, name: 'login' }
  const ask = await started(t, {
    edge: { rateLimit: all },
    routes: [route('shop'), route('cart'), route('login', { edge: { rateLimit: [all, login] } })]
  })
  t.same(await ask(['/login', '/login', '/login']), [200, 200, 429])
  t.same(await ask(['/shop', '/cart', '/shop', '/cart', '/shop']), [200, 200, 200, 200, 429])
})
