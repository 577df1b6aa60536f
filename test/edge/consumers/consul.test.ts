// slow: starts Consul
/** Consumers in Consul's KV store: changes at once, and Consul down and back. */
import { existsSync } from 'node:fs'
import { copyFile, mkdtemp, readFile, rm, stat, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import t from 'tap'
import { build } from '../../../app.ts'
import type { ConfigError } from '../../../config/load.ts'
import { parseConfig } from '../../../plugins/config.ts'
import { Stores } from '../../../plugins/stores.ts'
import type { Consul } from '../../helpers/consul.ts'
import { startConsul } from '../../helpers/consul.ts'
import { anyClient, listenFor, protocols } from '../../helpers/edge/asking-client.ts'
import { hashOf, key, named, startGateway, textFor } from '../../helpers/edge/stored-consumers.ts'
import { eventually } from '../../helpers/eventually.ts'
import { get } from '../../helpers/gateway.ts'

const put = async (consul: Consul, list: unknown) => {
  const { status } = await consul.api('PUT', `/v1/kv/${key}`, list)
  t.equal(status, 200)
}

t.test('over each protocol, a change of the key takes effect at once', async (t) => {
  const consul = await startConsul()
  t.teardown(consul.stop)
  for (const protocol of protocols) {
    await put(consul, [named('ann')])
    const gateway = await startGateway(t, { url: consul.url, more: { listen: { port: 0, ...listenFor(t, protocol) } } })
    const { ask } = anyClient(t, protocol, gateway.port)
    const statusOf = async (name: string) => (await ask('/', { headers: { 'x-api-key': `key-of-${name}` } })).status
    t.equal(await statusOf('ann'), 200, 'the list is known once the gateway has started')
    t.equal(await statusOf('bob'), 401)
    await put(consul, [named('bob'), named('ann', { groups: ['blocked'] })])
    await eventually(async () => (await statusOf('bob')) === 200, 'a new consumer', 2000)
    t.equal(await statusOf('ann'), 403, 'each list applies as a whole')
    await put(consul, { consumers: [named('ann', { edge: { acl: false }, groups: ['blocked'] })] })
    await eventually(async () => (await statusOf('bob')) === 401, 'a removed consumer', 2000)
    t.equal(await statusOf('ann'), 200, 'options of its own')
    await gateway.close()
  }
})

t.test('faults leave the last good list in use, and are reported without secrets', async (t) => {
  const consul = await startConsul()
  t.teardown(consul.stop)
  await put(consul, [named('ann')])
  const { statusOf, registry, server, log } = await startGateway(t, { url: consul.url })
  const usable = async () => /^jingwei_edge_consumers_usable (\d)/m.exec(await server.metrics.metrics())?.[1]
  t.equal(await usable(), '1')
  for (const [value, error] of [
    [[named('ann'), named('ann')], /consul:jingwei\/consumers:1:\d+: \[1\]\.name: the same name is declared/],
    [[{ name: 'ann', keyAuth: { hash: 'my-secret-in-plain-text' } }], /\[0\]\.keyAuth/],
    [{ consumer: [] }, /expected a list of consumers/],
    // biome-ignore lint/suspicious/noTemplateCurlyInString: variables are not substituted
    [[{ name: '${HOME}' }], /variables are not available here.*\n1 fault in .*; none of it is used$/]
  ] as const) {
    await put(consul, value)
    await eventually(() => error.test(registry.error ?? ''), String(error))
    t.equal(await statusOf('ann'), 200)
    t.equal(await usable(), '0')
  }
  await consul.api('DELETE', `/v1/kv/${key}`)
  await eventually(() => registry.error === 'Consul has no key "jingwei/consumers"')
  t.equal(await statusOf('ann'), 200, 'a deleted key')
  t.match(registry.status(), { key, isKnown: true, error: 'Consul has no key "jingwei/consumers"', count: 1 })
  await put(consul, [named('bob')])
  await eventually(async () => (await statusOf('bob')) === 200, 'the key is there again')
  t.equal(registry.error, null)
  t.equal(await usable(), '1')
  const text = JSON.stringify(log)
  for (const secret of ['my-secret', hashOf('key-of-ann')]) t.notOk(text.includes(secret), secret)
})

t.test('Consul down, away and back', async (t) => {
  const dataDir = await mkdtemp(join(tmpdir(), 'jingwei-consumers-'))
  t.teardown(() => rm(dataDir, { recursive: true, force: true }))
  const first = await startConsul({ dataDir })
  t.teardown(first.stop)
  await put(first, [named('ann')])
  const snapshot = join(dataDir, 'snapshot')
  const gateway = await startGateway(t, { url: first.url, snapshot })
  await eventually(() => existsSync(`${snapshot}.key`), 'the stored list')
  await first.kill()
  await eventually(() => gateway.registry.error !== null)
  t.equal(await gateway.statusOf('ann'), 200)
  t.equal(gateway.messages().filter((text) => text.startsWith('Consul gives no value')).length, 1, 'one line')

  const copied = join(dataDir, 'copied')
  await copyFile(`${snapshot}.key`, `${copied}.key`)
  const next = await startGateway(t, { url: first.url, snapshot: copied })
  t.equal(await next.statusOf('ann'), 200, 'a start without Consul, with the stored list')
  t.equal((await stat(`${snapshot}.key`)).mode & 0o777, 0o600)
  const without = await startGateway(t, { url: first.url })
  t.equal(await without.statusOf('ann'), 503, 'without a stored list, no credentials can be verified')
  const refused = await get(without.port, '/', ['x-api-key: key-of-ann'])
  t.match(JSON.parse(refused.body), { code: 'JW_CONSUMERS_UNKNOWN' })
  t.equal(refused.headers['retry-after'], '1')
  const ready = await without.server.admin!.inject('/health/ready')
  t.equal(ready.statusCode, 503)
  t.same(ready.json<{ waitingFor: string[] }>().waitingFor, ['consumers'])

  const second = await startConsul({ dataDir, ports: first.ports })
  t.teardown(second.stop)
  for (const each of [gateway, next, without]) {
    await eventually(async () => each.registry.error === null && (await each.statusOf('ann')) === 200, 'Consul is back')
  }
  await put(second, [named('bob')])
  for (const each of [gateway, next, without]) {
    await eventually(async () => (await each.statusOf('bob')) === 200, 'a change')
    t.equal(await each.statusOf('ann'), 401)
  }
  await gateway.close()
  t.match(await readFile(`${snapshot}.key`, 'utf8'), 'bob', 'the newest list is stored')
  await writeFile(`${snapshot}.key`, 'damaged')
  const damaged = await startGateway(t, { url: second.url, snapshot })
  t.equal(await damaged.statusOf('bob'), 200)
  t.ok(damaged.messages().includes('the stored value of the key cannot be used'))
})

t.test(
  'a new configuration takes over the list, also while Consul is unavailable or its value has a fault',
  async (t) => {
    const consul = await startConsul()
    t.teardown(consul.stop)
    await put(consul, [named('ann')])
    const stores = new Stores()
    const config = parseConfig(textFor('http://127.0.0.1:1', { url: consul.url }), '/nowhere/gateway.yaml', {})
    const begin = async () => {
      const server = build(config, { logger: false, stores })
      t.teardown(() => server.close())
      await server.ready()
      return server
    }
    const first = await begin()
    t.equal(first.consumers.size, 1)
    await put(consul, 'none')
    await eventually(() => first.consumers.error !== null)
    const second = await begin()
    t.match(second.consumers.status(), { isKnown: true, count: 1, error: /expected a list/ })
    await consul.kill()
    await eventually(() => first.consumers.error?.includes('expected a list') === false)
    await first.close()
    const third = await begin()
    t.match(third.consumers.status(), { isKnown: true, count: 1 })
    await second.close()
    await third.close()
  }
)

t.test('a token without permission, and one with it', async (t) => {
  const consul = await startConsul({ acl: true })
  t.teardown(consul.stop)
  await put(consul, [named('ann')])
  const allowed = await consul.createToken('key_prefix "jingwei/" { policy = "read" }')
  const denied = await consul.createToken('service_prefix "" { policy = "read" }')
  t.equal(await (await startGateway(t, { url: consul.url, token: allowed })).statusOf('ann'), 200)
  const gateway = await startGateway(t, { url: consul.url, token: denied })
  t.equal(await gateway.statusOf('ann'), 503)
  t.match(gateway.registry.error, /Consul (has no key|responded with 403)/)
  t.notOk(JSON.stringify(gateway.log).includes(denied))
})

t.test('faults of the configuration', async (t) => {
  const faultOf = (more: object) => {
    try {
      parseConfig(textFor('http://127.0.0.1:1', { url: 'http://127.0.0.1:1', more }), 'gateway.yaml', {})
      return null
    } catch (error) {
      return (error as ConfigError).faults.map(({ path, message }) => `${path}: ${message}`).join('\n')
    }
  }
  t.equal(faultOf({}), null)
  t.equal(faultOf({ discovery: {} }), 'consumers.consul: needs discovery.consul')
  t.match(
    faultOf({ consumers: { consul: { key: '/a' } } }),
    'consumers.consul.key: expected a key without a leading slash'
  )
  t.match(faultOf({ consumers: { consul: { key }, file: 'x.yaml' } }), 'consumers.consul: excludes "file"')
  t.match(faultOf({ consumers: {} }), 'consumers: expected "file" or "consul", or a list')
  t.match(faultOf({ mesh: false, discovery: undefined }), 'consumers.consul: unknown key')
})
