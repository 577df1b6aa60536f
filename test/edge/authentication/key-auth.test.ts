// slow: takes about 7 s
/** API keys: in every place and spelling, rotated, revoked, and removed from the request to the service. */
import { spawn } from 'node:child_process'
import { hash } from 'node:crypto'
import { writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { text } from 'node:stream/consumers'
import type { Test } from 'tap'
import t from 'tap'
import { parseConfig } from '../../../plugins/config.ts'
import { FailureLimit } from '../../../plugins/edge/authentication/failures.ts'
import { consumersTiming } from '../../../plugins/edge/consumers/index.ts'
import type { Protocol } from '../../helpers/edge/asking-client.ts'
import { anyClient, listenFor, protocols } from '../../helpers/edge/asking-client.ts'
import { handshake, open, startWebSocketService } from '../../helpers/edge/websocket.ts'
import { eventually } from '../../helpers/eventually.ts'
import type { Seen } from '../../helpers/gateway.ts'
import { raw, startEcho, startWith } from '../../helpers/gateway.ts'
import { folder } from '../../helpers/plugins.ts'

consumersTiming.intervalMs = 10

const hashed = (key: string) => `sha256:${hash('sha256', key)}`
const alice = { name: 'alice', groups: ['gold'], keyAuth: [{ hash: hashed('key-1') }, { hash: hashed('key-2') }] }

interface Options {
  protocol?: Protocol
  keyAuth?: object
  edge?: object
  consumers?: object
  route?: object
  more?: object
}

async function gatewayWith(
  t: Test,
  { protocol = 'HTTP/1.1', keyAuth = {}, edge = {}, consumers = [alice], route = {}, more = {} }: Options
) {
  const service = await startEcho()
  t.teardown(service.close)
  const root = await folder(t, { 'people.json': JSON.stringify([alice]) })
  const text = JSON.stringify({
    listen: { port: 0, ...listenFor(t, protocol) },
    services: { any: { instances: [service.url] } },
    edge: { keyAuth, ...edge },
    routes: [{ name: 'all', match: { path: '/' }, service: 'any', ...route }],
    consumers,
    ...more
  })
  const gateway = await startWith(parseConfig(text, join(root, 'gateway.yaml'), {}), { log: true })
  t.teardown(gateway.close)
  const { ask } = anyClient(t, protocol, gateway.port)
  const lines = () => gateway.log.filter(({ msg }) => msg === 'request')
  /** Status, and the reason in the access line. */
  const outcome = async (path: string, headers: object = {}) => {
    const before = lines().length
    const { status } = await ask(path, { headers: headers as Record<string, string> })
    await eventually(() => lines().length > before)
    return [status, lines().at(-1)?.reason ?? lines().at(-1)?.consumer]
  }
  const seen = async (path: string, headers: Record<string, string> = {}) =>
    JSON.parse((await ask(path, { headers })).body.toString()) as Seen
  return { ...gateway, root, ask, outcome, seen, lines }
}

/** Several fields of one name. */
const fields = (protocol: Protocol, name: string, values: string[]): object =>
  protocol === 'HTTP/2' ? { [name]: values } : { [name]: values.join(`\r\n${name}: `) }

for (const protocol of protocols) {
  t.test(`keys of a header over ${protocol}`, async (t) => {
    const { outcome, ask, seen } = await gatewayWith(t, { protocol })
    t.same(await outcome('/', { 'x-api-key': 'key-1' }), [200, 'alice'])
    t.same(await outcome('/', { 'x-api-key': 'key-2' }), [200, 'alice'], 'each of several keys')
    t.same(await outcome('/'), [401, 'key_missing'])
    t.same(await outcome('/', { 'x-api-key': '' }), [401, 'key_unknown'])
    for (const key of [
      'key-3',
      'KEY-1',
      'key-1,key-1',
      'key-1, key-2',
      hashed('key-1'),
      hash('sha256', 'key-1'),
      'alice'
    ]) {
      t.same(await outcome('/', { 'x-api-key': key }), [401, 'key_unknown'], key)
    }
    t.same(await outcome('/', fields(protocol, 'x-api-key', ['key-1', 'key-1'])), [401, 'key_repeated'])
    t.same(await outcome('/', fields(protocol, 'x-api-key', ['key-1', 'none'])), [401, 'key_repeated'])
    t.same(await outcome('/', { 'x-api-key': 'key-1', x_api_key: 'key-1' }), [401, 'key_repeated'], 'another spelling')
    t.same(await outcome('/', { x_api_key: 'key-1' }), [401, 'key_missing'])
    t.same(await outcome('/?x-api-key=key-1', { cookie: 'x-api-key=key-1' }), [401, 'key_missing'], 'other places')
    const refused = await ask('/', { headers: { 'x-api-key': 'no' } })
    t.equal(refused.headers['www-authenticate'], 'Key realm="jingwei"')
    t.match(JSON.parse(refused.body.toString()), { code: 'JW_KEY_INVALID', statusCode: 401 })
    t.match(JSON.parse((await ask('/')).body.toString()), { code: 'JW_KEY_MISSING' })

    const { headers, rawHeaders, url } = await seen('/a?b=%20c&x-api-key=1', {
      'X-Api-Key': 'key-1',
      'x-other': 'kept'
    })
    t.notOk(
      rawHeaders.some((text) => text.includes('key-1')),
      'the service does not get the key'
    )
    t.equal(headers['x-other'], 'kept')
    t.equal(url, '/a?b=%20c&x-api-key=1')
  })

  t.test(`keys of a query parameter and a cookie over ${protocol}`, async (t) => {
    const keyAuth = { header: false, query: 'apikey', cookie: 'key', realm: 'api' }
    const { outcome, seen, lines } = await gatewayWith(t, { protocol, keyAuth })
    t.same(await outcome('/?apikey=key-1'), [200, 'alice'])
    t.same(await outcome('/', { cookie: 'a=b; key=key-1' }), [200, 'alice'])
    t.same(await outcome('/', { 'x-api-key': 'key-1' }), [401, 'key_missing'])
    t.same(await outcome('/?apikey=key-1&apikey=key-1'), [401, 'key_repeated'])
    t.same(await outcome('/?apikey=key-1&api%6Bey=key-2'), [401, 'key_repeated'], 'another spelling')
    t.same(await outcome('/?apikey=key-1', { cookie: 'key=key-1' }), [401, 'key_repeated'], 'two places')
    t.same(await outcome('/', { cookie: 'key=key-1; key=key-2' }), [401, 'key_repeated'])
    t.same(await outcome('/?apikey'), [401, 'key_unknown'])
    t.same(await outcome('/?apikey='), [401, 'key_unknown'])
    t.same(await outcome('/?apikey%ff=key-1'), [401, 'key_missing'])
    t.same(await outcome('/?APIKEY=key-1'), [401, 'key_missing'])

    const targets = [
      ['/?apikey=key-1', '/'],
      ['/?api%6bey=k%65y-1', '/'],
      ['/p?a=%2F&apikey=key-1&b=+&&c', '/p?a=%2F&b=+&&c'],
      ['/p?apikey=key-1&a', '/p?a'],
      ['/p?a=b?apikey=x&apikey=key-1', '/p?a=b?apikey=x'],
      ['/p?&apikey=key-1', '/p?']
    ] as const
    for (const [sent, received] of targets) t.equal((await seen(sent)).url, received, sent)
    const cookies = [
      ['key=key-1', undefined],
      ['a=b; key=key-1', 'a=b'],
      ['key=key-1; a=b;c="d"', 'a=b;c="d"'],
      ['a=b;key=key-1 ;c', 'a=b;c']
    ] as const
    for (const [sent, received] of cookies) t.equal((await seen('/', { cookie: sent })).headers.cookie, received, sent)
    if (protocol === 'HTTP/2') {
      const several = fields(protocol, 'cookie', ['a=b', 'key=key-1', 'c=d']) as Record<string, string>
      t.equal((await seen('/', several)).headers.cookie, 'a=b; c=d')
    }
    t.notOk(JSON.stringify(lines()).includes('key-1'), 'no key in the access lines')
  })

  t.test(`with hideCredentials off, only verified keys reach the service over ${protocol}`, async (t) => {
    const keyAuth = { hideCredentials: false, query: 'apikey' }
    const { seen } = await gatewayWith(t, { protocol, keyAuth, edge: { authentication: { anonymous: 'guest' } } })
    t.equal((await seen('/', { 'x-api-key': 'key-1' })).headers['x-api-key'], 'key-1')
    t.equal((await seen('/?apikey=key-1')).url, '/?apikey=key-1')
    t.equal((await seen('/', { x_api_key: 'key-1' })).headers.x_api_key, undefined, 'not of an anonymous request')
  })
}

t.test('a trailer with the name of the header does not reach the service', async (t) => {
  const { port } = await gatewayWith(t, {})
  const lines = ['POST / HTTP/1.1', 'host: a', 'connection: close', 'x-api-key: key-1', 'trailer: x-api-key, x-sum']
  const body = '1\r\na\r\n0\r\nx-api-key: other\r\nx-sum: 1\r\n\r\n'
  const response = await raw(port, `${lines.join('\r\n')}\r\ntransfer-encoding: chunked\r\n\r\n${body}`)
  t.match(response, /200 OK/)
  t.notMatch(response, /x-api-key|other/)
})

t.test('an expired key is refused, and a new one works beside the old one', async (t) => {
  const consumers = [
    {
      name: 'alice',
      keyAuth: [
        { hash: hashed('old'), expires: '2020-01-01T00:00:00Z' },
        { hash: hashed('key').toUpperCase().replace('SHA256', 'sha256'), expires: '2999-01-01T00:00:00+02:00' }
      ]
    },
    { name: 'bob', keyAuth: { hash: hashed('bob') } }
  ]
  const { outcome } = await gatewayWith(t, { consumers })
  t.same(await outcome('/', { 'x-api-key': 'old' }), [401, 'key_expired'])
  t.same(await outcome('/', { 'x-api-key': 'key' }), [200, 'alice'])
  t.same(await outcome('/', { 'x-api-key': 'bob' }), [200, 'bob'])
})

t.test('a key is rotated and revoked by a change of the file', async (t) => {
  const { root, outcome } = await gatewayWith(t, { consumers: { file: 'people.json' } })
  const people = join(root, 'people.json')
  const of = (key: string) => outcome('/', { 'x-api-key': key })
  t.same(await of('key-1'), [200, 'alice'])
  await writeFile(
    people,
    JSON.stringify([{ name: 'alice', keyAuth: [{ hash: hashed('key-2') }, { hash: hashed('key-3') }] }])
  )
  await eventually(async () => (await of('key-3'))[0] === 200)
  t.same(await of('key-2'), [200, 'alice'])
  t.same(await of('key-1'), [401, 'key_unknown'])
  await writeFile(people, JSON.stringify([{ name: 'mallory', keyAuth: { hash: hashed('key-2') } }]))
  await eventually(async () => (await of('key-3'))[0] === 401)
  t.same(await of('key-2'), [200, 'mallory'])
})

t.test('a WebSocket handshake needs a key, which the service does not get', async (t) => {
  const service = await startWebSocketService()
  t.teardown(service.close)
  const more = { services: { any: { instances: [service.url] } } }
  const { port } = await gatewayWith(t, { more, keyAuth: { query: 'apikey' } })
  t.match(await raw(port, handshake('/ws')), /^HTTP\/1.1 401 /)
  t.match(await raw(port, handshake('/ws?apikey=key-1', ['x-api-key: key-1'])), /^HTTP\/1.1 401 /)
  for (const [path, header] of [
    ['/ws', 'x-api-key: key-1'],
    ['/ws?a=b&apikey=key-1', 'a: b']
  ] as const) {
    const { peer } = await open(port, path, [header])
    peer.socket.destroy()
  }
  const asked = service.requests.map(({ url, rawHeaders }) => [url, ...rawHeaders].join())
  t.equal(asked.length, 2)
  t.notMatch(asked.join(), /key-1|x-api-key/i)
})

t.test('failures are limited by address, and other clients are not affected', async (t) => {
  const authentication = { failures: { max: 3, window: '1h' } }
  const more = { listen: { port: 0, trustProxy: ['127.0.0.1'] } }
  const { ask, outcome } = await gatewayWith(t, { edge: { authentication }, more })
  const from = (ip: string, key: string) => ({ 'x-forwarded-for': ip, 'x-api-key': key })
  for (let i = 0; i < 5; i++) t.same(await outcome('/', from('10.0.0.1', 'key-1')), [200, 'alice'], 'not counted')
  for (let i = 0; i < 3; i++) t.same(await outcome('/', from('10.0.0.2', 'no')), [401, 'key_unknown'])
  t.same(await outcome('/', from('10.0.0.2', 'no')), [429, 'auth_failures'])
  const limited = await ask('/', { headers: from('10.0.0.2', 'key-1') })
  t.equal(limited.status, 429, 'valid keys are refused, too: otherwise guesses would not be limited')
  t.match(Number(limited.headers['retry-after']), 3600)
  t.match(JSON.parse(limited.body.toString()), { code: 'JW_AUTH_LIMITED' })
  t.same(await outcome('/', from('10.0.0.3', 'key-1')), [200, 'alice'])
  t.same(await outcome('/', { 'x-forwarded-for': '10.0.0.2' }), [401, 'key_missing'])
})

t.test('the limit of failures ends with its window', async (t) => {
  let now = 0
  const limit = new FailureLimit({ max: 2, window: 1000 }, () => now)
  t.equal(limit.waitOf('10.0.0.1'), 0)
  limit.add('10.0.0.1')
  t.equal(limit.waitOf('10.0.0.1'), 0)
  now = 600
  limit.add('10.0.0.1')
  t.equal(limit.waitOf('10.0.0.1'), 400)
  t.equal(limit.waitOf('10.0.0.2'), 0)
  now = 1000
  t.equal(limit.waitOf('10.0.0.1'), 0)
  limit.add('10.0.0.1')
  t.equal(limit.waitOf('10.0.0.1'), 0, 'failures of the last window do not count')
  limit.add('10.0.0.1')
  t.equal(limit.waitOf('10.0.0.1'), 1000)
  limit.add('2001:db8::1')
  limit.add('2001:db8::2')
  t.equal(limit.waitOf('2001:db8::3'), 1000, 'a network of IPv6 counts as one client')
})

t.test('attempts above those at a time count for an address that only fails', async (t) => {
  const limit = new FailureLimit({ max: 10, window: 1000 }, () => 0)
  const attempts = (address: string, failures: number) => {
    for (let i = 0; i < failures; i++) limit.add(address)
    for (let i = 0; i < 5; i++) limit.addExcess(address)
  }
  attempts('10.0.0.1', 0)
  attempts('10.0.0.2', 7)
  attempts('10.0.0.3', 8)
  limit.add('10.0.0.4')
  limit.addSuccess('10.0.0.4')
  attempts('10.0.0.4', 8)
  t.same(
    ['1', '2', '3', '4'].map((last) => limit.waitOf(`10.0.0.${last}`)),
    [0, 0, 1000, 0]
  )
})

t.test('a route in shadow mode lets requests in, and records refusals', async (t) => {
  const { outcome, lines } = await gatewayWith(t, { keyAuth: { mode: 'shadow' } })
  t.same(await outcome('/', { 'x-api-key': 'no' }), [200, undefined])
  t.match(lines().at(-1)?.shadow, [{ concern: 'key-auth', error: 'JW_KEY_INVALID', reason: 'key_unknown' }])
  t.same(await outcome('/', { 'x-api-key': 'key-1' }), [200, 'alice'])
})

t.test('a route in shadow mode keeps credentials, and its failures refuse nobody elsewhere', async (t) => {
  const enforced = { name: 'enforced', match: { path: '/enforced' }, service: 'any', edge: { keyAuth: {} } }
  const shadow = { name: 'shadow', match: { path: '/' }, service: 'any' }
  const { outcome, lines, seen } = await gatewayWith(t, {
    keyAuth: { mode: 'shadow', query: 'apikey' },
    edge: { authentication: { failures: { max: 2 } } },
    more: { routes: [shadow, enforced] }
  })
  const { url, headers } = await seen('/?apikey=key-1&b=1')
  t.equal(url, '/?apikey=key-1&b=1')
  t.match((await seen('/', { 'x-api-key': 'key-1' })).headers, { 'x-api-key': 'key-1' })
  t.notOk(headers['x-api-key'])
  for (let i = 0; i < 3; i++) t.same(await outcome('/', { 'x-api-key': 'no' }), [200, undefined])
  t.match(lines().at(-1)?.shadow, [{ error: 'JW_AUTH_LIMITED', reason: 'auth_failures' }], 'counted apart')
  t.same(await outcome('/enforced', { 'x-api-key': 'key-1' }), [200, 'alice'])
})

t.test('keys are removed on routes with via: http-proxy, and without the mesh', async (t) => {
  for (const more of [{ mesh: {} }, { mesh: false }]) {
    const { seen } = await gatewayWith(t, {
      keyAuth: { query: 'apikey' },
      more,
      ...(more.mesh && { route: { via: 'http-proxy' } })
    })
    const { rawHeaders } = await seen('/', { 'x-api-key': 'key-1' })
    t.notMatch(rawHeaders.join(), /key-1/)
    t.equal((await seen('/?a=1&apikey=key-1')).url, '/?a=1')
  }
})

t.test('hash-key makes random keys, and hashes those that it reads from stdin', async (t) => {
  const app = join(import.meta.dirname, '../../../app.ts')
  const run = async (input: string | null, ...args: string[]) => {
    const child = spawn(process.execPath, [app, 'hash-key', ...args], {
      stdio: [input === null ? 'ignore' : 'pipe', 'pipe', 'pipe']
    })
    child.stdin?.end(input)
    const [out, err] = await Promise.all([text(child.stdout!), text(child.stderr!)])
    return out.trim() || err.trim()
  }
  const made = await run(null)
  const [, key = '', digest] = /^key: {2}([\w-]{43})\nhash: (sha256:\w{64})$/.exec(made) ?? []
  t.equal(digest, hashed(key))
  t.not(await run(null), made)
  for (const ending of ['', '\n', '\r\n']) t.equal(await run(`key-1${ending}`), `hash: ${hashed('key-1')}`)
  t.match(await run(''), /stdin is empty/)
  t.match(await run('', 'key-1'), /hash-key reads the key from stdin, not from an argument/)
})
