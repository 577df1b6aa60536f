/** Concerns that a consumer's options switch on, on routes that do not have them. */
import { rename, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import type { FastifyInstance, RouteOptions } from 'fastify'
import type { Test } from 'tap'
import t from 'tap'
import { loadConfig, parseConfig } from '../../../plugins/config.ts'
import { consumersTiming } from '../../../plugins/edge/consumers/index.ts'
import { anyClient, listenFor, protocols } from '../../helpers/edge/asking-client.ts'
import { claims, secret, token } from '../../helpers/edge/tokens.ts'
import { handshake, startWebSocketService } from '../../helpers/edge/websocket.ts'
import { eventually } from '../../helpers/eventually.ts'
import { connect, get, startEcho, startWith } from '../../helpers/gateway.ts'
import { folder } from '../../helpers/plugins.ts'

consumersTiming.intervalMs = 10

const bearer = (sub: string) => ({ authorization: `Bearer ${token(claims({ sub }))}` })
const named = (name: string, edge: object, more: object = {}) => ({ name, jwt: { sub: name }, edge, ...more })

interface Started {
  edge?: object
  consumers: object
  more?: object
  files?: Record<string, string>
  url?: string
  before?: (server: FastifyInstance) => void
}

async function start(t: Test, { edge = {}, consumers, more = {}, files = {}, url, before }: Started) {
  const echo = await startEcho()
  t.teardown(echo.close)
  const root = await folder(t, files)
  const text = JSON.stringify({
    listen: { port: 0 },
    admin: { port: 0 },
    services: { any: { instances: [url ?? echo.url] } },
    edge: { jwt: { secret }, ...edge },
    routes: [
      { name: 'all', match: { path: '/' }, service: 'any' },
      { name: 'open', match: { path: '/open' }, service: 'any', edge: { jwt: false } }
    ],
    consumers,
    ...more
  })
  const file = join(root, 'gateway.yaml')
  await writeFile(file, text)
  const config = text.includes('"plugins"') ? await loadConfig(file, {}) : parseConfig(text, file, {})
  const gateway = await startWith(config, { log: true, ...(before && { before }) })
  t.teardown(gateway.close)
  return { root, ...gateway }
}

const asked = async (port: number, sub: string, path = '/') => {
  const { status, body } = await get(port, path, [`Authorization: ${bearer(sub).authorization}`])
  return status === 200 ? 200 : (JSON.parse(body) as { code: string }).code
}

for (const protocol of protocols) {
  t.test(`over ${protocol}, on a route without the concern`, async (t) => {
    const { port, server } = await start(t, {
      edge: { bodyLimit: false },
      consumers: [
        named('ann', { acl: { allow: ['gold'] } }),
        named('small', { bodyLimit: '10b' }),
        named('shadowed', { bodyLimit: { max: '10b', mode: 'shadow' } }),
        named('rare', { rateLimit: { max: 2, window: '1h' } }),
        named('calm', { rateLimit: [{ max: 1, window: '1h', mode: 'shadow' }] }),
        named('far', { ipFilter: { allow: ['10.0.0.0/8'] } }),
        named('reader', { authorization: { rules: [{ methods: ['GET'], action: 'allow' }] } }),
        named('several', {
          authorization: { rules: [{ methods: ['POST'], action: 'allow' }] },
          bodyLimit: '20b',
          ipFilter: { allow: ['127.0.0.1'] }
        })
      ],
      more: { listen: { port: 0, ...listenFor(t, protocol) } }
    })
    const { ask, begin } = anyClient(t, protocol, port)
    const text = 'x'.repeat(30_000)
    const post = async (sub: string, body: string, path = '/x') => {
      const { status, body: seen, isWhole } = await ask(path, { method: 'POST', headers: bearer(sub), body })
      t.ok(isWhole)
      if (status === 200) t.equal((JSON.parse(seen.toString()) as { body: string }).body, body, 'the bytes of the body')
      return status === 200 ? 200 : (JSON.parse(seen.toString()) as { code: string }).code
    }
    t.equal(await post('bob', text), 200, 'a caller without options')
    t.equal(await post('ann', text), 'JW_ACCESS_DENIED')
    t.equal(await post('ann', text, '/open'), 200, 'nothing identifies it there')
    t.equal(await post('small', 'x'.repeat(10)), 200)
    t.equal(await post('small', 'x'.repeat(11)), 'JW_BODY_TOO_LARGE')
    const streamed = begin('/x', { method: 'POST', headers: bearer('small'), streams: true })
    streamed.send('x'.repeat(11))
    streamed.end()
    t.equal((await streamed.response).status, 413, 'a body of unknown length')
    t.equal(await post('shadowed', text), 200)
    t.same([await post('rare', text), await post('rare', ''), await post('rare', '')], [200, 200, 'JW_RATE_LIMITED'])
    t.same([await post('calm', text), await post('calm', text)], [200, 200])
    t.equal(await post('far', text), 'JW_ADDRESS_DENIED')
    t.equal(await post('reader', text), 'JW_REQUEST_DENIED')
    t.equal((await ask('/x', { headers: bearer('reader') })).status, 200)
    t.equal(await post('several', 'x'.repeat(20)), 200)
    t.equal(await post('several', 'x'.repeat(21)), 'JW_BODY_TOO_LARGE')
    t.equal((await ask('/x', { headers: bearer('several') })).status, 403)
    const metrics = await server.metrics.metrics()
    for (const series of [
      'refusals_total{concern="acl",route="all",code="JW_ACCESS_DENIED"} 1',
      'refusals_total{concern="rate-limit",route="all",code="JW_RATE_LIMITED"} 1',
      'shadow_refusals_total{concern="body-limit",route="all"} 1',
      'shadow_refusals_total{concern="rate-limit",route="all"} 1'
    ]) {
      t.ok(metrics.includes(`jingwei_edge_${series}\n`), series)
    }
  })

  t.test(
    `over ${protocol}, a rate limit of the consumer and one of the route are enforced or in shadow mode, each for itself`,
    async (t) => {
      const limit = (max: number, mode: 'enforce' | 'shadow', more: object = {}) => ({
        max,
        window: '1h',
        mode,
        ...more
      })
      const of = (name: string, rateLimit: object) => ({
        name,
        match: { path: `/${name}` },
        service: 'any',
        edge: { rateLimit }
      })
      const { port, server } = await start(t, {
        consumers: [
          named('own', { rateLimit: limit(2, 'enforce') }),
          named('calm', { rateLimit: limit(2, 'shadow') }),
          named('held', { rateLimit: { maxConcurrent: 1 } })
        ],
        more: {
          listen: { port: 0, ...listenFor(t, protocol) },
          routes: [
            of('plain', limit(1, 'shadow', { by: 'consumer' })),
            of('bucket', limit(1, 'shadow', { by: 'consumer', algorithm: 'token-bucket' })),
            of('address', limit(1, 'shadow')),
            of('enforced', limit(1, 'enforce', { by: 'consumer' }))
          ]
        }
      })
      const { ask } = anyClient(t, protocol, port)
      const statuses = async (sub: string, ...paths: string[]) => {
        const all: number[] = []
        for (const path of paths) all.push((await ask(path, { headers: bearer(sub) })).status)
        return all
      }
      t.same(
        await statuses('bob', '/plain', '/plain', '/bucket', '/bucket'),
        [200, 200, 200, 200],
        'shadow mode of the routes'
      )
      t.same(await statuses('own', '/plain', '/bucket', '/address', '/plain'), [200, 200, 429, 429], 'enforced')
      t.same(
        await statuses('calm', '/enforced', '/enforced', '/enforced', '/plain'),
        [200, 200, 200, 200],
        'not enforced'
      )
      t.same(await statuses('bob', '/enforced', '/enforced'), [200, 429])
      const metrics = await server.metrics.metrics()
      for (const [route, count] of [
        ['plain', 2],
        ['bucket', 1],
        ['enforced', 1]
      ] as const) {
        t.ok(
          metrics.includes(`jingwei_edge_shadow_refusals_total{concern="rate-limit",route="${route}"} ${count}\n`),
          `${route} ${count}`
        )
      }
      t.match(metrics, /refusals_total\{concern="rate-limit",route="plain",code="JW_RATE_LIMITED"\} 1\n/)
    }
  )

  t.test(`over ${protocol}, a request sees either the old list or the new one`, async (t) => {
    const lists = [
      [named('ann', { acl: { denyConsumers: ['ann'] } })],
      [named('ann', { authorization: { rules: [{ methods: ['PUT'], action: 'allow' }] } })]
    ].map((list) => JSON.stringify(list))
    const { root, port } = await start(t, {
      consumers: { file: 'people.json' },
      files: { 'people.json': lists[0]! },
      more: { listen: { port: 0, ...listenFor(t, protocol) } }
    })
    const { ask } = anyClient(t, protocol, port)
    const seen = new Map<string, number>()
    let changes = 0
    let isOver = false
    const change = async () => {
      while (!isOver) {
        // As a whole: a file that is half written has faults.
        await writeFile(join(root, 'next.json'), lists[++changes % 2]!)
        await rename(join(root, 'next.json'), join(root, 'people.json'))
        await new Promise((resolve) => setTimeout(resolve, 40))
      }
    }
    const load = async () => {
      while (!isOver) {
        const { status, body } = await ask('/x', { headers: bearer('ann') })
        const { code = String(status) } = JSON.parse(body.toString()) as { code?: string }
        seen.set(code, (seen.get(code) ?? 0) + 1)
        if ((seen.get('JW_ACCESS_DENIED') ?? 0) > 20 && (seen.get('JW_REQUEST_DENIED') ?? 0) > 20 && changes > 6)
          isOver = true
      }
    }
    await Promise.all([change(), load(), load(), load()])
    t.same([...seen.keys()].sort(), ['JW_ACCESS_DENIED', 'JW_REQUEST_DENIED'], 'neither both nor none')
  })
}

t.test('a WebSocket of a consumer, on a route that refuses them', async (t) => {
  const sockets = await startWebSocketService()
  t.teardown(sockets.close)
  const { port, server } = await start(t, {
    edge: { websocket: false },
    consumers: [named('ann', { websocket: { idleTimeout: '1m' } })],
    url: sockets.url
  })
  const first = async (sub: string) => {
    const client = connect(port, handshake('/ws', [`Authorization: ${bearer(sub).authorization}`]))
    const status = (await client.until('\r\n')).toString()
    return { status, client }
  }
  const refused = await first('bob')
  t.match(refused.status, '403')
  refused.client.socket.destroy()
  const { status, client } = await first('ann')
  t.match(status, '101')
  const open = async (count: number) =>
    (await server.metrics.metrics()).includes(`jingwei_edge_websockets{route="all"} ${count}\n`)
  await eventually(() => open(1), 'the gauge shows it')
  client.socket.destroy()
  await eventually(() => open(0), 'and its end')
})

/** Collects the routes; their hooks are complete once the server is ready. */
const collecting = (routes: Map<string, RouteOptions>) => (server: FastifyInstance) =>
  void server.addHook('onRoute', (route: RouteOptions) => {
    const name = route.config?.route?.name
    if (name !== undefined) routes.set(name, route)
  })

t.test('the hooks of routes: none where no consumer has options, one more for a list in a file', async (t) => {
  const countsFor = async (consumers: object, edge: object = {}) => {
    const found = new Map<string, RouteOptions>()
    const files = { 'people.json': '[]' }
    const routes = ['all', 'open'].map((name) => ({
      name,
      match: { path: `/${name}` },
      service: 'any',
      edge: name === 'open' ? { jwt: false } : {}
    }))
    await start(t, {
      consumers,
      edge: { bodyLimit: false, ...edge },
      files,
      more: { routes },
      before: collecting(found)
    })
    const count = (name: string, phase: 'onRequest' | 'preParsing') => [found.get(name)![phase] ?? []].flat().length
    const counts = ['all', 'open'].map((name) => {
      return [name, { onRequest: count(name, 'onRequest'), preParsing: count(name, 'preParsing') }] as const
    })
    return new Map(counts)
  }
  const none = await countsFor([])
  const file = await countsFor({ file: 'people.json' })
  const plus = (counts: { onRequest: number; preParsing: number }, onRequest: number, preParsing: number) => ({
    onRequest: counts.onRequest + onRequest,
    preParsing: counts.preParsing + preParsing
  })
  t.same(await countsFor([named('ann', {})]), none, 'a consumer without options')
  t.same((await countsFor([named('ann', { acl: false })])).get('all'), none.get('all'), 'acl is off already')
  const one = await countsFor([named('ann', { acl: { denyConsumers: ['ann'] } })])
  t.same(one.get('all'), plus(none.get('all')!, 0, 1))
  t.same(one.get('open'), none.get('open'), 'nothing identifies consumers there')
  t.same(file.get('all'), plus(none.get('all')!, 0, 1), 'one hook for all concerns')
  t.same(file.get('open'), none.get('open'))
  const authentication = { forward: { id: 'x-user' } }
  const [several, base] = [
    await countsFor({ file: 'people.json' }, { authentication }),
    await countsFor([], { authentication })
  ]
  t.same(several.get('all'), plus(base.get('all')!, 0, 2), 'one before the hook of another concern, one after it')
})

t.test('concerns keep their order, also among those of users', async (t) => {
  const between = (name: string, order: object) => `export default {
    name: '${name}', options: { type: 'object', additionalProperties: false }, order: ${JSON.stringify(order)},
    async plugin() {
      return () => ({ preParsing: (request, reply, payload, done) => {
        reply.header('x-passed', [reply.getHeader('x-passed'), '${name}'].filter(Boolean).join())
        done(null, payload)
      } })
    }
  }`
  const { port } = await start(t, {
    edge: { one: {}, two: {} },
    consumers: [
      named('first', { rateLimit: { max: 1, window: '1h' }, acl: { denyConsumers: ['first'] } }),
      named('second', {
        acl: { denyConsumers: ['second'] },
        authorization: { rules: [{ methods: ['PUT'], action: 'allow' }] }
      }),
      named('third', { authorization: { rules: [{ methods: ['PUT'], action: 'allow' }] } })
    ],
    files: { 'one.mjs': between('one', { before: 'acl' }), 'two.mjs': between('two', { after: 'acl' }) },
    more: { plugins: [{ path: './one.mjs' }, { path: './two.mjs' }] }
  })
  const passed = async (sub: string) => {
    const { body, headers } = await get(port, '/', [`Authorization: ${bearer(sub).authorization}`])
    return [(JSON.parse(body) as { code?: string }).code, headers['x-passed']]
  }
  t.same(await passed('first'), ['JW_ACCESS_DENIED', 'one'], 'acl is between the two')
  t.same(await passed('first'), ['JW_RATE_LIMITED', undefined], 'the limit is before both')
  t.same(await passed('second'), ['JW_ACCESS_DENIED', 'one'])
  t.same(await passed('third'), ['JW_REQUEST_DENIED', 'one,two'])
})

t.test('concerns keep their order, also among those without options of consumers', async (t) => {
  const { port } = await start(t, {
    edge: { bodyLimit: false, validation: { body: { content: { 'application/json': { type: 'object' } } } } },
    consumers: [named('ann', { bodyLimit: '10b' }), named('bob', { acl: { denyConsumers: ['bob'] } })]
  })
  const { ask } = anyClient(t, 'HTTP/1.1', port)
  const statuses = []
  for (const sub of ['eve', 'ann', 'bob']) {
    const headers = { ...bearer(sub), 'content-type': 'application/json' }
    statuses.push((await ask('/', { method: 'POST', headers, body: '["no object"]' })).status)
  }
  t.same(statuses, [400, 413, 403], 'the limit and the rule are before the check of the body')
})

t.test('all kinds of routes have the options', async (t) => {
  const paths = ['/proxied', '/fixed', '/composed']
  const { port } = await start(t, {
    consumers: [
      named('ann', { acl: { denyConsumers: ['ann'] } }),
      named('rare', { rateLimit: { max: 2, window: '1h' } })
    ],
    more: {
      routes: [
        { name: 'proxied', match: { path: '/proxied' }, service: 'any', via: 'http-proxy' },
        { name: 'fixed', match: { path: '/fixed' }, response: { status: 200, body: 'x' } },
        {
          name: 'composed',
          match: { path: '/composed', methods: ['GET'] },
          compose: { calls: { a: { service: 'any', path: '/a' } } }
        }
      ]
    }
  })
  const codes = async (sub: string) => {
    const all: unknown[] = []
    for (const path of paths) all.push(await asked(port, sub, path))
    return all
  }
  t.same(await codes('bob'), [200, 200, 200])
  t.same(await codes('ann'), ['JW_ACCESS_DENIED', 'JW_ACCESS_DENIED', 'JW_ACCESS_DENIED'])
  t.same(await codes('rare'), [200, 200, 'JW_RATE_LIMITED'], 'one count over all')
})

t.test('a concern of a user without a position is the last one', async (t) => {
  const last = `export default {
    name: 'last', options: { type: 'object', additionalProperties: false }, forConsumers: { phases: ['preParsing'] },
    async plugin() {
      return () => ({ preParsing: (request, reply, payload, done) => done(Object.assign(new Error('no'), { statusCode: 418 })) })
    }
  }`
  const { port } = await start(t, {
    consumers: [named('ann', { last: {} }), named('bob', { last: {}, acl: { denyConsumers: ['bob'] } })],
    files: { 'last.mjs': last },
    more: { plugins: [{ path: './last.mjs' }] }
  })
  const status = async (sub: string) => (await get(port, '/', [`Authorization: ${bearer(sub).authorization}`])).status
  t.same([await status('eve'), await status('ann'), await status('bob')], [200, 418, 403])
})

const greet = `export default {
  name: 'greet',
  options: { type: 'object', properties: { text: { type: 'string' } }, additionalProperties: false },
  order: { after: 'jwt' },
  forConsumers: { phases: ['onRequest', 'preHandler', 'onSend', 'onResponse'] },
  async plugin(fastify) {
    return ({ text }, route, shadow, refused, level) => ({
      onRequest: async (request, reply) => {
        if (text === 'no') throw Object.assign(new Error('no'), { statusCode: 418 })
        if (text === 'undefined') throw undefined
        if (text === 'sent') return reply.code(204).send()
        reply.raw.setHeader('x-greeting', text + ' at ' + level)
      },
      onResponse: (request, reply, done) => { fastify.log.info({ text }, 'greeted'); done() }
    })
  }
}`

t.test('a concern of a user, and a plugin that gives consumers options', async (t) => {
  const provider = `export default async function own (fastify) {
    const options = { greet: { text: 'from a plugin' } }
    fastify.addHook('onRequest', async (request) => {
      if (request.headers['x-as'] === 'amy') request.consumer = { id: 'amy', edge: options }
    })
  }`
  const files = { 'greet.mjs': greet, 'own.mjs': provider }
  const consumers = [
    named('ann', { greet: { text: 'hi' } }),
    named('no', { greet: { text: 'no' } }),
    named('undefined', { greet: { text: 'undefined' } }),
    named('sent', { greet: { text: 'sent' } })
  ]
  const plugins = [{ path: './own.mjs', provides: ['consumer'], order: { after: 'jwt' } }, { path: './greet.mjs' }]
  for (const list of [consumers, [], { file: 'people.json' }]) {
    const more = { plugins, edge: { jwt: { secret, optional: true } } }
    const { port, log } = await start(t, {
      consumers: list,
      files: { ...files, 'people.json': JSON.stringify(consumers) },
      more
    })
    const greeting = async (...headers: string[]) => {
      const response = await get(port, '/', headers)
      return [response.status, response.headers['x-greeting']]
    }
    const as = (sub: string) => `Authorization: ${bearer(sub).authorization}`
    t.same(await greeting('X-As: amy'), [200, 'from a plugin at consumer'])
    t.same(await greeting(as('bob')), [200, undefined])
    if (Array.isArray(list) && list.length === 0) continue
    t.same(await greeting(as('ann')), [200, 'hi at consumer'])
    t.same(await greeting(as('no')), [418, undefined])
    t.same(await greeting(as('undefined')), [500, undefined])
    t.same(await greeting(as('sent')), [204, undefined])
    await eventually(() => log.some(({ msg, text }) => msg === 'greeted' && text === 'hi'))
  }
})

t.test("a plugin's own routes have the options where their own concerns identify consumers", async (t) => {
  const module = `export default async function own (fastify) {
    fastify.get('/own/bare', async () => 'well')
    fastify.get('/own/jwt', { config: { edge: { jwt: true } } }, async () => 'well')
  }`
  const { port } = await start(t, {
    consumers: [named('ann', { acl: { denyConsumers: ['ann'] } })],
    files: { 'own.mjs': module },
    more: { plugins: [{ path: './own.mjs' }] }
  })
  t.equal(await asked(port, 'ann', '/own/bare'), 200)
  t.equal(await asked(port, 'ann', '/own/jwt'), 'JW_ACCESS_DENIED')
  t.equal(await asked(port, 'bob', '/own/jwt'), 200)
})
