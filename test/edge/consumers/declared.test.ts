/** Declared consumers: in the configuration or in a file, found by the subjects of tokens. */
import { rename, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import type { Test } from 'tap'
import t from 'tap'
import { parseConfig } from '../../../plugins/config.ts'
import { consumersTiming } from '../../../plugins/edge/consumers/index.ts'
import { anyClient, listenFor, protocols } from '../../helpers/edge/asking-client.ts'
import { claims, secret, token } from '../../helpers/edge/tokens.ts'
import { eventually } from '../../helpers/eventually.ts'
import { startEcho, startWith } from '../../helpers/gateway.ts'
import { folder } from '../../helpers/plugins.ts'

consumersTiming.intervalMs = 10

const alice = { name: 'alice', groups: ['gold'], tags: ['internal'], jwt: { sub: 'a-1' } }

interface Asked {
  consumers: object
  jwt?: object
  listen?: object
  files?: Record<string, string>
}

/** A gateway whose routes verify tokens, and whose responses show the consumer. */
async function gatewayWith(t: Test, { consumers, jwt = {}, listen = { port: 0 }, files = {} }: Asked) {
  const echo = await startEcho()
  t.teardown(echo.close)
  const root = await folder(t, files)
  const text = JSON.stringify({
    listen,
    services: { any: { instances: [echo.url] } },
    edge: { jwt: { secret, ...jwt } },
    routes: [{ name: 'all', match: { path: '/' }, service: 'any' }],
    consumers
  })
  const gateway = await startWith(parseConfig(text, join(root, 'gateway.yaml'), {}), {
    log: true,
    before: (server) => {
      server.addHook('preHandler', async ({ consumer }, reply) => {
        reply.raw.setHeader('x-seen', JSON.stringify(consumer))
      })
    }
  })
  t.teardown(gateway.close)
  return { root, ...gateway }
}

const bearer = (more: object) => ({ authorization: `Bearer ${token(claims({ ...more }))}` })
const bare = { groups: [], tags: [], edge: {} }

for (const protocol of protocols) {
  t.test(`the subject of a token is mapped to a declared consumer over ${protocol}`, async (t) => {
    const gateway = await gatewayWith(t, { consumers: [alice], listen: listenFor(t, protocol) })
    const { ask } = anyClient(t, protocol, gateway.port)
    const seen = async (sub: string) =>
      JSON.parse(String((await ask('/', { headers: bearer({ sub }) })).headers['x-seen']))
    const { name: id, groups, tags } = alice
    t.same(await seen('a-1'), { id, groups, tags, edge: {} })
    t.same(await seen('b-2'), { id: 'b-2', ...bare }, 'another subject is a consumer without groups')
    t.same(
      await seen('alice'),
      { id: 'all |alice', ...bare },
      'a subject that has the name of a declared consumer is not it'
    )
    await eventually(() => gateway.log.filter(({ msg }) => msg === 'request').length === 3)
    const logged = gateway.log.flatMap(({ consumer }) => consumer ?? [])
    t.same(logged, ['alice', 'b-2', 'all |alice'])
  })
}

t.test('a mapping with an issuer fits its tokens only', async (t) => {
  const consumers = [{ name: 'alice', groups: ['gold'], jwt: { sub: 'ann', issuer: 'https://a' } }]
  const gateway = await gatewayWith(t, { consumers, jwt: { issuer: ['https://a', 'https://b'] } })
  const { ask } = anyClient(t, 'HTTP/1.1', gateway.port)
  const seen = async (iss: string) =>
    JSON.parse(String((await ask('/', { headers: bearer({ sub: 'ann', iss }) })).headers['x-seen'])).id
  t.equal(await seen('https://a'), 'alice')
  t.equal(await seen('https://b'), 'https://b|ann')
})

t.test('without a verified issuer, a claimed one maps to nobody', async (t) => {
  const consumers = [{ name: 'alice', jwt: { sub: 'ann', issuer: 'https://a' } }]
  const gateway = await gatewayWith(t, { consumers })
  const { ask } = anyClient(t, 'HTTP/1.1', gateway.port)
  const { headers } = await ask('/', { headers: bearer({ sub: 'ann', iss: 'https://a' }) })
  t.match(JSON.parse(String(headers['x-seen'])), { id: 'ann' })
})

t.test('a changed file takes effect without a reload, for tokens that are cached, too', async (t) => {
  const file = (groups: string) => `- name: alice\n  groups: [${groups}]\n  jwt: { sub: a-1 }\n`
  const gateway = await gatewayWith(t, { consumers: { file: 'people.yaml' }, files: { 'people.yaml': file('gold') } })
  const people = join(gateway.root, 'people.yaml')
  const { ask } = anyClient(t, 'HTTP/1.1', gateway.port)
  const headers = bearer({ sub: 'a-1' })
  const seen = async () => JSON.parse(String((await ask('/', { headers })).headers['x-seen']))
  const registry = gateway.server.consumers
  const metric = async (name: string) =>
    (await gateway.server.metrics.metrics()).split('\n').find((line) => line.startsWith(`${name} `))
  t.match(await seen(), { id: 'alice', groups: ['gold'] })

  const found = new Set<string>()
  let isOver = false
  const load = (async () => {
    while (!isOver) found.add((await seen()).groups.join())
  })()
  for (const groups of ['silver', 'bronze']) {
    // Replaced by a rename, as editors and Kubernetes do.
    await writeFile(`${people}.new`, file(groups))
    await rename(`${people}.new`, people)
    await eventually(() => found.has(groups))
  }
  isOver = true
  await load
  t.same([...found], ['gold', 'silver', 'bronze'], 'each request sees one list or the next')

  for (const [text, error] of [
    ['- name: alice\n  group: [gold]\n', /people\.yaml:2:3: \[0\]\.group: unknown key; did you mean "groups"\?/],
    ['- name: alice\n- name: alice\n', /people\.yaml:2:9: \[1\]\.name: the same name is declared on line 1/],
    ['[{', /people\.yaml:1/],
    ['', /there is no list; write \[\] for no consumers/],
    ['alice', /expected a list of consumers/]
  ] as const) {
    await writeFile(people, text)
    await eventually(() => error.test(registry.error ?? ''), String(error))
    t.match(await seen(), { groups: ['bronze'] }, `the last good list stays in use: ${JSON.stringify(text)}`)
  }
  t.equal(await metric('jingwei_edge_consumers_usable'), 'jingwei_edge_consumers_usable 0')
  const faults = gateway.log.filter(({ level }) => level === 50).map(({ msg }) => String(msg))
  t.ok(
    faults.every((msg) => msg.startsWith('the file with consumers cannot be used; the last good list stays in use: '))
  )
  t.equal(faults.length, 5)

  await writeFile(people, JSON.stringify({ consumers: [] }))
  await eventually(() => registry.error === null)
  t.match(await seen(), { id: 'a-1', groups: [] }, 'a removed consumer is no consumer any more')
  t.equal(await metric('jingwei_edge_consumers_usable'), 'jingwei_edge_consumers_usable 1')
  t.equal(await metric('jingwei_edge_consumers'), 'jingwei_edge_consumers 0')
})

t.test('the state shows names and kinds of credentials only', async (t) => {
  const gateway = await gatewayWith(t, { consumers: [alice, { name: 'bob' }] })
  t.same(gateway.server.consumers.status(), {
    file: null,
    error: null,
    count: 2,
    consumers: [
      { name: 'alice', groups: ['gold'], tags: ['internal'], credentials: ['jwt'], overrides: [] },
      { name: 'bob', groups: [], tags: [], credentials: [], overrides: [] }
    ]
  })
})

t.test('a fault of the file stops the start', async (t) => {
  const start = async (consumers: string, text: string) => {
    const root = await folder(t, { 'people.yaml': text })
    return () => parseConfig(`services: {}\nconsumers: { file: ${consumers} }\n`, join(root, 'gateway.yaml'), {})
  }
  t.throws(await start('people.yaml', '- groups: [a]\n'), { message: /people\.yaml:1:3: \[0\]: missing key "name"/ })
  t.throws(await start('none.yaml', ''), { message: /gateway\.yaml:2:20: consumers\.file: .*no such file/ })
  t.throws(await start('.', ''), { message: /consumers\.file: .* is not a file/ })
})
