// Maintenance mode, switched at run time by the admin port.
import { join } from 'node:path'
import type { Test } from 'tap'
import t from 'tap'
import { http2Client } from '../../helpers/edge/direct-clients.ts'
import { get, startEcho, startGateway } from '../../helpers/gateway.ts'
import { selfSigned } from '../../helpers/self-signed.ts'

const echo = await startEcho()
t.teardown(echo.close)
const services = { any: { instances: [echo.url] } }
const off = { enabled: false, retryAfter: '2m' }
const groups = { shop: { service: 'any' } }
const routes = [
  { name: 'cart', group: 'shop', match: { path: '/cart' } },
  { name: 'list', group: 'shop', match: { path: ['/list', '/lists'] } },
  { name: 'blog', match: { path: '/blog' }, service: 'any' },
  { name: 'fixed', match: { path: '/fixed' }, response: { body: 'fixed' } },
  { name: 'none', match: { path: '/none' }, service: 'any', edge: { maintenance: false } }
]
const sections = { services, groups, routes, edge: { maintenance: off } }

interface Shown {
  readonly routes: readonly { readonly route: string; readonly on: boolean; readonly switched: string | null }[]
}

async function start(t: Test, more: object = {}) {
  const gateway = await startGateway({ ...sections, admin: { port: 0 }, ...more }, { log: true })
  t.teardown(gateway.close)
  const admin = gateway.server.admin!
  const post = async (path: string) => {
    const { statusCode, body } = await admin.inject({ method: 'POST', url: `/admin/maintenance/${path}` })
    return { statusCode, body: JSON.parse(body) as Shown & { message: string; withoutMaintenance: string[] } }
  }
  const state = async () => (await admin.inject('/admin/maintenance')).json() as Shown
  const refusing = async () => {
    const found: string[] = []
    for (const path of ['/cart', '/list', '/lists', '/blog', '/fixed', '/none'])
      if ((await get(gateway.port, path)).status === 503) found.push(path)
    return found.join(' ')
  }
  return { ...gateway, admin, post, state, refusing }
}

t.test('of a route, of a group and of all; the last command wins', async (t) => {
  const { post, refusing } = await start(t)
  const steps: [command: string, refused: string][] = [
    ['on?route=list', '/list /lists'],
    ['on?route=fixed', '/list /lists /fixed'],
    ['off?route=fixed', '/list /lists'],
    ['on?group=shop', '/cart /list /lists'],
    ['off?route=cart', '/list /lists'],
    ['on?group=shop', '/cart /list /lists'],
    ['reset?route=list', '/cart'],
    ['on?group=shop', '/cart /list /lists'],
    ['off?group=shop', ''],
    ['on?all=true', '/cart /list /lists /blog /fixed'],
    ['off?group=shop', '/blog /fixed'],
    ['on?route=cart', '/cart /blog /fixed'],
    ['reset?group=shop', '/blog /fixed'],
    ['on?all=true', '/cart /list /lists /blog /fixed'],
    ['reset?route=list', '/cart /blog /fixed'],
    ['reset?all=true', '']
  ]
  t.equal(await refusing(), '')
  for (const [command, refused] of steps) {
    t.equal((await post(command)).statusCode, 200, command)
    t.equal(await refusing(), refused, command)
  }
})

t.test('the response, the state, explain, the metric and the log', async (t) => {
  const { post, state, admin, log, port } = await start(t)
  t.strictSame((await post('on?all=true')).body.withoutMaintenance, ['none'])
  await post('reset?all=true')
  t.strictSame(await post('on?group=shop'), {
    statusCode: 200,
    body: {
      routes: [
        { route: 'cart', group: 'shop', on: true, configured: 'off', switched: 'on' },
        { route: 'list', group: 'shop', on: true, configured: 'off', switched: 'on' }
      ],
      withoutMaintenance: []
    }
  })
  t.strictSame(
    (await state()).routes.map(({ route, on, switched }) => [route, on, switched]),
    [
      ['cart', true, 'on'],
      ['list', true, 'on'],
      ['blog', false, null],
      ['fixed', false, null]
    ]
  )
  const explained = async (path: string) =>
    (await admin.inject(`/admin/explain?path=${path}`))
      .json<{ decisions: string[][] }>()
      .decisions.find(([name]) => name === 'maintenance')?.[1]
  t.equal(await explained('/cart'), 'refuses with 503 JW_MAINTENANCE: switched on at the admin port')
  t.equal(await explained('/blog'), 'off: enabled is false')
  await post('off?route=blog')
  t.equal(await explained('/blog'), 'off: switched off at the admin port')
  const metrics = (await admin.inject('/metrics')).body.split('\n')
  t.strictSame(
    metrics.filter((line) => line.startsWith('jingwei_edge_maintenance{')),
    ['cart"} 1', 'list"} 1', 'blog"} 0', 'fixed"} 0'].map((rest) => `jingwei_edge_maintenance{route="${rest}`)
  )
  t.match(await get(port, '/cart'), { status: 503, headers: { 'retry-after': '120' } })
  t.match(
    log.find(({ msg }) => msg === 'maintenance mode: on, by the admin port'),
    { level: 40 }
  )
})

t.test('commands that cannot be carried out', async (t) => {
  const { post, refusing } = await start(t)
  const one = /^give one of route, group and all=true$/
  const cases: [command: string, statusCode: number, message: RegExp][] = [
    ['on', 400, one],
    ['on?route=cart&all=true', 400, one],
    ['on?route=', 400, /^route: unknown, empty or given twice/],
    ['on?route=cart&route=list', 400, /^route: unknown, empty or given twice/],
    ['on?all=yes', 400, /^all: unknown/],
    ['on?rout=cart', 400, /^rout: unknown/],
    ['on?route=crt', 404, /^no route is named "crt"; did you mean "cart"\?$/],
    ['on?group=shp', 404, /^no route is in a group "shp"; did you mean "shop"\?$/],
    ['on?route=none', 409, /^route none does not have edge\.maintenance; write maintenance: \{ enabled: false \}/]
  ]
  for (const [command, statusCode, message] of cases)
    t.match(await post(command), { statusCode, body: { message } }, command)
  t.equal((await post('toggle?all=true')).statusCode, 404)
  t.equal(await refusing(), '')
  const without = await start(t, { edge: {} })
  t.match(await without.post('on?all=true'), { statusCode: 409, body: { message: /^none of these routes has edge/ } })
})

t.test('a mode that the configuration switches on, or a file', async (t) => {
  const { post, refusing, state } = await start(t, { edge: { maintenance: {} } })
  t.equal(await refusing(), '/cart /list /lists /blog /fixed')
  await post('off?group=shop')
  t.equal(await refusing(), '/blog /fixed')
  t.match((await state()).routes[0], { route: 'cart', on: false, configured: 'on', switched: 'off' })
  const file = await start(t, { edge: { maintenance: { whileFile: join(t.testdir({}), 'on') } } })
  await file.post('on?route=blog')
  t.equal(await file.refusing(), '/blog')
  t.match((await file.state()).routes[2], { configured: 'file', switched: 'on' })
})

t.test('in shadow mode, the switch only counts', async (t) => {
  const { post, refusing, admin, state } = await start(t, { edge: { maintenance: { ...off, mode: 'shadow' } } })
  await post('on?all=true')
  t.equal(await refusing(), '')
  t.match((await state()).routes[0], { on: true, mode: 'shadow' })
  const { body } = await admin.inject('/metrics')
  t.match(body, /jingwei_edge_shadow_refusals_total\{concern="maintenance",route="cart"\} 1/)
  t.match(body, /jingwei_edge_maintenance\{route="cart"\} 0/)
})

t.test('over HTTP/2', async (t) => {
  const { post, port } = await start(t, { listen: { tls: selfSigned(t), http2: true } })
  const ask = await http2Client(t, port)
  t.equal((await ask('/cart')).status, 200)
  await post('on?route=cart')
  t.match(await ask('/cart'), { status: 503, headers: { 'retry-after': '120' } })
  await post('reset?route=cart')
  t.equal((await ask('/cart')).status, 200)
})
