/** The availability of an instance, and reports of its changes. */
import t from 'tap'
import type { Endpoint } from '../../../plugins/mesh/core/types.ts'
import { instanceOf, logOf } from '../../helpers/mesh/health.ts'
import { meshOf, meterStub, service } from '../../helpers/mesh/mesh.ts'
import { upstream } from '../../helpers/mesh/servers.ts'

t.test('an instance is available unless a concern has a reason against it', async (t) => {
  let clock = 100
  const { health, flips } = instanceOf('a', () => clock)
  t.equal(health.available, true)
  t.equal(health.since, 100)
  clock = 200
  health.obstruct('one', 'first')
  health.obstruct('two', 'second')
  health.obstruct('one', 'third')
  t.equal(health.available, false)
  t.strictSame(health.obstacles, { one: 'third', two: 'second' })
  clock = 300
  health.clear('one', 'fine')
  health.clear('one', 'fine')
  health.clear('three', 'never said anything')
  t.equal(health.available, false)
  t.equal(health.since, 100)
  health.clear('two', 'fine too')
  t.equal(health.available, true)
  t.equal(health.since, 300, 'slow start begins when the last reason is removed')
  health.clear('two', 'fine too')
  t.equal(health.since, 300)
  t.strictSame(flips, ['out: one: first', 'in: two: fine too'])
})

t.test('successful checks reach their listeners', async (t) => {
  const { health } = instanceOf('a')
  const heard: string[] = []
  health.prove(1)
  health.whenProven((begunMs) => heard.push(`one ${begunMs}`))
  health.whenProven((begunMs) => heard.push(`two ${begunMs}`))
  health.prove(2)
  t.strictSame(heard, ['one 2', 'two 2'])
})

t.test('a change of health is logged and counted once, and the next call goes to another instance', async (t) => {
  const [a, b] = [await upstream(t, 'a'), await upstream(t, 'b')]
  const { log, lines } = logOf()
  const { meter, counts } = meterStub()
  const mesh = meshOf(t, [service('orders', [a.url, b.url])], { log, meter })
  const endpoints = new Map<string, Endpoint>()
  mesh.use(
    (dispatch) => (opts, handler) => {
      endpoints.set(opts.instance!.origin, opts.instance!.endpoint)
      return dispatch(opts, handler)
    },
    { per: 'attempt' }
  )
  const ask = async () => {
    await null // many changes at once create one new balancer, a microtask later
    const { body } = await mesh.request({ origin: 'http://orders.mesh', path: '/', method: 'GET' })
    return body.text()
  }
  const responders = async () => [...new Set([await ask(), await ask(), await ask(), await ask()])].sort().join('')
  t.equal(await responders(), 'ab')
  const about = () => lines.splice(0).filter(({ message }) => message.startsWith('instance '))
  const { health } = endpoints.get(a.url)!
  t.strictSame(
    about().filter(({ message }) => /available/.test(message)),
    []
  )

  health.obstruct('one', 'too slow')
  health.obstruct('one', 'still too slow')
  health.obstruct('two', 'too loud')
  t.equal(await responders(), 'b')
  t.strictSame(about(), [
    {
      level: 'warn',
      service: 'orders',
      instance: a.url,
      concern: 'one',
      reason: 'too slow',
      message: `instance ${a.url} of orders is unavailable`
    }
  ])
  t.match(mesh.status()[0]!.instances, [
    { origin: a.url, available: false, obstacles: { one: 'still too slow', two: 'too loud' } },
    { origin: b.url, available: true, obstacles: {} }
  ])
  health.clear('one', 'fast')
  t.equal(await responders(), 'b')
  health.clear('two', 'quiet')
  t.equal(await responders(), 'ab')
  t.strictSame(about(), [
    {
      level: 'info',
      service: 'orders',
      instance: a.url,
      concern: 'two',
      reason: 'quiet',
      message: `instance ${a.url} of orders is available`
    }
  ])
  for (const round of [1, 2, 3]) {
    health.obstruct('one', `round ${round}`)
    health.clear('one', `round ${round}`)
  }
  t.equal(about().length, 6, 'changes between calls are logged, too')
  t.strictSame(counts['jingwei_mesh_health_flips_total{orders,one,unavailable}'], 4)
  t.strictSame(counts['jingwei_mesh_health_flips_total{orders,one,available}'], 3)
  t.strictSame(counts['jingwei_mesh_health_flips_total{orders,two,available}'], 1)
  t.strictSame(counts['jingwei_mesh_health_flips_total{orders,two,unavailable}'], undefined)
})
