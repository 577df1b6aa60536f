/** Options of concerns that consumers have in place of those of the route: `consumers[].edge`. */
import { writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import type { RouteOptions } from 'fastify'
import type { Test } from 'tap'
import t from 'tap'
import type { ConfigError } from '../../../config/load.ts'
import type { Config, ConsumerConfig } from '../../../config/schema.ts'
import { parseConfig } from '../../../plugins/config.ts'
import { consumersTiming } from '../../../plugins/edge/consumers/index.ts'
import { Overrides } from '../../../plugins/edge/consumers/overrides.ts'
import { ConsumerRegistry } from '../../../plugins/edge/consumers/registry.ts'
import { inSlices } from '../../../plugins/time-slices.ts'
import { anyClient, listenFor, protocols } from '../../helpers/edge/asking-client.ts'
import { claims, secret, token } from '../../helpers/edge/tokens.ts'
import { handshake, startWebSocketService } from '../../helpers/edge/websocket.ts'
import { eventually } from '../../helpers/eventually.ts'
import { connect, get, startEcho, startService, startWith } from '../../helpers/gateway.ts'
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
}

async function start(t: Test, { edge = {}, consumers, more = {}, files = {}, url }: Started) {
  const echo = await startEcho()
  t.teardown(echo.close)
  const root = await folder(t, files)
  const text = JSON.stringify({
    listen: { port: 0 },
    admin: { port: 0 },
    services: { any: { instances: [url ?? echo.url] } },
    edge: { jwt: { secret }, ...edge },
    routes: [{ name: 'all', match: { path: '/' }, service: 'any' }],
    consumers,
    ...more
  })
  const gateway = await startWith(parseConfig(text, join(root, 'gateway.yaml'), {}), { log: true })
  t.teardown(gateway.close)
  return { root, ...gateway }
}

const get0 = async (port: number, sub: string, path = '/') =>
  (await get(port, path, [`Authorization: ${bearer(sub).authorization}`])).status

for (const protocol of protocols) {
  t.test(`over ${protocol}, the options of a consumer replace those of the route`, async (t) => {
    const gateway = await start(t, {
      edge: {
        acl: { allow: ['gold'] },
        bodyLimit: '10b',
        ipFilter: { allow: ['127.0.0.0/8'] },
        authorization: { rules: [{ methods: ['GET', 'POST'], action: 'allow' }] }
      },
      consumers: [
        named('ann', {}, { groups: ['gold'] }),
        named('free', { acl: false, bodyLimit: false }),
        named('other', { acl: { allow: ['silver'] }, bodyLimit: '20b' }, { groups: ['silver'] }),
        named('far', { acl: false, ipFilter: { allow: ['10.0.0.0/8'] } }),
        named('near', { acl: false, ipFilter: { allow: ['127.0.0.1'] } }),
        named('shadowed', { acl: { allow: ['silver'], mode: 'shadow' } }),
        named('reader', { acl: false, authorization: { rules: [{ methods: ['GET'], action: 'allow' }] } })
      ],
      more: { listen: { port: 0, ...listenFor(t, protocol) } }
    })
    const { ask } = anyClient(t, protocol, gateway.port)
    const statusOf = async (sub: string, body = '') => {
      const { status, body: seen } = await ask('/x', {
        method: body === '' ? 'GET' : 'POST',
        headers: bearer(sub),
        ...(body !== '' && { body })
      })
      if (status === 200 && body !== '') t.match(seen.toString(), body, 'the service gets the body')
      return status
    }
    const [small, medium, large] = [8, 18, 28].map((size) => 'x'.repeat(size)) as [string, string, string]
    t.equal(await statusOf('ann'), 200)
    t.equal(await statusOf('bob'), 403, 'a caller without own options')
    t.equal(await statusOf('ann', small), 200)
    t.equal(await statusOf('ann', medium), 413)
    t.equal(await statusOf('free', large), 200, 'false switches a concern off')
    t.equal(await statusOf('other'), 200)
    t.equal(await statusOf('other', medium), 200)
    t.equal(await statusOf('other', large), 413)
    t.equal(await statusOf('far'), 403, 'addresses of a consumer are checked besides those of the route')
    t.equal(await statusOf('near'), 200)
    t.equal(await statusOf('shadowed'), 200, 'shadow mode of one consumer')
    t.equal(await statusOf('reader'), 200)
    t.equal(await statusOf('reader', small), 403)
    const lines = () => gateway.log.filter(({ msg }) => msg === 'request')
    await eventually(() => lines().length === 13)
    const reasonsOf = (consumer: string) =>
      lines().flatMap((line) => (line.consumer === consumer ? (line.reason ?? line.shadow ?? []) : []))
    t.same(reasonsOf('far'), ['ip_not_allowed'])
    t.same(reasonsOf('reader'), ['rule_default'])
    t.match(reasonsOf('shadowed'), [{ concern: 'acl', reason: 'acl_not_allowed' }])
    const metrics = await gateway.server.metrics.metrics()
    t.match(metrics, /jingwei_edge_refusals_total\{concern="ip-filter",route="all",code="JW_ADDRESS_DENIED"\} 1\n/)
    t.match(metrics, /jingwei_edge_shadow_refusals_total\{concern="acl",route="all"\} 1\n/)
  })
}

t.test('WebSockets of a consumer, forward auth, permissions and GraphQL', async (t) => {
  const sockets = await startWebSocketService()
  t.teardown(sockets.close)
  const decisions: string[] = []
  const decider = await startService((request, response) => {
    decisions.push(request.url!)
    response.writeHead(403).end()
  })
  t.teardown(decider.close)
  const echo = await startEcho()
  t.teardown(echo.close)
  const { port } = await start(t, {
    consumers: [
      named('still', { websocket: false }),
      named('trusted', { forwardAuth: false, uma: false, graphql: { maxDepth: 3 } })
    ],
    more: {
      services: { ws: { instances: [sockets.url] }, any: { instances: [echo.url] } },
      routes: [
        { name: 'ws', match: { path: '/ws' }, service: 'ws' },
        { name: 'asked', match: { path: '/asked' }, service: 'any', edge: { forwardAuth: { url: decider.url } } },
        {
          name: 'uma',
          match: { path: '/uma' },
          service: 'any',
          edge: { uma: { url: decider.url, audience: 'api', permissions: ['x'] } }
        },
        { name: 'graph', match: { path: '/graph' }, service: 'any', edge: { graphql: { maxDepth: 1 } } }
      ]
    }
  })
  const line = (sub: string) => `Authorization: ${bearer(sub).authorization}`
  const first = async (sub: string) => {
    const client = connect(port, handshake('/ws', [line(sub)]))
    const status = (await client.until('\r\n')).toString()
    client.socket.destroy()
    return status
  }
  t.match(await first('ann'), '101')
  t.match(await first('still'), '403')
  t.equal(await get0(port, 'ann', '/asked'), 403)
  t.equal(await get0(port, 'trusted', '/asked'), 200)
  t.equal(await get0(port, 'ann', '/uma'), 503, 'the decision is malformed')
  t.equal(await get0(port, 'trusted', '/uma'), 200)
  t.equal(decisions.length, 2, 'the consumer that is trusted takes no call')
  const query = `/graph?query=${encodeURIComponent('{ a { b } }')}`
  t.equal(await get0(port, 'ann', query), 400)
  t.equal(await get0(port, 'trusted', query), 200)
})

t.test('a changed file changes the options at once, and is checked as the configuration is', async (t) => {
  const write = (acl: unknown) => JSON.stringify([named('ann', { acl })])
  const gateway = await start(t, {
    edge: { acl: { allow: ['gold'] } },
    consumers: { file: 'people.json' },
    files: { 'people.json': '[]' }
  })
  const people = join(gateway.root, 'people.json')
  const registry = gateway.server.consumers
  t.equal(await get0(gateway.port, 'ann'), 403)
  await writeFile(people, write(false))
  await eventually(async () => (await get0(gateway.port, 'ann')) === 200)
  await writeFile(people, write({ denyConsumers: ['ann'] }))
  await eventually(async () => (await get0(gateway.port, 'ann')) === 403)
  await writeFile(people, write({ denyConsumers: ['bob'] }))
  await eventually(async () => (await get0(gateway.port, 'ann')) === 200)
  for (const [text, error] of [
    [write({}), /people\.json:1:\d+: \[0\]\.edge\.acl: has no condition/],
    [JSON.stringify([named('ann', { cors: false })]), /\[0\]\.edge\.cors: unknown key; it takes effect before/],
    [JSON.stringify([named('ann', { jwt: false })]), /\[0\]\.edge\.jwt: unknown key; it identifies the consumer/],
    [JSON.stringify([named('ann', { ipFilter: false })]), /\[0\]\.edge\.ipFilter: expected a mapping, found false/],
    [JSON.stringify([named('ann', { uma: {} })]), /\[0\]\.edge\.uma: expected false, found an empty mapping/],
    [
      JSON.stringify([named('ann', { rateLimit: { max: 1, window: '1s', store: 'redis' } })]),
      /\[0\]\.edge\.rateLimit\.store: needs the top-level "redis"/
    ]
  ] as const) {
    await writeFile(people, text)
    await eventually(() => error.test(registry.error ?? ''), String(error))
    t.equal(await get0(gateway.port, 'ann'), 200, 'the last good list stays in use')
  }
})

t.test('options without effect are a warning', async (t) => {
  const warnings: string[] = []
  const text = JSON.stringify({
    listen: { port: 0 },
    services: { any: { instances: ['http://127.0.0.1:1'] } },
    routes: [{ name: 'all', match: { path: '/' }, service: 'any' }],
    edge: { jwt: { secret } },
    consumers: ['ann', 'bob'].map((name) => named(name, { acl: false, bodyLimit: false }))
  })
  parseConfig(text, 'gateway.yaml', {}, ({ path, message }) => warnings.push(`${path}: ${message}`))
  t.same(warnings, ['consumers[0].edge.acl: has no effect: no route enables acl; set edge.acl as well'])
})

t.test('a concern of a user lets consumers have their own options', async (t) => {
  const module = `
    export default {
      name: 'greet',
      options: { type: 'object', properties: { text: { type: 'string' } }, additionalProperties: false },
      order: { after: 'jwt' },
      forConsumers: { phases: ['onRequest', 'onResponse'] },
      async plugin() {
        return ({ text }, route, shadow, refused, level) => ({
          onRequest: async (request, reply) => {
            if (text === 'no') throw Object.assign(new Error('no'), { statusCode: 418 })
            reply.raw.setHeader('x-greeting', text + ' at ' + level)
          }
        })
      }
    }
  `
  const { port, server } = await startGreeting(t, module)
  const greeting = async (sub: string) => {
    const { status, headers } = await get(port, '/', [`Authorization: ${bearer(sub).authorization}`])
    return [status, headers['x-greeting']]
  }
  t.same(await greeting('bob'), [200, 'hello at route'])
  t.same(await greeting('ann'), [200, 'hi at consumer'])
  t.same(await greeting('quiet'), [200, undefined])
  t.same(await greeting('refused'), [418, undefined])
  t.match(await server.metrics.metrics(), /refusals_total\{concern="greet",route="all",code="418"\} 1\n/)
})

async function startGreeting(t: Test, module: string) {
  const echo = await startEcho()
  t.teardown(echo.close)
  const root = await folder(t, {
    'greet.mjs': module,
    'gateway.yaml': JSON.stringify({
      listen: { port: 0 },
      services: { any: { instances: [echo.url] } },
      edge: { jwt: { secret }, greet: { text: 'hello' } },
      routes: [{ name: 'all', match: { path: '/' }, service: 'any' }],
      plugins: [{ path: './greet.mjs' }],
      consumers: [
        named('ann', { greet: { text: 'hi' } }),
        named('quiet', { greet: false }),
        named('refused', { greet: { text: 'no' } })
      ]
    })
  })
  const { loadConfig } = await import('../../../plugins/config.ts')
  const gateway = await startWith(await loadConfig(join(root, 'gateway.yaml'), {}))
  t.teardown(gateway.close)
  return gateway
}

t.test('a definition without phases is a fault', async (t) => {
  const module = `export default { name: 'greet', options: {}, forConsumers: ['onRequest'], async plugin() { return () => null } }`
  await t.rejects(startGreeting(t, module), /"forConsumers" of its concern "greet" has no "phases"/)
})

t.test('options of a consumer that a concern cannot use are faults', async (t) => {
  const text = JSON.stringify({
    services: { any: { instances: ['http://127.0.0.1:1'] } },
    routes: [
      { name: 'all', match: { path: '/' }, service: 'any', edge: { authorization: { rules: [{ methods: ['GET'] }] } } }
    ],
    consumers: [named('ann', { authorization: { rules: [{ paths: ['no'] }] } })]
  })
  try {
    parseConfig(text, 'gateway.yaml', {})
    t.fail('accepted')
  } catch (error) {
    t.match((error as ConfigError).message, 'consumers[0].edge.authorization.rules[0].paths[0]: ')
  }
})

t.test('hooks are made once for each options of a route, and their number is bounded', async (t) => {
  const { server } = await start(t, { consumers: [named('ann', { any: {} })].map(({ edge: _, ...rest }) => rest) })
  const config = { consumers: { file: 'any', stored: null, list: [] }, plugins: [] } as unknown as Config
  let made = 0
  type Ask = (request: object, reply: object, done: (error?: Error) => void) => void
  const hookOf = (overrides: Overrides, phase: 'onRequest' | 'preHandler') => {
    const route: { onRequest?: Ask[] } = {}
    overrides.attach(route as RouteOptions, true, [], () => {
      made++
      return [[phase, () => {}]]
    })
    return route.onRequest![0]!
  }
  const overrides = new Overrides(server, config, { name: 'any' }, { phases: ['onRequest'] }, 1000)
  const [hook, other] = [hookOf(overrides, 'onRequest'), hookOf(overrides, 'onRequest')]
  const ask = (hook: Ask, any: unknown) => hook({ consumer: { edge: { any } } }, {}, () => {})
  const first = {}
  for (let i = 0; i < 3; i++) ask(hook, first)
  t.equal(made, 1)
  for (let i = 0; i < 500; i++) ask(hook, { i })
  for (let i = 0; i < 499; i++) ask(other, { i })
  t.equal(made, 1000)
  ask(hook, first)
  t.equal(made, 1000)
  ask(other, first)
  ask(hook, first)
  t.equal(made, 1002, 'the oldest of all routes was dropped')
  const failing = hookOf(new Overrides(server, config, { name: 'any' }, { phases: ['onRequest'] }), 'preHandler')
  failing({ consumer: { edge: { any: {} } } }, {}, (error) => t.match(error?.message, 'at most one hook'))
})

t.test('equal options stay one object over changes of the list, so that their hooks are made once', async (t) => {
  const registry = new ConsumerRegistry()
  const ann = () =>
    ({ name: 'ann', groups: [], tags: [], edge: { bodyLimit: { max: 10 } } }) as unknown as ConsumerConfig
  await inSlices(registry.replace([ann()], []))
  const { edge } = registry.named('ann')!
  await inSlices(registry.replace([ann(), { name: 'bob', groups: [], tags: [] }], []))
  t.equal(registry.named('ann')!.edge.bodyLimit, edge.bodyLimit)
})
