// A gateway that starts while Consul is unavailable serves the snapshot, logs it, and uses Consul once it responds.
import { execFile } from 'node:child_process'
import { readFile, rm, writeFile } from 'node:fs/promises'
import { dirname, join } from 'node:path'
import { promisify } from 'node:util'
import type { Test } from 'tap'
import t from 'tap'
import { startConsul } from '../helpers/consul.ts'
import { yamlOf } from '../helpers/e2e/config.ts'
import type { GatewayProcess } from '../helpers/e2e/gateway.ts'
import { appFile, clientOf, configFile } from '../helpers/e2e/gateway.ts'
import { steadyLoad } from '../helpers/e2e/load.ts'
import { upstream } from '../helpers/e2e/upstream.ts'
import { freePorts, start, waitFor } from '../helpers/processes.ts'

interface Kept {
  file: string
  config: string
  /** One run of the gateway. */
  life(): Promise<GatewayProcess>
  source(gateway: GatewayProcess, name: string): Promise<Record<string, unknown> | undefined>
}

async function keptOver(t: Test, consul: string, services: Record<string, object>): Promise<Kept> {
  const wanted = JSON.parse(yamlOf({ consul, services, mesh: { balance: 'round-robin' } }))
  wanted.discovery.snapshot = { path: 'snapshot' }
  const config = await configFile(t, JSON.stringify(wanted))
  return {
    config,
    file: join(dirname(config), 'snapshot'),
    async life() {
      const args = [appFile, '-c', config]
      const running = await start({ command: process.execPath, args, name: 'gateway', ready: /health +http\S+/ })
      t.teardown(running.stop)
      const [, url] = /edge +(http\S+)/.exec(running.output())!
      const [, adminUrl] = /health +(http:\/\/[^/]+)/.exec(running.output())!
      const client = clientOf(url!, adminUrl!)
      t.teardown(client.hangUp)
      const lines = () => running.output().split('\n')
      const log = () => lines().flatMap((line) => (/^\{.*\}$/.test(line) ? [JSON.parse(line)] : []))
      return { ...client, running, log }
    },
    async source(gateway, name) {
      const all = (await gateway.services()) as unknown as { name: string; source: Record<string, unknown> }[]
      return all.find((service) => service.name === name)?.source
    }
  }
}

async function consulPorts() {
  const [http, dns, server, serfLan] = (await freePorts(4)) as [number, number, number, number]
  return { http, dns, server, serfLan }
}

t.test('a gateway that is killed restarts from the snapshot while Consul is unavailable', async (t) => {
  const [a, b] = [await upstream(t, 'a'), await upstream(t, 'b')]
  const ports = await consulPorts()
  const consul = await startConsul({ ports })
  t.teardown(consul.stop)
  await consul.register({ id: 'orders-a', name: 'orders', port: a.port })
  await consul.register({ id: 'orders-b', name: 'orders', port: b.port })
  const { life, source, file, config } = await keptOver(t, consul.url, { orders: {}, users: {} })

  const first = await life()
  await first.until('orders', [a.port, b.port])
  const written = () => readFile(file, 'utf8').catch(() => '')
  await waitFor('both are on disk', async () => (await written()).includes('orders-b'))
  t.equal(await first.metric('jingwei_mesh_discovery_restored', 'orders'), 0)
  first.running.kill('SIGKILL')
  await first.running.exited
  await consul.kill()

  const before = await written()
  await promisify(execFile)(process.execPath, [appFile, 'explain', config, 'GET', '/orders'])
  t.equal(await written(), before, 'explain does not change the snapshot')

  const second = await life()
  t.strictSame(await second.spread('/orders', 4), { a: 2, b: 2 }, 'the gateway serves at once')
  t.match(await source(second, 'orders'), { kind: 'consul', restored: true })
  t.equal(await second.metric('jingwei_mesh_discovery_restored', 'orders'), 1)
  t.ok((await second.metric('jingwei_mesh_discovery_age_seconds', 'orders'))! > 0)
  const health = await second.health()
  t.match(health.services.orders, { instances: 2, discoveryAgeMs: Number })
  t.match(health, { status: 'discovering', waitingFor: ['users'] }, 'the snapshot has no instances of users')
  const restored = second.log().filter(({ msg }) => /restored from the discovery snapshot/.test(msg))
  t.match(restored, [{ services: 1, instances: 2, path: file }])
  t.equal(restored.length, 1)

  const load = steadyLoad(second, ['/orders'], { concurrency: 2, pauseMs: 5 })
  // Consul restarts without its data; services register again within some seconds.
  const again = await startConsul({ ports })
  t.teardown(again.stop)
  await waitFor('Consul responds', async () => (await second.health()).services.users!.error === null, 30_000)
  await again.register({ id: 'orders-a', name: 'orders', port: a.port })
  await second.until('orders', [a.port], 30_000)
  t.equal((await source(second, 'orders'))?.restored, undefined)
  t.equal(await second.metric('jingwei_mesh_discovery_restored', 'orders'), 0)
  t.match(await second.health(), { code: 200, status: 'ready' })
  const { failures, sent } = await load.stop()
  t.strictSame(failures, [], `none of ${sent} requests failed`)
  await waitFor('the change is in the snapshot', async () => !(await written()).includes('orders-b'))

  second.running.kill('SIGTERM')
  t.match(await second.running.exited, { code: 0 })
  t.match(await written(), /orders-a/)
})

t.test('an invalid snapshot file is logged and ignored', async (t) => {
  const a = await upstream(t, 'a')
  const ports = await consulPorts()
  const { life, file } = await keptOver(t, `http://127.0.0.1:${ports.http}`, { orders: {} })
  await writeFile(file, '{"format":"jingwei-discovery","version":1}\n{"serv')
  const gateway = await life()
  t.match(await gateway.health(), { code: 503, status: 'discovering', waitingFor: ['orders'] })
  const rejected = () => gateway.log().filter(({ msg }) => /snapshot cannot be used/.test(msg))
  t.match(rejected(), [{ path: file, err: { type: 'Error', message: String, stack: String } }])

  await rm(file)
  const consul = await startConsul({ ports })
  t.teardown(consul.stop)
  await consul.register({ id: 'orders-a', name: 'orders', port: a.port })
  await gateway.until('orders', [a.port], 30_000)
  await waitFor('a valid snapshot', async () => (await readFile(file, 'utf8').catch(() => '')).includes('sha256'))
  t.equal(rejected().length, 1)
})
