import t from 'tap'
import cors from '../../../plugins/edge/concerns/cors/index.ts'
import { corsOptions } from '../../helpers/edge/cors-options.ts'
import { edgeAppWith } from '../../helpers/edge/edge-app.ts'

const edgeApp = edgeAppWith(cors)

const origin = 'https://app.example.com'
const preflight = (from = origin, method = 'POST', more = {}) => ({
  method: 'OPTIONS' as const,
  headers: { origin: from, 'access-control-request-method': method, ...more }
})
const corsHeaders = (headers: object) => Object.keys(headers).filter((name) => name.startsWith('access-control-'))

t.test('a preflight of an allowed origin gets the methods and headers of the route', async (t) => {
  const app = await edgeApp([
    {
      name: 'orders',
      method: ['GET', 'HEAD', 'POST'],
      preflightOnly: true,
      edge: { cors: corsOptions({ credentials: true, maxAge: 600_500, exposedHeaders: ['x-total'] }) }
    }
  ])
  t.teardown(() => app.close())
  const request = preflight(origin, 'POST', { 'access-control-request-headers': 'x-one, x-two' })
  const response = await app.inject({ url: '/orders', ...request })
  t.equal(response.statusCode, 204)
  t.equal(response.body, '')
  t.match(response.headers, {
    'access-control-allow-origin': origin,
    'access-control-allow-methods': 'GET, HEAD, POST',
    'access-control-allow-headers': 'x-one, x-two',
    'access-control-allow-credentials': 'true',
    'access-control-max-age': '600',
    'content-length': '0',
    vary: 'Origin, Access-Control-Request-Headers'
  })
})

t.test('configured methods and headers are used', async (t) => {
  const cors = corsOptions({ methods: ['PATCH'], allowedHeaders: ['x-a', 'x-b'] })
  const app = await edgeApp([{ name: 'orders', preflightOnly: true, edge: { cors } }])
  t.teardown(() => app.close())
  const request = preflight(origin, 'PATCH', { 'access-control-request-headers': 'x-evil' })
  const { headers } = await app.inject({ url: '/orders', ...request })
  t.equal(headers['access-control-allow-methods'], 'PATCH')
  t.equal(headers['access-control-allow-headers'], 'x-a, x-b')
  t.equal(headers['access-control-max-age'], undefined)
})

t.test('an origin that is not on the list gets no CORS header, only Vary', async (t) => {
  const cors = corsOptions({ credentials: true, exposedHeaders: ['x-total'], maxAge: 1000 })
  const app = await edgeApp([{ name: 'orders', preflightOnly: true, edge: { cors } }])
  t.teardown(() => app.close())
  const strangers = [
    'https://evil.example.com',
    'https://app.example.com.evil.com',
    'https://app.example.com:8443',
    'http://app.example.com',
    'https://APP.example.com',
    'null'
  ]
  for (const stranger of strangers) {
    const preflighted = await app.inject({ url: '/orders', ...preflight(stranger) })
    t.equal(preflighted.statusCode, 204, `preflight of ${stranger} ends at the gateway`)
    t.same(corsHeaders(preflighted.headers), [])
    t.equal(preflighted.headers.vary, 'Origin')
    const sent = await app.inject({ url: '/orders', headers: { origin: stranger } })
    t.same(corsHeaders(sent.headers), [])
    t.equal(sent.headers.vary, 'Origin')
  }
})

t.test('a request without Origin is served, with Vary: Origin', async (t) => {
  const app = await edgeApp([{ name: 'orders', edge: { cors: corsOptions() } }])
  t.teardown(() => app.close())
  const { statusCode, headers } = await app.inject('/orders')
  t.equal(statusCode, 200)
  t.equal(headers['access-control-allow-origin'], undefined)
  t.equal(headers.vary, 'Origin')
})

t.test('the text of a pattern is not an allowed origin', async (t) => {
  const pattern = '/^https:\\/\\/pr-\\d\\.example\\.com$/'
  const app = await edgeApp([
    { name: 'orders', edge: { cors: corsOptions({ origin: [pattern, 'https://*.example.org'] }) } }
  ])
  t.teardown(() => app.close())
  for (const [from, allowed] of [
    ['https://pr-1.example.com', 'https://pr-1.example.com'],
    [pattern, undefined],
    ['https://*.example.org', undefined]
  ] as const) {
    const { headers } = await app.inject({ url: '/orders', headers: { origin: from } })
    t.equal(headers['access-control-allow-origin'], allowed, from)
  }
})

t.test('for any origin, the header is * without Vary', async (t) => {
  for (const any of ['*', ['*']] as const) {
    const app = await edgeApp([{ name: 'orders', edge: { cors: corsOptions({ origin: any as '*' }) } }])
    t.teardown(() => app.close())
    const { headers } = await app.inject({ url: '/orders', headers: { origin } })
    t.equal(headers['access-control-allow-origin'], '*')
    t.equal(headers.vary, undefined)
  }
})

t.test('any origin with credentials is named in the response', async (t) => {
  const app = await edgeApp([{ name: 'orders', edge: { cors: corsOptions({ origin: '*', credentials: true }) } }])
  t.teardown(() => app.close())
  for (const from of ['https://a.example', 'null', `https://${'a'.repeat(400)}.example`, 'https://a.example']) {
    const { headers } = await app.inject({ url: '/orders', headers: { origin: from } })
    t.match(headers, {
      'access-control-allow-origin': from,
      'access-control-allow-credentials': 'true',
      vary: 'Origin'
    })
  }
  const { headers } = await app.inject('/orders')
  t.notOk('access-control-allow-origin' in headers, 'without an origin there is none to name')
  t.equal(headers.vary, 'Origin')
})

t.test('privateNetwork grants preflights of allowed origins that ask for it', async (t) => {
  const asks = { 'access-control-request-private-network': 'true' }
  for (const [privateNetwork, from, more, granted] of [
    [true, origin, asks, 'true'],
    [true, origin, {}, undefined],
    [true, 'https://evil.example', asks, undefined],
    [false, origin, asks, undefined]
  ] as const) {
    const cors = corsOptions({ privateNetwork })
    const app = await edgeApp([{ name: 'orders', preflightOnly: true, edge: { cors } }])
    t.teardown(() => app.close())
    const { headers } = await app.inject({ url: '/orders', ...preflight(from, 'POST', more) })
    t.equal(headers['access-control-allow-private-network'], granted)
    const actual = await app.inject({ url: '/orders', headers: { origin: from, ...more } })
    t.notOk('access-control-allow-private-network' in actual.headers, 'only preflights have it')
  }
})

t.test('an OPTIONS request other than a preflight reaches the service', async (t) => {
  const app = await edgeApp([{ name: 'served', method: ['GET', 'OPTIONS'], edge: { cors: corsOptions() } }])
  t.teardown(() => app.close())
  for (const headers of [{}, { origin }, { 'access-control-request-method': 'GET' }]) {
    const served = await app.inject({ method: 'OPTIONS', url: '/served', headers })
    t.equal(served.statusCode, 200, 'reaches a service that accepts OPTIONS')
  }
  const response = await app.inject({ url: '/served', ...preflight(origin, 'GET') })
  t.equal(response.headers['access-control-allow-methods'], 'GET, OPTIONS')
})

t.test('routes have their own CORS, other routes have none', async (t) => {
  const app = await edgeApp([
    { name: 'one', edge: { cors: corsOptions({ origin: ['https://one.example'] }) } },
    { name: 'two', edge: { cors: corsOptions({ origin: ['https://two.example'] }) } },
    { name: 'off', method: ['GET', 'OPTIONS'], edge: { cors: false } },
    { name: 'unset', edge: {} }
  ])
  t.teardown(() => app.close())
  const from = async (url: string, origin: string) =>
    (await app.inject({ url, headers: { origin } })).headers['access-control-allow-origin']
  t.equal(await from('/one', 'https://one.example'), 'https://one.example')
  t.equal(await from('/one', 'https://two.example'), undefined)
  t.equal(await from('/two', 'https://two.example'), 'https://two.example')
  for (const url of ['/off', '/unset']) {
    const { headers } = await app.inject({ url, headers: { origin: 'https://one.example' } })
    t.same(corsHeaders(headers), [])
    t.equal(headers.vary, undefined)
  }
  t.equal((await app.inject({ url: '/off', ...preflight() })).statusCode, 200, 'preflights go to the service')
})

t.test('origins can be wildcards and regular expressions', async (t) => {
  const patterns = ['https://*.example.com', 'http://localhost:*', '/^https:\\/\\/pr-\\d{1,4}\\.preview\\.dev$/']
  const app = await edgeApp([
    { name: 'orders', preflightOnly: true, edge: { cors: corsOptions({ origin: patterns, credentials: true }) } }
  ])
  t.teardown(() => app.close())
  const allowed = async (from: string) => {
    const sent = await app.inject({ url: '/orders', headers: { origin: from } })
    const preflighted = await app.inject({ url: '/orders', ...preflight(from) })
    const [one, other] = [sent, preflighted].map(({ headers }) => headers['access-control-allow-origin'])
    t.equal(one, other, `${from}: the preflight and the request`)
    t.equal(sent.headers.vary, 'Origin')
    return one
  }
  for (const from of [
    'https://a.example.com',
    'https://a.b.example.com',
    'http://localhost',
    'http://localhost:3000',
    'https://pr-7.preview.dev'
  ]) {
    t.equal(await allowed(from), from)
    t.equal(await allowed(from), from, 'again')
  }
  for (const from of [
    'https://example.com',
    'http://a.example.com',
    'https://a.example.com:8443',
    'https://a.example.com.evil.com',
    'https://evil.com/.example.com',
    'https://*.example.com',
    'http://localhost.evil.com:3000',
    'http://localhost:3000.evil.com',
    'http://localhost:*',
    'https://pr-77777.preview.dev',
    'https://pr-7xpreview.dev',
    `https://${'a'.repeat(300)}.example.com`
  ]) {
    t.equal(await allowed(from), undefined, from)
  }
})

t.test('a single origin needs no list', async (t) => {
  const app = await edgeApp([{ name: 'orders', edge: { cors: corsOptions({ origin: origin }) } }])
  t.teardown(() => app.close())
  const { headers } = await app.inject({ url: '/orders', headers: { origin } })
  t.equal(headers['access-control-allow-origin'], origin)
})
