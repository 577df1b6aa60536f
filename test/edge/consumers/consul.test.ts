// slow: starts Consul
/** Consumers in Consul's KV store: changes at once, and Consul down, slow, wrong and recovering. */
import { createHash } from 'node:crypto'
import { existsSync } from 'node:fs'
import { mkdtemp, readFile, rm, stat, writeFile } from 'node:fs/promises'
import { createServer } from 'node:http'
import type { AddressInfo } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import type { Test } from 'tap'
import t from 'tap'
import type { ConfigError } from '../../../config/load.ts'
import { parseConfig } from '../../../plugins/config.ts'
import { keyTiming } from '../../../plugins/mesh/discovery/consul-key.ts'
import type { Consul } from '../../helpers/consul.ts'
import { startConsul } from '../../helpers/consul.ts'
import { anyClient, listenFor, protocols } from '../../helpers/edge/asking-client.ts'
import { eventually } from '../../helpers/eventually.ts'
import { get, startEcho, startWith } from '../../helpers/gateway.ts'

keyTiming.every = 20

const hashOf = (key: string) => `sha256:${createHash('sha256').update(key).digest('hex')}`
const named = (name: string, more: object = {}) => ({ name, keyAuth: { hash: hashOf(`key-of-${name}`) }, ...more })
const key = 'jingwei/consumers'

interface Started {
  url: string
  snapshot?: string
  token?: string
  more?: object
}

const textFor = (service: string, { url, snapshot, token, more }: Started) =>
  JSON.stringify({
    listen: { port: 0 },
    admin: { port: 0 },
    discovery: {
      consul: { url, ...(token && { token }) },
      ...(snapshot && { snapshot: { path: snapshot } })
    },
    services: { any: { instances: [service] } },
    edge: { keyAuth: {}, acl: { deny: ['blocked'] } },
    routes: [{ name: 'all', match: { path: '/' }, service: 'any' }],
    consumers: { consul: { key } },
    ...more
  })

async function start(t: Test, options: Started) {
  const echo = await startEcho()
  t.teardown(echo.close)
  const gateway = await startWith(parseConfig(textFor(echo.url, options), '/nowhere/gateway.yaml', {}), { log: true })
  let isClosed = false
  const close = async () => {
    if (!isClosed) await gateway.close()
    isClosed = true
  }
  t.teardown(close)
  const statusOf = async (name: string) => (await get(gateway.port, '/', [`x-api-key: key-of-${name}`])).status
  const messages = () => gateway.log.map(({ msg }) => String(msg))
  return { ...gateway, close, statusOf, messages, registry: gateway.server.consumers }
}

const put = async (consul: Consul, list: unknown) => {
  const { status } = await consul.api('PUT', `/v1/kv/${key}`, list)
  t.equal(status, 200)
}

t.test('over each protocol, a change of the key takes effect at once', async (t) => {
  const consul = await startConsul()
  t.teardown(consul.stop)
  for (const protocol of protocols) {
    await put(consul, [named('ann')])
    const gateway = await start(t, { url: consul.url, more: { listen: { port: 0, ...listenFor(t, protocol) } } })
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
  const { statusOf, registry, server, log } = await start(t, { url: consul.url })
  const usable = async () => /^jingwei_edge_consumers_usable (\d)/m.exec(await server.metrics.metrics())?.[1]
  t.equal(await usable(), '1')
  for (const [value, error] of [
    [[named('ann'), named('ann')], /consul:jingwei\/consumers:1:\d+: \[1\]\.name: the same name is declared/],
    [[{ name: 'ann', keyAuth: { hash: 'my-secret-in-plain-text' } }], /\[0\]\.keyAuth/],
    [{ consumer: [] }, /expected a list of consumers/],
    // biome-ignore lint/suspicious/noTemplateCurlyInString: variables are not substituted
    [[{ name: '${HOME}' }], /environment variable HOME is not set/]
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
  const gateway = await start(t, { url: first.url, snapshot })
  await eventually(() => existsSync(`${snapshot}.key`), 'the stored list')
  await first.kill()
  await eventually(() => gateway.registry.error !== null)
  t.equal(await gateway.statusOf('ann'), 200)
  t.equal(gateway.messages().filter((text) => text.startsWith('Consul gives no value')).length, 1, 'one line')

  const next = await start(t, { url: first.url, snapshot })
  t.equal(await next.statusOf('ann'), 200, 'a start without Consul, with the stored list')
  t.equal((await stat(`${snapshot}.key`)).mode & 0o777, 0o600)
  const without = await start(t, { url: first.url })
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
  const damaged = await start(t, { url: second.url, snapshot })
  t.equal(await damaged.statusOf('bob'), 200)
  t.ok(damaged.messages().includes('the stored value of the key cannot be used'))
})

t.test('a token without permission, and one with it', async (t) => {
  const consul = await startConsul({ acl: true })
  t.teardown(consul.stop)
  await put(consul, [named('ann')])
  const allowed = await consul.createToken('key_prefix "jingwei/" { policy = "read" }')
  const denied = await consul.createToken('service_prefix "" { policy = "read" }')
  t.equal(await (await start(t, { url: consul.url, token: allowed })).statusOf('ann'), 200)
  const gateway = await start(t, { url: consul.url, token: denied })
  t.equal(await gateway.statusOf('ann'), 503)
  t.match(gateway.registry.error, /Consul (has no key|responded with 403)/)
  t.notOk(JSON.stringify(gateway.log).includes(denied))
})

/** A Consul that responds as it is told to. */
async function fakeConsul(t: Test) {
  const state = { mode: 'hold', value: '[]', index: 1, asked: 0 }
  const server = createServer((_request, response) => {
    state.asked++
    if (state.mode === 'hold') return
    if (state.mode === 'status') return void response.writeHead(500).end('broken')
    response.writeHead(200, { 'x-consul-index': String(state.index) })
    if (state.mode === 'stall') return void response.write('[')
    if (state.mode === 'large') {
      const fill = (): void => {
        if (response.destroyed) return
        if (response.write('x'.repeat(1024 * 1024))) setImmediate(fill)
        else response.once('drain', fill)
      }
      return fill()
    }
    const known: Record<string, string> = {
      malformed: '{',
      other: '{}',
      binary: '[{"Value":"/w=="}]',
      empty: '[{"Value":null}]'
    }
    response.end(known[state.mode] ?? JSON.stringify([{ Value: Buffer.from(state.value).toString('base64') }]))
    if (known[state.mode] === undefined) state.mode = 'hold'
  })
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve))
  t.teardown(() => {
    server.close()
    server.closeAllConnections()
  })
  return {
    state,
    url: `http://127.0.0.1:${(server.address() as AddressInfo).port}`,
    reset: () => server.closeAllConnections()
  }
}

t.test('Consul wrong, too large and recovering', async (t) => {
  const { state, url, reset } = await fakeConsul(t)
  state.mode = 'good'
  state.value = JSON.stringify([named('ann')])
  const gateway = await start(t, { url })
  t.equal(await gateway.statusOf('ann'), 200)
  for (const [mode, error] of [
    ['status', /Consul responded with 500: broken/],
    ['malformed', /JSON/],
    ['other', /something else than a key/],
    ['binary', /not valid|encoded data/],
    ['large', /larger than 16777216 bytes|aborted/],
    ['empty', /the file is empty/]
  ] as const) {
    state.mode = mode
    reset()
    await eventually(() => error.test(gateway.registry.error ?? ''), mode, 20_000)
    t.equal(await gateway.statusOf('ann'), 200, mode)
  }
  state.value = JSON.stringify([named('bob')])
  state.mode = 'good'
  reset()
  await eventually(async () => (await gateway.statusOf('bob')) === 200, 'recovered', 20_000)
})

t.test('a slow Consul delays the start by a bounded time only', async (t) => {
  const { state, url } = await fakeConsul(t)
  const gateway = await start(t, { url })
  t.equal(state.asked, 1)
  t.equal(await gateway.statusOf('ann'), 503)
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
