// slow: takes about 8 s
/** A user's function that authenticates: its decisions, its failures, and what they do to other requests. */
import { writeFile } from 'node:fs/promises'
import type { ServerResponse } from 'node:http'
import { join } from 'node:path'
import type { Test } from 'tap'
import t from 'tap'
import { loadConfig } from '../../../plugins/config.ts'
import type { Protocol } from '../../helpers/edge/asking-client.ts'
import { anyClient, listenFor, protocols } from '../../helpers/edge/asking-client.ts'
import { handshake, open, startWebSocketService } from '../../helpers/edge/websocket.ts'
import { eventually } from '../../helpers/eventually.ts'
import type { Seen } from '../../helpers/gateway.ts'
import { raw, startEcho, startService, startWith } from '../../helpers/gateway.ts'
import { folder, gatewayProcess, startFault } from '../../helpers/plugins.ts'

/** Decides as the header `x-do` says. */
const obedient = `
import { defineAuthorizer } from 'jingwei/plugin'
export default defineAuthorizer((request, { options, signal }) => {
  const [what, value] = (request.headers['x-do'] ?? '').split(' ')
  const decisions = {
    name: () => ({ consumer: value }),
    object: () => ({ consumer: { id: value, groups: ['g'] }, headers: { 'X-Tenant': ['a', 'b,c'], ...options.headers } }),
    nobody: () => ({ consumer: null }),
    refuse: () => ({ refuse: Number(value), message: 'not you' }),
    challenge: () => ({ refuse: 401, challenge: 'Own realm="x"' }),
    later: () => new Promise((resolve) => setTimeout(resolve, 20, { consumer: value })),
    throw: () => { throw new Error('secret detail') },
    reject: () => Promise.reject(Object.assign(new Error('secret detail'), { statusCode: 200 })),
    hang: () => {
      globalThis.hanging.push(value)
      return new Promise(() => signal.addEventListener('abort', () => globalThis.aborted.push(value)))
    },
    value: () => JSON.parse(decodeURIComponent(value)),
    call: () => request.mesh.json('broken', '/'),
  }
  return decisions[what]?.()
})
`

globalThis.hanging = []
globalThis.aborted = []
declare global {
  var hanging: string[]
  var aborted: string[]
}

interface Options {
  readonly protocol?: Protocol
  readonly edge?: object
  readonly options?: object
  readonly authorizer?: object
  readonly consumers?: object[]
  readonly services?: object
  readonly files?: Record<string, string>
  readonly plugins?: object[]
}

async function gatewayWith(t: Test, given: Options = {}) {
  const { protocol = 'HTTP/1.1', edge = {}, authorizer = {}, consumers = [], services, files, plugins = [] } = given
  const service = await startEcho()
  t.teardown(service.close)
  const root = await folder(t, { 'authorizer.mjs': obedient, ...files })
  const own = { module: './authorizer.mjs', headers: ['x-tenant'], hideHeaders: ['x-do'], ...authorizer }
  const written = {
    admin: false,
    listen: { port: 0, ...listenFor(t, protocol) },
    services: services ?? { any: { instances: [service.url] }, broken: { instances: ['http://127.0.0.1:1'] } },
    edge,
    routes: [
      { name: 'all', match: { path: '/' }, service: 'any', edge: { authorizer: own } },
      { name: 'open', match: { path: '/open' }, service: 'any', edge: { authentication: false, keyAuth: false } }
    ],
    consumers,
    plugins
  }
  await writeFile(join(root, 'gateway.yaml'), JSON.stringify(written))
  const gateway = await startWith(await loadConfig(join(root, 'gateway.yaml'), {}), { log: true })
  t.teardown(gateway.close)
  const { ask, leave } = anyClient(t, protocol, gateway.port)
  const lines = () => gateway.log.filter(({ msg }) => msg === 'request')
  const outcome = async (what: string, headers: Record<string, string> = {}) => {
    const before = lines().length
    const { status } = await ask('/', { headers: { ...(what && { 'x-do': what }), ...headers } })
    await eventually(() => lines().length > before)
    return [status, lines().at(-1)?.reason ?? lines().at(-1)?.consumer]
  }
  return { ...gateway, ask, leave, outcome, lines }
}

for (const protocol of protocols) {
  t.test(`the function accepts, refuses, or has no opinion, over ${protocol}`, async (t) => {
    const consumers = [{ name: 'alice', authorizer: 'al' }, { name: 'bob' }]
    const { outcome, ask } = await gatewayWith(t, { protocol, consumers })
    t.same(await outcome('name al'), [200, 'alice'])
    t.same(await outcome('later al'), [200, 'alice'])
    t.same(await outcome('name eve'), [200, 'eve'])
    t.same(await outcome('name bob'), [200, 'authorizer|bob'], 'not the declared consumer by chance')
    t.same(await outcome('object bob'), [200, 'bob'])
    t.same(await outcome('nobody'), [200, undefined])
    t.same(await outcome(''), [401, 'authorizer_missing'])
    t.same(await outcome('refuse 403'), [403, 'authorizer_refused'])
    t.same(await outcome('refuse 451'), [451, 'authorizer_refused'])
    t.same(await outcome('call'), [503, 'authorizer_unavailable'], 'a failed call of its own')
    const none = await ask('/')
    t.equal(none.headers['www-authenticate'], 'Token realm="jingwei"')
    const refused = await ask('/', { headers: { 'x-do': 'refuse 401' } })
    t.equal(refused.headers['www-authenticate'], 'Token realm="jingwei"')
    t.match(JSON.parse(refused.body.toString()), { statusCode: 401, code: 'JW_AUTH_REFUSED', message: 'not you' })
    const own = await ask('/', { headers: { 'x-do': 'challenge' } })
    t.equal(own.headers['www-authenticate'], 'Own realm="x"')

    const body = 'x'.repeat(100_000)
    const posted = await ask('/', { method: 'POST', headers: { 'x-do': 'later al', 'x-tenant': 'forged' }, body })
    const seen = JSON.parse(posted.body.toString()) as Seen
    t.equal(seen.body, body)
    t.same([seen.headers['x-do'], seen.headers['x-tenant']], [undefined, undefined])
    const told = await ask('/', { headers: { 'x-do': 'object a', 'x-tenant': 'forged', x_tenant: 'forged' } })
    const { headers } = JSON.parse(told.body.toString()) as Seen
    t.same([headers['x-tenant'], headers.x_tenant], ['a,b%2Cc', undefined])
    const elsewhere = await ask('/open', { headers: { 'x-tenant': 'forged' } })
    t.equal((JSON.parse(elsewhere.body.toString()) as Seen).headers['x-tenant'], undefined)
  })

  t.test(`a function that fails or hangs refuses its own request only, over ${protocol}`, async (t) => {
    const { outcome, ask, log } = await gatewayWith(t, { protocol, authorizer: { timeout: '100ms' } })
    t.same(await outcome('throw'), [500, 'authorizer_failed'])
    t.same(await outcome('reject'), [500, 'authorizer_failed'])
    const failed = await ask('/', { headers: { 'x-do': 'throw' } })
    t.match(JSON.parse(failed.body.toString()), { code: 'JW_PLUGIN_FAILED', statusCode: 500 })
    t.notMatch(failed.body.toString(), /secret detail/)
    t.match(
      log.find(({ msg }) => msg === 'the authorizer has failed: the request is refused'),
      { err: { message: 'secret detail' }, plugin: /authorizer\.mjs$/ }
    )
    const hanging = ['a', 'b', 'c'].map((value) => ask('/', { headers: { 'x-do': `hang ${protocol}${value}` } }))
    t.equal((await ask('/', { headers: { 'x-do': 'name al' } })).status, 200)
    for (const { status, headers, body } of await Promise.all(hanging)) {
      t.equal(status, 503)
      t.ok(Number(headers['retry-after']) > 0)
      t.match(JSON.parse(body.toString()), { code: 'JW_AUTH_UNAVAILABLE' })
    }
    const aborted = () => globalThis.aborted.filter((value) => value.startsWith(protocol))
    t.same(aborted().length, 3)
    const patient = await gatewayWith(t, { protocol, authorizer: { timeout: '1h' } })
    const left = `${protocol}left`
    const isHanging = () => eventually(() => globalThis.hanging.includes(left))
    await patient.leave('/', isHanging, { headers: { 'x-do': `hang ${left}` } })
    await eventually(() => aborted().length === 4)
  })
}

t.test('the function is not called for a client that has left already', async (t) => {
  const hasLeft = `
    export default async (fastify) => {
      fastify.addHook('onRequest', async (request) => {
        request.gone = new AbortController()
        request.gone.abort(new Error('the client has left'))
      })
    }`
  const plugins = [{ path: './left.mjs', order: { before: 'authorizer' } }]
  const { outcome } = await gatewayWith(t, { files: { 'left.mjs': hasLeft }, plugins })
  globalThis.hanging.length = 0
  t.same(await outcome('hang late'), [500, 'authorizer_failed'])
  t.same(globalThis.hanging, [])
})

t.test('a value that is no decision lets nobody in', async (t) => {
  const { outcome } = await gatewayWith(t, { options: {} })
  const wrong = [
    true, false, 0, 1, '', 'alice', [], {}, { id: 'a' }, { consumer: '' }, { consumer: 7 }, { consumer: {} }, { consumer: { id: '' } },
    { consumer: { id: 7 } }, { consumer: { id: 'a', groups: 'g' } }, { consumer: { id: 'a', tags: [1] } }, { consumer: 'a', refuse: 403 },
    { refuse: true }, { refuse: 200 }, { refuse: 302 }, { refuse: 500 }, { refuse: 401.5 }, { refuse: '403' }, { refuse: 403, message: 1 },
    { refuse: 401, challenge: 'a\r\nb' }, { consumer: 'a', headers: { 'x-other': 'a' } }, { consumer: 'a', headers: { 'x-tenant': 7 } },
    { consumer: 'a', headers: 'x-tenant' }
  ] // biome-ignore format: a list
  for (const value of wrong) {
    const text = JSON.stringify(value)
    t.same(await outcome(`value ${encodeURIComponent(text)}`), [500, 'authorizer_failed'], text)
  }
  t.same(await outcome('value null'), [401, 'authorizer_missing'])
})

t.test('with several methods, and in shadow mode', async (t) => {
  const hash = `sha256:${(await import('node:crypto')).hash('sha256', 'k')}`
  const consumers = [{ name: 'kim', keyAuth: { hash } }]
  const with_ = (require: string, more: object = {}) =>
    gatewayWith(t, { edge: { keyAuth: {}, authentication: { require, ...more } }, consumers })
  const any = await with_('any', { anonymous: 'guest' })
  t.same(await any.outcome('name al'), [200, 'al'])
  t.same(await any.outcome('', { 'x-api-key': 'k' }), [200, 'kim'])
  t.same(await any.outcome('throw', { 'x-api-key': 'k' }), [200, 'kim'], 'it is not asked')
  t.same(await any.outcome('name al', { 'x-api-key': 'wrong' }), [200, 'al'])
  t.same(await any.outcome('refuse 403', { 'x-api-key': 'wrong' }), [403, 'authorizer_refused'])
  t.same(await any.outcome('throw'), [500, 'authorizer_failed'], 'not anonymous')
  t.same(await any.outcome(''), [200, 'guest'])
  const both = await any.ask('/', { headers: { 'x-api-key': 'wrong' } })
  t.same(both.headers['www-authenticate'], 'Key realm="jingwei", Token realm="jingwei"')
  const all = await with_('all')
  t.same(await all.outcome('name al'), [401, 'key_missing'])
  t.same(await all.outcome('', { 'x-api-key': 'k' }), [401, 'authorizer_missing'])
  t.same(await all.outcome('name al', { 'x-api-key': 'k' }), [200, 'al'])
  t.same(await all.outcome('nobody', { 'x-api-key': 'k' }), [200, 'kim'])
  const shadow = await gatewayWith(t, { authorizer: { mode: 'shadow' } })
  t.same(await shadow.outcome('throw'), [200, undefined])
  t.same(await shadow.outcome('refuse 401'), [200, undefined])
  t.match(shadow.lines().at(-1)?.shadow, [{ concern: 'authorizer', reason: 'authorizer_refused' }])
})

t.test('guesses are limited by address', async (t) => {
  const edge = { authentication: { failures: { max: 2, window: '1h' } } }
  const { outcome } = await gatewayWith(t, { edge })
  t.same(await outcome('refuse 403'), [403, 'authorizer_refused'])
  for (let index = 0; index < 3; index++) t.same(await outcome(''), [401, 'authorizer_missing'])
  t.same(await outcome('throw'), [500, 'authorizer_failed'])
  for (let index = 0; index < 2; index++) t.same(await outcome('refuse 401'), [401, 'authorizer_refused'])
  t.same(await outcome('name al'), [429, 'auth_failures'])
})

t.test('a WebSocket handshake', async (t) => {
  const service = await startWebSocketService()
  t.teardown(service.close)
  const { port } = await gatewayWith(t, { services: { any: { instances: [service.url] } } })
  t.match(await raw(port, handshake('/ws')), /^HTTP\/1.1 401 /)
  const { peer } = await open(port, '/ws', ['x-do: object al', 'x-tenant: forged'])
  peer.socket.destroy()
  t.equal(service.requests[0]!.headers['x-tenant'], 'a,b%2Cc')
})

t.test('faults of the start', async (t) => {
  const base = { listen: { port: 0 }, admin: false, services: { any: { instances: ['http://127.0.0.1:9'] } } }
  const route = { name: 'all', match: { path: '/' }, service: 'any' }
  const root = await folder(t, {
    'empty.mjs': '',
    'object.mjs': 'export default {}',
    'throws.mjs': 'throw new Error("no luck")',
    'broken.mjs': 'export default (',
    'gateway.yaml': ''
  })
  const faultOf = async (authorizer: object, routes: object[] = [route]) => {
    const file = join(root, 'gateway.yaml')
    await writeFile(file, JSON.stringify({ ...base, edge: { authorizer }, routes }))
    return startFault(t, file)
  }
  t.match(await faultOf({ module: './empt.mjs' }), /1:\d+: edge\.authorizer\.module: no such file: .*did you mean/)
  t.match(
    await faultOf({ module: './empty.mjs' }),
    /1:\d+: edge\.authorizer\.module: cannot load .*default export that is a function/
  )
  t.match(await faultOf({ module: './object.mjs' }), /default export that is a function/)
  t.match(await faultOf({ module: './throws.mjs' }), /cannot load .*no luck \(throws\.mjs:1:7\)/)
  t.match(await faultOf({ module: './broken.mjs' }), /cannot load/)
  const own = { ...route, edge: { authorizer: { module: './empty.mjs' } } }
  await writeFile(join(root, 'gateway.yaml'), JSON.stringify({ ...base, routes: [own] }))
  t.match(await startFault(t, join(root, 'gateway.yaml')), /1:\d+: routes\[0\]\.edge\.authorizer\.module: cannot load/)
  t.match(
    await faultOf({ module: './empty.mjs', headers: ['host'] }),
    /headers\[0\]: "host" is set by the gateway itself/
  )
})

t.test(
  'in a process: errors in timers and at an abort fail their request, and a reload takes the changed file',
  async (t) => {
    const service = await startEcho()
    t.teardown(service.close)
    const stray = `
export default (request, { signal }) => {
  const fails = {
    stray: () => setTimeout(() => { throw new Error('stray') }, 1),
    cleanup: () => signal.addEventListener('abort', () => { throw new Error('no cleanup') }),
    cancel: () => signal.addEventListener('abort', async () => { throw new Error('no cancellation') }),
    later: () => signal.addEventListener('abort', () => setTimeout(() => { throw new Error('late cleanup') }, 1))
  }[request.headers['x-do']]
  if (fails === undefined) return { consumer: 'first' }
  fails()
  return new Promise(() => {})
}
export const later = setTimeout(() => {}, 1)
`
    const root = await folder(t, {
      'authorizer.mjs': stray,
      'gateway.yaml': JSON.stringify({
        listen: { host: '127.0.0.1', port: 0 },
        admin: { host: '127.0.0.1', port: 0 },
        edge: { authorizer: { module: './authorizer.mjs', timeout: '500ms' } },
        services: { any: { instances: [service.url] } },
        routes: [{ name: 'all', match: { path: '/' }, service: 'any' }]
      })
    })
    const { running, lines } = await gatewayProcess(t, root)
    const url = /edge +(http:\S+)/.exec(running.output())![1]!
    const ask = async (headers: Record<string, string> = {}) => (await fetch(url, { headers })).status
    t.equal(await ask(), 200)
    t.same(await Promise.all([ask({ 'x-do': 'stray' }), ask(), ask({ 'x-do': 'stray' })]), [500, 200, 500])
    const reported = (text: string) =>
      lines().filter(({ msg, err }) => /failed/.test(String(msg)) && JSON.stringify(err).includes(text))
    for (const [what, text] of [
      ['cleanup', 'no cleanup'],
      ['cancel', 'no cancellation'],
      ['later', 'late cleanup']
    ] as const) {
      t.equal(await ask({ 'x-do': what }), 503, what)
      await eventually(() => reported(text).length > 0)
      const left = fetch(url, { headers: { 'x-do': what }, signal: AbortSignal.timeout(100) })
      await t.rejects(left)
      await eventually(() => reported(text).length > 1)
    }
    t.equal(await ask(), 200)
    await eventually(() => lines().some(({ consumer }) => consumer === 'first'))
    await writeFile(join(root, 'authorizer.mjs'), "export default () => ({ refuse: 403, message: 'second' })")
    process.kill(running.pid, 'SIGHUP')
    await eventually(async () => (await ask()) === 403)
    await writeFile(join(root, 'authorizer.mjs'), 'export default 7')
    process.kill(running.pid, 'SIGHUP')
    await eventually(() => lines().some(({ msg }) => /default export that is a function/.test(String(msg))))
    t.equal(await ask(), 403, 'the last good configuration stays in use')
  }
)

t.test('the example', async (t) => {
  const tickets = await startService((request, response: ServerResponse) => {
    const known: Record<string, object> = {
      '/tickets/ticket-of-amy': { owner: 'amy', teams: ['admins', 'staff'] },
      '/tickets/ticket-of-bob': { owner: 'bob', teams: ['staff'] }
    }
    response.end(JSON.stringify(known[request.url!] ?? null))
  })
  const orders = await startEcho()
  t.teardown(tickets.close)
  t.teardown(orders.close)
  const file = join(import.meta.dirname, '../../../config/examples/authorizer/gateway.yaml')
  const config = await loadConfig(file, {})
  const instances = (url: string) => [{ url, weight: 1, tags: [], meta: {} }]
  const written = structuredClone(config) as unknown as { services: Record<string, { instances: unknown }> }
  written.services.tickets!.instances = instances(tickets.url)
  written.services.orders!.instances = instances(orders.url)
  const gateway = await startWith(written as unknown as typeof config, { log: true })
  t.teardown(gateway.close)
  const ask = async (path: string, ticket?: string) => {
    const response = await fetch(gateway.url + path, { headers: ticket === undefined ? {} : { 'x-ticket': ticket } })
    return [response.status, ((await response.json()) as Partial<Seen>).headers?.['x-teams']]
  }
  t.same(await ask('/orders', 'ticket-of-amy'), [200, 'admins,staff'])
  t.same(await ask('/orders', 'ticket-of-bob'), [200, 'staff'])
  t.same(await ask('/orders', 'ticket-of-eve'), [401, undefined])
  t.same(await ask('/orders', '../secrets'), [401, undefined])
  t.same(await ask('/orders'), [401, undefined])
  t.same(await ask('/admin', 'ticket-of-amy'), [200, 'admins,staff'])
  t.equal((await ask('/admin', 'ticket-of-bob'))[0], 403)
})
