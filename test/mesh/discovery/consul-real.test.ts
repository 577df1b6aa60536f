// slow: starts Consul
/** Discovery against a real Consul: behaviour that the scripted one cannot prove. */
import { execFile } from 'node:child_process'
import { mkdtemp, readFile, rm } from 'node:fs/promises'
import { createServer } from 'node:https'
import type { AddressInfo } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import { promisify } from 'node:util'
import type { Test } from 'tap'
import t from 'tap'
import type { ServiceConfig } from '../../../config/schema.ts'
import type { ConsulOptions } from '../../../plugins/mesh/discovery/consul-options.ts'
import { createDiscovery } from '../../../plugins/mesh/discovery/index.ts'
import type { Consul } from '../../helpers/consul.ts'
import { startConsul } from '../../helpers/consul.ts'
import { eventually } from '../../helpers/eventually.ts'
import { recording, service, watch } from '../../helpers/mesh/sources.ts'
import { tool } from '../../helpers/tools.ts'

const at = (port: number) => `http://127.0.0.1:${port}`

function discover(t: Test, { url }: Pick<Consul, 'url'>, token?: string, tls?: ConsulOptions['tls']) {
  const { surroundings, lines } = recording()
  const consul = { url, wait: 60_000, maxStale: 60_000, ...(token ? { token } : {}), ...(tls ? { tls } : {}) }
  const discovery = createDiscovery({ consul }, surroundings)
  t.teardown(() => discovery.close())
  const open = (name: string, rest: Partial<ServiceConfig> = {}) => {
    const source = discovery.source(service(name, rest))
    return { source, ...watch(source) }
  }
  return { open, lines }
}

t.test('instances are added and removed at once, with their weights, tags and states', async (t) => {
  const consul = await startConsul()
  t.teardown(consul.stop)
  const { open, lines } = discover(t, consul)
  const strict = open('web')
  const lenient = open('lenient', { consul: { service: 'web', passingOnly: false } })
  const tagged = open('tagged', { consul: { service: 'web', tags: ['v2'], passingOnly: true } })
  await Promise.all([strict, lenient, tagged].map(({ until }) => until([])))
  const check = { TTL: '10m', Status: 'passing' }
  await consul.register({ id: 'web-1', name: 'web', port: 4001, weights: { passing: 10, warning: 2 }, check })
  await strict.until([at(4001)], 1500)
  t.match(strict.sets.at(-1)?.[0], { id: `${consul.nodeName}/web-1`, weight: 10, meta: { 'consul-dc': 'dc1' } })
  await consul.register({ id: 'web-2', name: 'web', port: 4002, tags: ['v2'], meta: { zone: 'a' }, check })
  await Promise.all([strict.until([at(4001), at(4002)], 1500), tagged.until([at(4002)], 1500)])
  t.match(tagged.sets.at(-1)?.[0], { tags: ['v2'], meta: { zone: 'a' } })

  await consul.setCheck('service:web-1', 'warning')
  await strict.until([at(4002)], 1500)
  await eventually(() => lenient.sets.at(-1)?.[0]?.weight === 2, 'the new weight', 1500)
  await consul.setCheck('service:web-1', 'critical')
  await lenient.until([at(4002)], 1500)
  await consul.setCheck('service:web-1', 'passing')
  await lenient.until([at(4001), at(4002)], 1500)

  await consul.deregister('web-1')
  await strict.until([at(4002)], 1500)
  await consul.setCheck('service:web-2', 'critical')
  await strict.until([], 1500)
  t.same(lines, [])
})

t.test('after a restart of Consul with its data, no instance is lost, and changes are discovered again', async (t) => {
  const dataDir = await mkdtemp(join(tmpdir(), 'jingwei-discovery-'))
  t.teardown(() => rm(dataDir, { recursive: true, force: true }))
  const first = await startConsul({ dataDir })
  t.teardown(first.stop)
  await first.register({ id: 'web-1', name: 'web', port: 4001 })
  const { open, lines } = discover(t, first)
  const { until, sets, source } = open('web')
  await until([at(4001)])
  await first.kill()
  await eventually(() => source.status().error !== null)
  await sleep(1000)
  t.equal(sets.length, 1, 'the set is kept while Consul is unavailable')
  const second = await startConsul({ dataDir, ports: first.ports })
  t.teardown(second.stop)
  await second.register({ id: 'web-2', name: 'web', port: 4002 })
  await until([at(4001), at(4002)], 20_000)
  t.ok(sets.every((set) => set.length > 0))
  t.same(
    lines.map(({ level }) => level),
    ['warn', 'info']
  )
})

t.test('after a restart of Consul without data, instances that register in time are never removed', async (t) => {
  const first = await startConsul()
  t.teardown(first.stop)
  await first.register({ id: 'web-1', name: 'web', port: 4001 })
  await first.register({ id: 'gone-1', name: 'gone', port: 4005 })
  // Moves the index far beyond the first index of the new Consul.
  for (let i = 0; i < 100; i++) await first.api('PUT', `/v1/kv/k${i}`, 'x')
  const { open } = discover(t, first)
  const web = open('web')
  const gone = open('gone')
  await Promise.all([web.until([at(4001)]), gone.until([at(4005)])])
  await first.kill()
  const second = await startConsul({ ports: first.ports })
  t.teardown(second.stop)
  await second.register({ id: 'web-1', name: 'web', port: 4001 })
  await eventually(() => web.source.status().error === null, 'Consul to be back', 20_000)
  t.equal(gone.sets.length, 1, 'an empty response is not accepted at once')
  await gone.until([], 30_000)
  t.equal(web.sets.length, 1)
  await second.register({ id: 'web-2', name: 'web', port: 4002 })
  await web.until([at(4001), at(4002)], 2000)
})

t.test('without Consul at the start, instances are found once it is available', async (t) => {
  const probe = await startConsul()
  await probe.kill()
  const { open, lines } = discover(t, probe)
  const { until, sets, source } = open('web')
  await eventually(() => /ECONNREFUSED/.test(source.status().error ?? ''))
  t.same(source.status().confirmedAt, null)
  t.same(sets, [])
  const consul = await startConsul({ ports: probe.ports })
  t.teardown(consul.stop)
  await consul.register({ id: 'web-1', name: 'web', port: 4001 })
  await until([at(4001)], 20_000)
  t.same(
    lines.map(({ level }) => level),
    ['warn', 'info']
  )
})

t.test('the documented ACL rights suffice, and a wrong token is reported', async (t) => {
  const consul = await startConsul({ acl: true })
  t.teardown(consul.stop)
  await consul.register({ id: 'web-1', name: 'web', port: 4001 })
  const token = await consul.createToken('service_prefix "" { policy = "read" } node_prefix "" { policy = "read" }')
  await discover(t, consul, token)
    .open('web')
    .until([at(4001)])
  const wrong = discover(t, consul, '6f1b0b1e-0000-4000-8000-000000000000')
  const { source, sets } = wrong.open('web')
  await eventually(() => /403.*service:read/.test(source.status().error ?? ''))
  await sleep(1000)
  t.same(sets, [])
  t.match(wrong.lines, [{ level: 'warn', message: /service:read/ }])
  t.equal(wrong.lines.length, 1)
})

t.test('over TLS, both sides present certificates, and the name is verified', async (t) => {
  const folder = await mkdtemp(join(tmpdir(), 'jingwei-discovery-'))
  t.teardown(() => rm(folder, { recursive: true, force: true }))
  const { path } = await tool('consul')
  const make = promisify(execFile)
  await make(path, ['tls', 'ca', 'create'], { cwd: folder })
  await make(path, ['tls', 'cert', 'create', '-server'], { cwd: folder })
  await make(path, ['tls', 'cert', 'create', '-client'], { cwd: folder })
  const file = (name: string) => join(folder, name)
  const ca = file('consul-agent-ca.pem')
  const pem = (kind: string) => ({ cert: file(`dc1-${kind}-consul-0.pem`), key: file(`dc1-${kind}-consul-0-key.pem`) })
  const read = (name: string) => readFile(name)
  const server = createServer({
    ca: await read(ca),
    cert: await read(pem('server').cert),
    key: await read(pem('server').key),
    requestCert: true
  })
  const names: unknown[] = []
  server.on('secureConnection', (socket) => names.push(socket.servername))
  server.on('request', (request, response) => {
    if (request.url?.includes('index')) return
    const node = { Node: 'n1', Address: '127.0.0.1' }
    response.writeHead(200, { 'content-type': 'application/json', 'x-consul-index': '5' })
    response.end(JSON.stringify([{ Node: node, Service: { ID: 'web', Port: 4001 } }]))
  })
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve))
  t.teardown(() => {
    server.close()
    server.closeAllConnections()
  })
  const url = `https://127.0.0.1:${(server.address() as AddressInfo).port}/`
  const tls = { ca, ...pem('client'), serverName: 'server.dc1.consul' }
  await discover(t, { url }, undefined, tls)
    .open('web')
    .until([at(4001)])
  t.equal(names[0], 'server.dc1.consul')
  const errors: [object, RegExp][] = [
    [{ ...tls, serverName: 'server.dc2.consul' }, /altnames/],
    [{ ...tls, ca: undefined }, /certificate/],
    [{ ca, serverName: tls.serverName }, /certificate required|alert|socket|ECONNRESET/i]
  ]
  for (const [given, message] of errors) {
    const { source, sets } = discover(t, { url }, undefined, given).open('web')
    await eventually(() => message.test(source.status().error ?? ''))
    t.same(sets, [])
  }
})

t.test('the DNS of Consul is queried for A and SRV records', async (t) => {
  const consul = await startConsul()
  t.teardown(consul.stop)
  const weights = { passing: 5, warning: 1 }
  await consul.register({ id: 'web-1', name: 'web', port: 4001, address: '127.0.0.1', weights })
  await consul.register({ id: 'web-2', name: 'web', port: 4002, address: '127.0.0.2' })
  const server = `127.0.0.1:${consul.dnsPort}`
  const { open } = discover(t, consul)
  const dns = { host: 'web.service.consul', server, tls: false, minTtl: 200, maxTtl: 1000 }
  const hosts = open('hosts', { dns: { ...dns, srv: false, port: 80 } })
  const targets = open('targets', { dns: { ...dns, srv: true } })
  await hosts.until(['http://127.0.0.1', 'http://127.0.0.2'])
  await targets.until([at(4001), 'http://127.0.0.2:4002'])
  t.same(
    targets.sets.at(-1)?.map(({ weight }) => weight),
    [5, 1]
  )
  for (let i = 3; i < 60; i++)
    await consul.register({ id: `web-${i}`, name: 'web', port: 4000 + i, address: '127.0.0.1' })
  await eventually(() => targets.sets.at(-1)?.length === 59)
  for (let i = 2; i < 60; i++) await consul.deregister(`web-${i}`)
  await targets.until([at(4001)])
  await consul.deregister('web-1')
  await eventually(() => /does not exist; the last instances stay in use/.test(targets.source.status().error ?? ''))
  t.same(targets.origins(), [at(4001)], 'a restarted Consul responds like this for some seconds')
  await targets.until([])
})
