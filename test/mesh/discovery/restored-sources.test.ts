/** Every source that asks for instances gets the snapshot on disk, the freshness metric and the counters by the contract. */
import { rmSync, writeFileSync } from 'node:fs'
import { createServer } from 'node:http'
import type { AddressInfo } from 'node:net'
import { join } from 'node:path'
import { Registry } from 'prom-client'
import type { Test } from 'tap'
import t from 'tap'
import type { MeshSettings } from '../../../plugins/mesh-api.ts'
import { createMesh } from '../../../plugins/mesh-api.ts'
import type { UserDiscoverySource } from '../../../plugins/plugin-api.ts'
import { discoverySource, Type } from '../../../plugins/plugin-api.ts'
import { eventually } from '../../helpers/eventually.ts'
import { EurekaServer, registration } from '../../helpers/mesh/eureka-server.ts'
import { recording } from '../../helpers/mesh/sources.ts'

interface Scene {
  readonly settings: Pick<MeshSettings, 'discovery' | 'services'>
  readonly sources?: readonly UserDiscoverySource[]
  /** Makes the source fail from now on. */
  fail(): void | Promise<void>
}

const scenes: Record<string, (t: Test, url: string, folder: string) => Promise<Scene>> = {
  async file(_t, url, folder) {
    const path = join(folder, 'instances.json')
    writeFileSync(path, JSON.stringify({ orders: [url] }))
    return { settings: { services: { orders: { file: { path } } } } as MeshSettings, fail: () => rmSync(path) }
  },
  async eureka(t, url) {
    const server = await new EurekaServer().listen(t)
    server.register(registration('orders', Number(new URL(url).port)))
    return {
      settings: { discovery: { eureka: { urls: [server.url] } }, services: { orders: { eureka: {} } } } as MeshSettings,
      fail: () => server.stop()
    }
  },
  async user(_t, url) {
    let fails = false
    const source = discoverySource({
      name: 'own',
      service: Type.Object({}),
      create: () => ({
        source: () => ({
          async watch({ publish, signal }) {
            if (fails) throw new Error('the registry is away')
            publish([{ url }])
            await new Promise((resolve) => signal.addEventListener('abort', resolve))
          }
        })
      })
    })
    return {
      settings: { services: { orders: { own: {} } } } as MeshSettings,
      sources: [source as UserDiscoverySource],
      fail() {
        fails = true
      }
    }
  }
}

for (const [name, prepare] of Object.entries(scenes)) {
  t.test(`${name}: instances come from the snapshot while the source fails`, async (t) => {
    const server = createServer((_request, response) => void response.end('orders'))
    await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve))
    t.teardown(() => server.close().closeAllConnections())
    const url = `http://127.0.0.1:${(server.address() as AddressInfo).port}`
    const folder = t.testdir({})
    const { settings, sources = [], fail } = await prepare(t, url, folder)
    const path = join(folder, 'snapshot')
    const open = (registry: Registry) => {
      const written = { ...settings, discovery: { ...settings.discovery, snapshot: { path } } }
      const mesh = createMesh(written, { sources, registry, log: recording().surroundings.log })
      t.teardown(() => mesh.destroy())
      return mesh
    }
    const call = async (mesh: ReturnType<typeof createMesh>) =>
      (await mesh.request({ origin: 'http://orders.mesh', path: '/', method: 'GET' })).body.text()

    const first = open(new Registry())
    await first.ready()
    t.equal(await call(first), 'orders')
    await first.close()
    await fail()

    const registry = new Registry()
    const second = open(registry)
    await eventually(() => second.service('orders').status().instances.length === 1)
    t.equal(await call(second), 'orders', 'calls go to the restored instance')
    const { source } = second.service('orders').status()
    t.match(source, { restored: true })
    await eventually(() => second.service('orders').status().source.error !== null, 'the failure is reported')
    const metrics = await registry.metrics()
    t.match(metrics, /^jingwei_mesh_discovery_up\{service="orders"\} 0$/m)
    t.match(metrics, /^jingwei_mesh_discovery_age_seconds\{service="orders"\} /m)
    await second.close()
  })
}
