// slow: takes about 4 s
/** Several methods of authentication on one route, anonymous consumers, and headers that tell the service who the consumer is. */
import { hash } from 'node:crypto'
import type { Test } from 'tap'
import t from 'tap'
import type { Protocol } from '../../helpers/edge/asking-client.ts'
import { anyClient, listenFor, protocols } from '../../helpers/edge/asking-client.ts'
import { claims, secret, token } from '../../helpers/edge/tokens.ts'
import { eventually } from '../../helpers/eventually.ts'
import type { Seen } from '../../helpers/gateway.ts'
import { configOf, startEcho, startGateway, startService } from '../../helpers/gateway.ts'

const consumers = [
  {
    name: 'alice',
    groups: ['gold', 'a,b'],
    tags: ['internal'],
    keyAuth: { hash: `sha256:${hash('sha256', 'key-1')}` }
  },
  { name: 'bob', groups: ['silver'], jwt: { sub: 'b-1' } },
  { name: 'guest', groups: ['public'] }
]
const forward = { id: 'x-consumer-id', groups: 'x-consumer-groups', tags: 'x-consumer-tags' }
const methods = { keyAuth: {}, jwt: { secret, forward: { sub: 'x-sub' } } }

async function gatewayWith(t: Test, protocol: Protocol, authentication: object, edge: object = methods) {
  const service = await startEcho()
  t.teardown(service.close)
  const config = {
    listen: listenFor(t, protocol),
    services: { any: { instances: [service.url] } },
    edge: { ...edge, authentication: { forward, ...authentication } },
    routes: [
      { name: 'all', match: { path: '/' }, service: 'any' },
      { name: 'open', match: { path: '/open' }, service: 'any', edge: { keyAuth: false, jwt: false, acl: false } }
    ],
    consumers
  }
  const gateway = await startGateway(config, { log: true })
  t.teardown(gateway.close)
  const { ask } = anyClient(t, protocol, gateway.port)
  const lines = () => gateway.log.filter(({ msg }) => msg === 'request')
  return async (headers: object, path = '/') => {
    const before = lines().length
    const response = await ask(path, { headers: headers as Record<string, string> })
    await eventually(() => lines().length > before)
    const { consumer, reason } = lines().at(-1)!
    const seen = response.status === 200 ? (JSON.parse(response.body.toString()) as Seen) : null
    return { status: response.status, consumer, reason, seen, challenge: response.headers['www-authenticate'] }
  }
}

const key = { 'x-api-key': 'key-1' }
const badKey = { 'x-api-key': 'no' }
const bearer = (sub = 'b-1') => ({ authorization: `Bearer ${token(claims({ sub }))}` })
const badBearer = { authorization: `Bearer ${token(claims({ sub: 'b-1' }), 'another secret that is long enough')}` }
const both = 'Key realm="jingwei", Bearer realm="jingwei"'

for (const protocol of protocols) {
  t.test(`any: each method suffices over ${protocol}`, async (t) => {
    const ask = await gatewayWith(t, protocol, { require: 'any' })
    t.match(await ask(key), { status: 200, consumer: 'alice' })
    t.match(await ask(bearer()), { status: 200, consumer: 'bob' })
    t.match(await ask({}), { status: 401, reason: 'auth_missing', challenge: both })
    t.match(await ask({ authorization: 'Basic YTpi' }), { status: 401, reason: 'auth_missing', challenge: both })
    t.match(await ask(badKey), { status: 401, reason: 'key_unknown', challenge: both })
    t.match(await ask(badBearer), {
      status: 401,
      reason: 'jwt_signature',
      challenge: /^Key .*, Bearer .*invalid_token/
    })
    t.match(await ask({ ...badKey, ...badBearer }), { status: 401, reason: 'key_unknown' })

    const own = bearer()
    const mixed = await ask({ ...badKey, ...own })
    t.match(mixed, { status: 200, consumer: 'bob' })
    t.equal(mixed.seen?.headers['x-api-key'], undefined)
    t.equal(mixed.seen?.headers.authorization, own.authorization)
    for (const unverified of [badBearer, bearer(), { authorization: 'Basic YTpi' }]) {
      const first = await ask({ ...key, ...unverified })
      t.match(first, { status: 200, consumer: 'alice' })
      t.equal(
        first.seen?.headers.authorization,
        undefined,
        'credentials that were not verified do not reach the service'
      )
      t.equal(first.seen?.headers['x-sub'], undefined)
    }
  })

  t.test(`all: each method is necessary over ${protocol}`, async (t) => {
    const ask = await gatewayWith(t, protocol, { require: 'all' })
    t.match(await ask({ ...key, ...bearer() }), { status: 200, consumer: 'bob' })
    t.match(await ask(key), { status: 401, reason: 'jwt_missing', challenge: 'Bearer realm="jingwei"' })
    t.match(await ask(bearer()), { status: 401, reason: 'key_missing' })
    t.match(await ask({}), { status: 401 })
    t.match(await ask({ ...badKey, ...bearer() }), { status: 401, reason: 'key_unknown' })
    t.match(await ask({ ...key, ...badBearer }), { status: 401, reason: 'jwt_signature' })
  })

  t.test(`anonymous: only requests without any credentials over ${protocol}`, async (t) => {
    for (const require of ['any', 'all']) {
      const ask = await gatewayWith(t, protocol, { require, anonymous: 'guest' })
      const guest = await ask({})
      t.match(guest, { status: 200, consumer: 'guest' })
      t.equal(guest.seen?.headers['x-consumer-groups'], 'public')
      t.match(await ask(badKey), { status: 401, reason: 'key_unknown' })
      t.match(await ask(badBearer), { status: 401, reason: 'jwt_signature' })
      t.match(await ask(key), require === 'any' ? { status: 200, consumer: 'alice' } : { status: 401 })
      t.match(await ask({ ...key, ...bearer() }), { status: 200 })
      const other = await ask({ authorization: 'Bearer\ttoken', x_api_key: 'key-1' })
      t.match(other, { status: 200, consumer: 'guest' })
      t.equal(other.seen?.headers.authorization, undefined)
      t.equal(other.seen?.headers.x_api_key, undefined)
      const hidden =
        protocol === 'HTTP/2' ? null : { Authorization: 'Basic YTpi', authorization: bearer().authorization }
      if (hidden) t.match(await ask(hidden), { status: 401, reason: 'jwt_repeated' }, 'a token in a second field')
    }
  })

  t.test(`the service learns the consumer, and clients cannot forge it, over ${protocol}`, async (t) => {
    const ask = await gatewayWith(t, protocol, { require: 'any' })
    const forged = {
      'x-consumer-id': 'root',
      x_consumer_groups: 'admin',
      'X-Consumer-Tags': 'x',
      'x.consumer.id': 'root'
    }
    const { seen } = await ask({ ...key, ...forged })
    const told = Object.entries(seen!.headers).filter(([name]) => name.includes('consumer'))
    t.same(Object.fromEntries(told), {
      'x-consumer-id': 'alice',
      'x-consumer-groups': 'gold,a%2Cb',
      'x-consumer-tags': 'internal'
    })
    if (protocol !== 'HTTP/2') {
      const nominated = await ask({ ...key, ...forged, connection: 'close, x-consumer-id' })
      t.equal(nominated.seen?.headers['x-consumer-id'], 'alice', 'Connection removes no such header')
    }
    const ids: unknown[] = []
    for (const sub of ['é', '%C3%A9', 'é'.normalize('NFD'), '%c3%a9', '%']) {
      const { seen } = await ask(bearer(sub))
      ids.push(seen!.headers['x-consumer-id'])
    }
    t.same(ids, ['%C3%A9', '%25C3%25A9', 'e%CC%81', '%25c3%25a9', '%'], 'no caller has the header of another')
    const other = await ask(forged, '/open')
    t.equal(other.status, 200)
    t.notMatch(other.seen!.rawHeaders.join(), /root|admin/, 'nor on a route to the same service without the concern')
  })
}

t.test('anonymous works for one method, and for a consumer that is not declared', async (t) => {
  const ask = await gatewayWith(t, 'HTTP/1.1', { anonymous: 'nobody' }, { jwt: methods.jwt })
  t.match(await ask({}), { status: 200, consumer: 'nobody' })
  t.match(await ask(bearer()), { status: 200, consumer: 'bob' })
  t.match(await ask(badBearer), { status: 401 })
})

t.test('a token without a subject does not take the consumer of the key away', async (t) => {
  const ask = await gatewayWith(t, 'HTTP/1.1', { require: 'all' })
  const authorization = `Bearer ${token(claims({ sub: undefined }))}`
  t.match(await ask({ ...key, authorization }), { status: 200, consumer: 'alice' })
})

t.test('a method in shadow mode decides nothing', async (t) => {
  const ask = await gatewayWith(t, 'HTTP/1.1', { require: 'any' }, { keyAuth: { mode: 'shadow' }, jwt: methods.jwt })
  t.match(await ask(key), { status: 401, challenge: 'Bearer realm="jingwei"' })
  t.match(await ask({ ...badKey, ...bearer() }), { status: 200, consumer: 'bob' })
})

for (const protocol of protocols) {
  t.test(`a method in shadow mode names the caller only where no other does, over ${protocol}`, async (t) => {
    const shadowJwt = { ...methods.jwt, mode: 'shadow' }
    const acl = { allow: ['silver'] }
    const beside = await gatewayWith(t, protocol, { anonymous: 'guest' }, { keyAuth: {}, jwt: shadowJwt, acl })
    t.match(await beside({ ...key, ...bearer() }), { status: 403, consumer: 'alice' })
    t.match(await beside(bearer()), { status: 403, consumer: 'guest' }, 'as an anonymous caller')
    const open = await gatewayWith(t, protocol, {}, { keyAuth: {}, jwt: shadowJwt })
    const sent = bearer()
    const { seen, consumer } = await open({ ...key, ...sent })
    t.equal(consumer, 'alice')
    t.equal(seen!.headers['x-sub'], undefined, 'headers of its caller')
    t.equal(seen!.headers['x-consumer-id'], 'alice')
    t.match(seen!.headers, sent, 'its credentials stay')
    const first = await gatewayWith(t, protocol, {}, { keyAuth: { mode: 'shadow' }, jwt: methods.jwt })
    t.match(await first({ ...key, ...bearer('b-2') }), { status: 200, consumer: 'b-2' })
    const alone = await gatewayWith(t, protocol, {}, { jwt: shadowJwt, acl })
    const named = await alone(bearer())
    t.match(named, { status: 200, consumer: 'bob' })
    t.equal(named.seen!.headers['x-sub'], 'b-1')
  })
}

t.test('in shadow mode, no other credentials are removed from the header of the method', async (t) => {
  const authorization = 'Basic YTpi'
  const jwt = { ...methods.jwt, from: { header: false, cookie: 'token' }, optional: true, mode: 'shadow' }
  for (const place of [{ from: { cookie: 'token' } }, {}]) {
    const ask = await gatewayWith(t, 'HTTP/1.1', {}, { jwt: { ...jwt, ...place } })
    const cookie = `token=${token(claims({ sub: 'b-1' }))}`
    t.match(await ask({ authorization }), { status: 200, seen: { headers: { authorization } } })
    t.match(await ask({ authorization, cookie }), { status: 200, seen: { headers: { authorization, cookie } } })
  }
})

t.test('a mistake in the rules is a fault or a warning', async (t) => {
  const fault = (edge: object) => () =>
    configOf({
      services: { a: { instances: ['http://a'] } },
      routes: [{ name: 'a', match: { path: '/' }, service: 'a' }],
      edge
    })
  t.throws(fault({ keyAuth: { header: false } }), { message: /has no place for the key/ })
  t.throws(fault({ keyAuth: { header: 'Authorization' } }), { message: /has another meaning/ })
  t.throws(fault({ keyAuth: {}, authentication: { forward: { id: 'x-a', tags: 'X_A' } } }), {
    message: /already carries the id/
  })
  t.throws(fault({ authentication: { forward: { id: 'via' } } }), { message: /set by the gateway itself/ })
})

t.test('a header that several concerns set has one value, that of the last one', async (t) => {
  const service = await startEcho()
  t.teardown(service.close)
  const server = await startService((request, response) => {
    const { 'x-answer': answer = '' } = request.headers
    response.writeHead(200, { 'x-who': answer ? String(answer).split(',') : [], 'x-name': 'carol' }).end()
  })
  t.teardown(server.close)
  const asks = { url: server.url, responseHeaders: ['x-who'], consumer: 'x-name' }
  const route = (name: string, edge: object) => ({ name, match: { path: `/${name}` }, service: 'any', edge })
  const jwt = { secret, forward: { sub: 'x-who' } }
  const gateway = await startGateway({
    consumers,
    services: { any: { instances: [service.url] } },
    routes: [
      route('consumer', { jwt, authentication: { forward: { id: 'x-who' } } }),
      route('spelling', { jwt, authentication: { forward: { id: 'x_who' } } }),
      route('server', { jwt, forwardAuth: asks }),
      route('three', { jwt, forwardAuth: asks, authentication: { forward: { id: 'X-Who' } } })
    ]
  })
  t.teardown(gateway.close)
  const { ask } = anyClient(t, 'HTTP/1.1', gateway.port)
  const valuesAt = async (path: string, answer = 'dave') => {
    const { body } = await ask(path, { headers: { ...bearer(), 'x-answer': answer } })
    const { rawHeaders } = JSON.parse(body.toString()) as Seen
    return rawHeaders.flatMap((name, index) =>
      index % 2 === 0 && /^x.who$/i.test(name) ? [[name.toLowerCase(), rawHeaders[index + 1]]] : []
    )
  }
  t.strictSame(await valuesAt('/consumer'), [['x-who', 'bob']])
  t.strictSame(await valuesAt('/spelling'), [['x_who', 'bob']])
  t.strictSame(await valuesAt('/server'), [['x-who', 'dave']])
  t.strictSame(await valuesAt('/server', 'dave,erin'), [['x-who', 'dave'], ['x-who', 'erin']], 'as the server sends them') // biome-ignore format: short
  t.strictSame(await valuesAt('/server', ''), [['x-who', 'b-1']], 'that of the token, if the server sends none')
  t.strictSame(await valuesAt('/three'), [['x-who', 'carol']])
})
