/** Consul's intentions: their precedence, and decisions of the sidecar. */
import { setTimeout as sleep } from 'node:timers/promises'
import type { Test } from 'tap'
import t from 'tap'
import type { MeshPolicy, ServiceConfig } from '../../../../config/schema.ts'
import { intentionTiming } from '../../../../plugins/mesh/connect/identity/intention-query.ts'
import { Intentions } from '../../../../plugins/mesh/connect/identity/intentions.ts'
import { eventually } from '../../../helpers/eventually.ts'
import { meterStub, service } from '../../../helpers/mesh/mesh.ts'
import { upstream } from '../../../helpers/mesh/servers.ts'
import { startMesh } from '../../../helpers/mesh/start-mesh.ts'
import { call, logged } from '../support.ts'
import { scripted } from './support.ts'

intentionTiming.every = 20

const match = '/v1/connect/intentions/match'
const check = '/v1/connect/intentions/check'
const allow = { Action: 'allow' }
const deny = { Action: 'deny' }
const rule = (destination: string, precedence: number, what: object) => ({
  SourceName: 'gateway',
  DestinationNS: 'default',
  DestinationName: destination,
  Precedence: precedence,
  ...what
})

async function scene(t: Test) {
  const consul = await scripted(t)
  const { log, of, lines } = logged()
  const deps = { log, meter: null, now: () => performance.now(), random: () => 0.1 }
  const intentions = new Intentions('gateway', consul.get, consul.consul, deps)
  t.teardown(() => intentions.close())
  const say = (...rules: object[]) => consul.respond(match, { gateway: rules.length === 0 ? null : rules })
  const fallTo = (allowed: boolean) => consul.respond(check, { Allowed: allowed })
  return { ...consul, intentions, rules: say, fallTo, of, lines }
}

t.test('exact intentions precede wildcards, and these precede the default', async (t) => {
  const { intentions, rules, fallTo, requests } = await scene(t)
  const [orders, users, other] = ['orders', 'users', 'other'].map((name) => intentions.to(name))
  t.equal(intentions.to('orders'), orders)
  t.equal(orders!.verdict, 'unknown', 'before the first response of Consul')
  rules(rule('*', 6, deny), rule('orders', 9, allow))
  fallTo(true)
  intentions.start()
  const are = (...verdicts: string[]) =>
    eventually(() => `${[orders, users, other].map((each) => each!.verdict)}` === `${verdicts}`, `${verdicts}`)
  await are('allowed', 'denied', 'denied')
  t.notOk(
    requests.some((url) => url.startsWith(check)),
    'the default of Consul is not queried'
  )
  rules(rule('users', 8, deny))
  await are('allowed', 'denied', 'allowed')
  fallTo(false)
  await are('denied', 'denied', 'denied')
  rules(rule('users', 8, allow), rule('users', 9, deny), rule('orders', 9, { ...allow, SourcePeer: 'cluster-02' }))
  await are('denied', 'denied', 'denied')
  rules(rule('orders', 9, { ...allow, DestinationNS: 'other' }), rule('users', 9, allow))
  await are('denied', 'allowed', 'denied')
  rules(
    rule('orders', 9, { Action: '', Permissions: [{ Action: 'allow', HTTP: { PathPrefix: '/' } }] }),
    rule('*', 6, deny)
  )
  await are('unknown', 'denied', 'denied')
  t.ok(requests.some((url) => url.startsWith(`${match}?by=source&name=gateway`)))
})

t.test('Consul unavailable: the last known intentions stay; logged once, and once when available again', async (t) => {
  const { intentions, rules, respond, lines } = await scene(t)
  const orders = intentions.to('orders')
  respond(match, 'Permission denied', null, 403)
  intentions.start()
  await eventually(() => /intentions:read on gateway/.test(intentions.error ?? ''), 'the permission error')
  t.equal(orders.verdict, 'unknown')
  rules(rule('orders', 9, deny))
  await eventually(() => orders.verdict === 'denied', 'the verdict "denied"')
  for (const bad of ['rubbish', {}, { gateway: 7 }, null]) {
    respond(match, bad)
    await eventually(() => intentions.error !== null, 'the failure of Consul')
    await sleep(50)
    t.equal(orders.verdict, 'denied')
  }
  t.equal(lines.filter(({ level }) => level === 'warn').length, 2)
  rules(rule('orders', 9, allow))
  await eventually(() => orders.verdict === 'allowed', 'the verdict "allowed"')
  t.equal(intentions.error, null)
})

t.test('without a known default, the sidecar decides', async (t) => {
  const { intentions, rules, respond } = await scene(t)
  const [orders, users] = ['orders', 'users'].map((name) => intentions.to(name))
  rules(rule('users', 9, deny))
  respond(check, 'Permission denied', null, 403)
  intentions.start()
  await eventually(() => users!.verdict === 'denied', 'the verdict of the intention')
  t.equal(orders!.verdict, 'unknown')
})

async function calledMesh(t: Test, policy: Partial<MeshPolicy>, ruling: object) {
  const consul = await scripted(t)
  consul.respond(match, { gateway: [ruling] })
  const peer = await upstream(t, 'orders')
  const { meter, counts } = meterStub()
  const config: ServiceConfig = service('orders', [peer.url], { identity: { service: 'gateway' }, ...policy })
  const mesh = startMesh({ services: { orders: config }, discovery: { consul: consul.consul } }, { meter })
  t.teardown(() => mesh.destroy())
  await eventually(() => consul.requests.length > 2, 'the intentions are queried')
  return { mesh, peer, counts }
}

t.test('a denied call opens no connection', async (t) => {
  const { mesh, peer, counts } = await calledMesh(t, { intentions: { mode: 'enforce' } }, rule('orders', 9, deny))
  t.ok(mesh.describe('orders').includes('intentions'))
  t.equal(await call(mesh), 'JW_INTENTION_DENIED')
  t.equal(peer.sockets.size, 0)
  t.equal(counts['jingwei_mesh_intention_denials_total{orders}'], 1)
  t.match(mesh.status()[0]!.concerns.transport, { mode: 'direct', intention: 'denied' })
})

t.test('shadow mode only counts denied calls', async (t) => {
  const { mesh, counts } = await calledMesh(t, { intentions: { mode: 'shadow' } }, rule('orders', 9, deny))
  t.equal(await call(mesh), 'orders')
  t.equal(counts['jingwei_mesh_shadowed_total{orders,intentions}'], 1)
  t.equal(counts['jingwei_mesh_intention_denials_total{orders}'], undefined)
})

t.test('intentions are off by default, and missing requirements are reported at the start', async (t) => {
  const peer = await upstream(t, 'orders')
  const open = (policy: Partial<MeshPolicy>, more = {}, consul = {}) => {
    const { instances: _none, ...found } = service('orders', [peer.url], policy)
    const mesh = startMesh({ services: { orders: { ...found, ...more } }, discovery: consul })
    t.teardown(() => mesh.destroy())
    return mesh
  }
  const listed = { instances: [peer.url] }
  t.notOk(open({}, listed).describe('orders').includes('intentions'))
  t.notOk(open({ intentions: false }, listed).describe('orders').includes('intentions'))
  const consul = { consul: (await scripted(t)).consul }
  const identity = { service: 'gateway' }
  t.throws(() => open({ intentions: { mode: 'enforce' } }, listed), /intentions needs `mesh.identity.service`/)
  t.throws(() => open({ intentions: { mode: 'enforce' }, identity }, listed), /intentions needs `discovery.consul`/)
  t.throws(() => open({ mode: 'connect', identity }, listed, consul), /mode connect finds instances in Consul/)
  t.throws(() => open({ mode: 'connect' }, {}, consul), /mode connect needs `mesh.identity.service`/)
  t.ok(open({ mode: 'connect', identity }, {}, consul).describe('orders').includes('intentions'))
  t.notOk(open({ mode: 'connect', identity, intentions: false }, {}, consul).describe('orders').includes('intentions'))
})
