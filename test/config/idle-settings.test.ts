/** Settings without effect beside the others, of consumers and of concerns: each is a warning, once. */
import { hash } from 'node:crypto'
import { writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import t from 'tap'
import { parseConfig } from '../../plugins/config.ts'
import { consumersTiming } from '../../plugins/edge/consumers/index.ts'
import { eventually } from '../helpers/eventually.ts'
import { startGateway } from '../helpers/gateway.ts'
import { folder } from '../helpers/plugins.ts'

consumersTiming.intervalMs = 10

const secret = 's'.repeat(32)
const keyAuth = { hash: `sha256:${hash('sha256', 'key-1')}` }
const jwt = { secret, algorithms: ['HS256'] }

interface Parts {
  edge?: object
  own?: object
  consumers?: unknown
  more?: object
}

const configOf = ({ edge = {}, own = {}, consumers = [], more = {} }: Parts) => ({
  listen: { port: 0 },
  services: { any: { instances: ['http://127.0.0.1:1'] } },
  routes: [
    { name: 'one', match: { path: '/' }, service: 'any', edge: own },
    { name: 'two', match: { path: '/two' }, service: 'any' }
  ],
  edge,
  consumers,
  ...more
})

function warningsOf(parts: Parts, file = 'gateway.yaml'): string[] {
  const found: string[] = []
  parseConfig(JSON.stringify(configOf(parts)), file, {}, ({ path, message }) => found.push(`${path}: ${message}`))
  return found
}

const unidentified = (name: string) =>
  `has no effect: no route identifies consumers by ${name}, so requests need no such credentials; set edge.${name} as well`

t.test('credentials of a method that no route has', async (t) => {
  const both = [
    { name: 'ann', keyAuth },
    { name: 'bob', keyAuth: { hash: `sha256:${'a'.repeat(64)}` } }
  ]
  t.same(warningsOf({ consumers: both }), [`consumers[0].keyAuth: ${unidentified('keyAuth')}`], 'once')
  t.same(warningsOf({ consumers: both, own: { keyAuth: {} } }), [], 'one route is enough')
  t.same(warningsOf({ consumers: both, edge: { keyAuth: {} } }), [])
  t.same(warningsOf({ consumers: both, edge: { jwt } }), [`consumers[0].keyAuth: ${unidentified('keyAuth')}`])
  const all = {
    jwt: { sub: 'a' },
    oidc: 'a',
    authorizer: 'a',
    introspection: 'a',
    forwardAuth: 'a',
    hmacAuth: { username: 'a', secret: 'b' },
    mtlsAuth: { cn: 'a' }
  }
  const expected = Object.keys(all).map((name) => `consumers[0].${name}: ${unidentified(name)}`)
  t.same(warningsOf({ consumers: [{ name: 'ann', ...all }] }).toSorted(), expected.toSorted())
  const forwardAuth = { url: 'http://127.0.0.1:1/' }
  const consumers = [{ name: 'ann', forwardAuth: 'a' }]
  t.equal(warningsOf({ consumers, edge: { forwardAuth } }).length, 1, 'which names no consumers')
  t.same(warningsOf({ consumers, edge: { forwardAuth: { ...forwardAuth, consumer: 'x-user' } } }), [])
  const plugins = [{ package: 'fastify' }]
  t.same(warningsOf({ consumers: both, more: { plugins } }), [], 'routes of a plugin may have the method')
})

t.test('options of a consumer that can never matter, though routes identify it', async (t) => {
  const options = { acl: { allow: ['a'] }, bodyLimit: '1mb', websocket: {}, rateLimit: { max: 1, window: '1s' } }
  const consumers = [{ name: 'ann', groups: ['a'], edge: options }]
  const off = { jwt, websocket: false, bodyLimit: false }
  t.same(warningsOf({ consumers, edge: off }), [], 'they switch concerns on')
  const none = (name: string) =>
    `consumers[0].edge.${name}: has no effect: no route enables ${name}; set edge.${name} as well`
  const switchedOff = Object.fromEntries(Object.keys(options).map((name) => [name, false]))
  t.same(
    warningsOf({ consumers: [{ name: 'ann', edge: switchedOff }], edge: off }),
    Object.keys(options).map(none),
    'what is off already'
  )
  t.same(warningsOf({ consumers: [{ name: 'ann', edge: switchedOff }], edge: { jwt } }), ['acl', 'rateLimit'].map(none))
  const more = { routes: [{ name: 'one', match: { path: '/' }, service: 'any', via: 'http-proxy' }] }
  const [warning, ...others] = warningsOf({ consumers, edge: off, more })
  t.match(warning, /^consumers\[0\]\.edge\.websocket: has no effect: no route can have it: http-proxy connects/)
  t.same(others, [])
  const graphql = [{ name: 'ann', edge: { graphql: { maxDepth: 3 } } }]
  t.same(warningsOf({ consumers: graphql, edge: { jwt } }), [none('graphql')], 'which needs a route')
  t.same(warningsOf({ consumers: graphql, edge: { jwt }, own: { graphql: {} } }), [])
})

t.test('options of a consumer where nothing identifies it', async (t) => {
  const consumers = ['ann', 'bob'].map((name) => ({ name, edge: { bodyLimit: '1mb' } }))
  const [warning, ...others] = warningsOf({ consumers })
  t.match(warning, /^consumers\[0\]\.edge: has no effect: nothing on any route identifies the consumer; add mtlsAuth, /)
  t.same(others, [])
  t.same(warningsOf({ consumers, own: { jwt } }), [])
})

t.test('consumers in a file', async (t) => {
  const root = await folder(t, { 'people.json': '[]' })
  const people = join(root, 'people.json')
  const file = join(root, 'gateway.json')
  await writeFile(people, JSON.stringify([{ name: 'ann', keyAuth }]))
  const parts = { consumers: { file: 'people.json' } }
  const warned: string[] = []
  parseConfig(JSON.stringify(configOf(parts)), file, {}, (warning) => warned.push(`${warning.file}: ${warning.path}`))
  t.same(warned, [`${people}: [0].keyAuth`])
  const wrong = JSON.stringify(configOf({ ...parts, more: { routes: 5 } }))
  t.throws(() => parseConfig(wrong, file), { message: /^\S+ routes: expected a list, found 5\n1 fault in / })
})

t.test('a changed file without effect is a line of the log', async (t) => {
  const root = await folder(t, { 'people.json': '[]' })
  const people = join(root, 'people.json')
  const gateway = await startGateway({ ...configOf({}), consumers: { file: people } }, { log: true })
  t.teardown(gateway.close)
  await writeFile(people, JSON.stringify([{ name: 'ann', keyAuth }]))
  const line = `consumers: ${people}:1:16: [0].keyAuth: ${unidentified('keyAuth')}`
  await eventually(() => gateway.log.some(({ msg }) => msg === line), line)
})
