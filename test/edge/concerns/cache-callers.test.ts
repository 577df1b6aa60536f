/** `edge.cache`: no caller gets the response of another one, and no client can change what others get. */
import { createHash } from 'node:crypto'
import type { IncomingMessage, ServerResponse } from 'node:http'
import type { Test } from 'tap'
import t from 'tap'
import { protocols } from '../../helpers/edge/asking-client.ts'
import type { CachingOptions } from '../../helpers/edge/caching.ts'
import { cachingGateway, respond } from '../../helpers/edge/caching.ts'

const keys = { alice: 'key-of-alice-0123', bob: 'key-of-bob-4567890' }
const consumers = {
  consumers: Object.entries(keys).map(([name, key]) => ({
    name,
    keyAuth: { hash: `sha256:${createHash('sha256').update(key).digest('hex')}` }
  }))
}

/** Responds with the directive in the path, and with all that the service sees of the caller. */
function reflect(request: IncomingMessage, response: ServerResponse): void {
  const { host: _host, 'x-request-id': _id, via: _via, connection: _c, ...headers } = request.headers
  const directive = decodeURIComponent(request.url!.split('/')[1] ?? '')
  respond(response, JSON.stringify(headers), { 'cache-control': directive })
}

async function fetching(t: Test, options: CachingOptions) {
  const { client, seen } = await cachingGateway(t, reflect, options)
  /** Returns true if the service was asked. */
  return async (path: string, headers: Record<string, string> = {}, method = 'GET') => {
    const before = seen.length
    const { status } = await client.ask(path, { headers, method })
    if (status !== 200) throw new Error(`${path}: status ${status}`)
    return seen.length > before
  }
}

for (const protocol of protocols) {
  t.test(`${protocol}: callers with credentials share only what is public`, async (t) => {
    const credentials: Record<string, string>[] = [
      { authorization: 'Bearer a' },
      { cookie: 'session=a' },
      { authorization: 'Basic YTpi', cookie: 'session=b' }
    ]
    const fetches = await fetching(t, { protocol })
    for (const [index, headers] of credentials.entries()) {
      for (const directive of ['max-age=60', 'max-age=60,must-revalidate', 'max-age=60,no-transform']) {
        const path = `/${directive}/${index}`
        t.ok(await fetches(path, headers), path)
        t.ok(await fetches(path, headers), `${path}: not even for the same caller`)
        t.ok(await fetches(path), `${path}: nor for one without credentials`)
        t.notOk(await fetches(path), `${path}: whose response is stored`)
        t.ok(await fetches(path, headers), `${path}: but not for callers with credentials`)
      }
      for (const directive of ['max-age=60,public', 's-maxage=60']) {
        const path = `/${directive}/${index}`
        t.ok(await fetches(path, headers), path)
        t.notOk(await fetches(path, { cookie: 'other=1' }), path)
        t.notOk(await fetches(path), path)
      }
      const path = `/public,private,max-age=60/${index}`
      t.ok(await fetches(path, headers))
      t.ok(await fetches(path, headers))
    }
  })
}

t.test('consumers share only what is public, also without credentials that the service sees', async (t) => {
  const keyAuth = { hideCredentials: true }
  const fetches = await fetching(t, { edge: { keyAuth }, more: consumers })
  const [alice, bob] = [{ 'x-api-key': keys.alice }, { 'x-api-key': keys.bob }]
  for (const each of [alice, bob, alice, bob]) t.ok(await fetches('/max-age=60', each))
  t.ok(await fetches('/max-age=60,public', alice))
  t.notOk(await fetches('/max-age=60,public', bob))
})

t.test('key.consumer: each caller has responses of its own', async (t) => {
  const keyAuth = { hideCredentials: true }
  const cache = { key: { consumer: true } }
  const fetches = await fetching(t, { cache, edge: { keyAuth }, more: consumers })
  const [alice, bob] = [{ 'x-api-key': keys.alice }, { 'x-api-key': keys.bob }]
  t.ok(await fetches('/max-age=60', alice))
  t.ok(await fetches('/max-age=60', bob))
  t.notOk(await fetches('/max-age=60', alice))
  t.notOk(await fetches('/max-age=60', bob))
  t.ok(await fetches('/max-age=60', { ...bob, cookie: 'user=carol' }), 'another user of the same consumer')
  t.ok(await fetches('/max-age=60,private', alice))
  t.ok(await fetches('/max-age=60,private', alice), 'private is for no shared cache')
})

t.test('headers that the service sees distinguish requests, whatever their names', async (t) => {
  const fetches = await fetching(t, {})
  const harmful = ['X-Host', 'X-HTTP-Host-Override', 'X-Tenant', 'X-Api-Key', 'Origin', 'Accept-Datetime', 'x_original', 'Baz'] // biome-ignore format: a list
  for (const [index, name] of harmful.entries()) {
    const path = `/max-age=60/${index}`
    t.ok(await fetches(path, { [name]: 'evil' }), name)
    t.ok(await fetches(path), `${name}: a client without it`)
    t.ok(await fetches(path, { [name]: 'other' }), `${name}: a client with another value`)
    t.notOk(await fetches(path, { [name]: 'evil' }), `${name}: the same value`)
    t.notOk(await fetches(path), `${name}: again`)
  }
  // The service gets none of these, or those of the gateway.
  const removed = {
    'X-Forwarded-Host': 'evil.example',
    'X-Forwarded-Proto': 'gopher',
    'X-Original-URL': '/x',
    'X-Forwarded-Server': 'x'
  }
  t.ok(await fetches('/max-age=60/gateway', removed))
  t.notOk(await fetches('/max-age=60/gateway'))
  // Harmless ones.
  t.notOk(
    await fetches('/max-age=60/gateway', {
      'User-Agent': 'x',
      Accept: 'text/html',
      Traceparent: 'x',
      'X-Request-Id': 'abc'
    })
  )
  for (const name of ['X-HTTP-Method-Override', 'X-Method-Override', 'X-HTTP-Method']) {
    t.ok(await fetches('/max-age=60/gateway', { [name]: 'DELETE' }), name)
  }
})

t.test('the host, the exact path and query distinguish requests', async (t) => {
  const fetches = await fetching(t, {})
  const paths = ['/a', '/a?', '/a?b', '/a?b=', '/A', '/a/', '/a.css', '/a?x=1&y=2', '/a?y=2&x=1', '/a%7e', '/a%7E']
  for (const path of paths) t.ok(await fetches(`/public,max-age=60${path}`), path)
  for (const path of paths) t.notOk(await fetches(`/public,max-age=60${path}`), `${path} again`)
  t.ok(await fetches('/public,max-age=60/a', { host: 'a.example' }))
  t.notOk(await fetches('/public,max-age=60/a', { host: 'A.Example' }))
  t.ok(await fetches('/public,max-age=60/a', { host: 'b.example' }))
})

t.test('options for the key', async (t) => {
  const key = { headers: ['User-Agent'], ignoreHeaders: ['X-Ignored'], ignoreQuery: ['utm_*', 'ref'], sortQuery: true }
  const fetches = await fetching(t, { cache: { key } })
  const path = '/public,max-age=60/a'
  t.ok(await fetches(`${path}?b=2&a=1`, { 'User-Agent': 'x' }))
  t.notOk(await fetches(`${path}?a=1&utm_source=y&b=2&ref=z`, { 'User-Agent': 'x', 'X-Ignored': '1' }))
  t.ok(await fetches(`${path}?a=1&b=2`, { 'User-Agent': 'y' }))
  t.ok(await fetches(`${path}?b=1&a=2`, { 'User-Agent': 'x' }))
  t.ok(await fetches(`${path}?a=1&b=2&refs=1`, { 'User-Agent': 'x' }))
})

t.test('a page of an account under the path of an image is not stored', async (t) => {
  const { client, seen } = await cachingGateway(
    t,
    (_request, response) => respond(response, 'account', { 'cache-control': 'private' }),
    {
      cache: { ttl: { 200: '60s' }, heuristic: '10%' }
    }
  )
  for (let round = 1; round <= 2; round++) {
    await client.ask('/account/x.png', { headers: { cookie: 'session=a' } })
    t.equal(seen.length, round)
  }
})

t.test('Set-Cookie with strip reaches only the client that caused the fetch', async (t) => {
  const { client, seen } = await cachingGateway(
    t,
    (_request, response) => respond(response, 'x', { 'cache-control': 'max-age=60', 'set-cookie': ['a=1', 'b=2'] }),
    { cache: { setCookie: 'strip' } }
  )
  t.strictSame((await client.ask('/')).headers['set-cookie'], ['a=1', 'b=2'])
  t.equal((await client.ask('/')).headers['set-cookie'], undefined)
  t.equal(seen.length, 1)
})

t.test('a route of the same path on another service has responses of its own', async (t) => {
  const { client } = await cachingGateway(
    t,
    (_request, response) => respond(response, 'x', { 'cache-control': 'max-age=60' }),
    {
      more: {
        routes: [
          { name: 'a', match: { path: '/', headers: { 'x-a': '1' } }, service: 'any' },
          { name: 'b', match: { path: '/' }, service: 'any', edge: { cache: false } }
        ]
      }
    }
  )
  for (let round = 0; round < 2; round++) t.equal((await client.ask('/')).headers['cache-status'], undefined)
  t.match((await client.ask('/', { headers: { 'x-a': '1' } })).headers['cache-status'], /uri-miss/)
})

t.test('a split by header, cookie or consumer chooses the version before the cache does', async (t) => {
  const split = [
    { service: 'any', weight: 0, match: { headers: { 'user-agent': 'canary' } } },
    { service: 'any', weight: 0, match: { cookies: { canary: '1' } } },
    { service: 'any', weight: 1 }
  ]
  const { client } = await cachingGateway(
    t,
    (request, response) =>
      respond(response, `${request.headers['user-agent']} ${request.headers.cookie}`, {
        'cache-control': 'public, max-age=60'
      }),
    {
      more: { routes: [{ name: 'all', match: { path: '/' }, split }] }
    }
  )
  const ask = async (headers: Record<string, string>) => (await client.ask('/', { headers })).body.toString()
  t.equal(await ask({ 'user-agent': 'canary' }), 'canary undefined')
  t.equal(await ask({ 'user-agent': 'plain' }), 'plain undefined')
  t.equal(await ask({ 'user-agent': 'plain', cookie: 'canary=1; a=b' }), 'plain canary=1; a=b')
  t.equal(await ask({ 'user-agent': 'plain', cookie: 'canary=1; a=c' }), 'plain canary=1; a=b')
  t.equal(await ask({ 'user-agent': 'plain', cookie: 'a=c' }), 'plain undefined')
})
