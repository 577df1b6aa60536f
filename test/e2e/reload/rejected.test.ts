/** Configurations that cannot be applied: nothing changes, and the response, the log and the metrics say why. */
import { join } from 'node:path'
import t from 'tap'
import { waitFor } from '../../helpers/processes.ts'
import type { Changing } from './gateway.ts'
import { startReloading } from './gateway.ts'
import { startCounting } from './service.ts'

const success = 'jingwei_config_last_reload_success'
const time = 'jingwei_config_last_reload_timestamp_seconds'

t.test('a rejected configuration changes nothing', async (t) => {
  const service = await startCounting(t)
  const good: Changing = {
    services: { orders: { instances: [service.url] } },
    routes: [{ name: 'orders', match: { path: '/orders' }, service: 'orders' }]
  }
  const route = { name: 'new', match: { path: '/new' }, service: 'orders' }
  const next: Changing = { ...good, routes: [...(good.routes as object[]), route] }
  const gateway = await startReloading(t, good)
  const { port } = new URL(gateway.url)
  const { port: adminPort } = new URL(gateway.admin)
  t.equal((await gateway.get('/orders')).status, 200)
  const hash = await gateway.hash()
  t.equal(await gateway.metric(success), 1)
  const began = await gateway.metric(time)

  const cases: [name: string, config: Changing | string, fault: RegExp, positioned: boolean][] = [
    ['malformed YAML', 'listen: {\nroutes: [', /./, true],
    ['an unknown key', { ...next, lisen: {} }, /lisen/, true],
    ['an unknown service', { ...next, routes: [{ ...route, service: 'odrers' }] }, /odrers.*orders/, true],
    ['two faults', { ...next, lisen: {}, mesh: { timeout: 'soon' } }, /lisen[\s\S]*timeout|timeout[\s\S]*lisen/, true],
    ['a plugin file that does not exist', { ...next, plugins: [{ path: './none.ts' }] }, /none\.ts/, true],
    [
      'a plugin that fails to start',
      { ...next, plugins: [{ path: join(import.meta.dirname, 'failing.ts') }] },
      /fails to start/,
      true
    ],
    ['another port', { ...next, listen: { port: Number(port) + 1 } }, /listen\.port/, false],
    ['another address', { ...next, listen: { host: '127.0.0.2' } }, /listen\.host/, false],
    [
      'another admin port',
      { ...next, admin: { host: '127.0.0.1', port: Number(adminPort) + 1 } },
      /admin\.port/,
      false
    ],
    ['no admin port', { ...next, admin: false }, /admin/, false]
  ]
  for (const [name, config, fault, positioned] of cases) {
    await t.test(name, async (t) => {
      const lines = gateway.log().length
      gateway.write(config)
      const { status, text } = await gateway.post()
      t.equal(status, 422)
      t.match(text, fault)
      t.equal((await gateway.get('/orders')).status, 200)
      t.equal((await gateway.get('/new')).status, 404)
      t.equal(await gateway.hash(), hash)
      t.equal(await gateway.metric(success), 0)
      t.equal(await gateway.metric('jingwei_config_info', hash), 1)
      const errors = () =>
        gateway
          .log()
          .slice(lines)
          // A busy machine stalls the process, which is logged as an error, too.
          .filter(({ level, msg }) => level === 'error' && !/event loop/.test(msg))
      await waitFor('the log line of the fault', () => fault.test(JSON.stringify(errors())))
      for (const line of positioned ? errors() : []) t.match(line, { file: gateway.file, line: Number, column: Number })
      t.equal(JSON.parse(text).faults.length, errors().length, 'each fault has a log line')
    })
  }

  await t.test('a valid configuration is applied afterwards', async (t) => {
    await gateway.reload(next)
    t.equal((await gateway.get('/new')).status, 200)
    t.equal(await gateway.metric(success), 1)
    t.ok((await gateway.metric(time))! > began!)
    t.equal(await gateway.metric('jingwei_config_info', hash), null, 'the metric has one hash at a time')
    await waitFor('no earlier configuration is retained', async () => (await gateway.probe()).generations === 1)
  })
})

t.test('a reload with a missing configuration file is rejected', async (t) => {
  const service = await startCounting(t)
  const config = {
    services: { orders: { instances: [service.url] } },
    routes: [{ name: 'orders', match: { path: '/' }, service: 'orders' }]
  }
  const gateway = await startReloading(t, config)
  gateway.remove()
  const { status, text } = await gateway.post()
  t.equal(status, 422)
  t.match(text, /no such file/)
  t.equal((await gateway.get('/orders')).status, 200)
  await gateway.reload(config)
  t.equal(await gateway.metric(success), 1)
})
