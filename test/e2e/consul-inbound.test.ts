// slow: starts real Consul agents and proxies
/** Services reach the gateway through the mesh: real Consul, its own proxy as the caller, its intentions. */
import type { Test } from 'tap'
import t from 'tap'
import { intentionTiming } from '../../plugins/mesh/connect/identity/intentions.ts'
import { folderFor } from '../helpers/certificates.ts'
import type { Consul } from '../helpers/consul.ts'
import { startConsul } from '../helpers/consul.ts'
import { running, service } from '../helpers/listeners.ts'
import { intend, proxy } from '../helpers/mesh/connect.ts'
import { freePort, waitFor } from '../helpers/processes.ts'

intentionTiming.every = 100

async function consulFor(t: Test, options = {}): Promise<Consul> {
  const consul = await startConsul(options)
  t.teardown(consul.stop)
  return consul
}

t.test('first', async (t) => {
  const consul = await consulFor(t)
  const url = await service(t)
  const gateway = await running(t, folderFor(t), {
    discovery: { consul: { url: consul.url } },
    listen: [
      { name: 'public', host: '127.0.0.1', port: 0 },
      { name: 'mesh', host: '127.0.0.1', port: 0, connect: { service: 'jingwei' }, http2: false }
    ],
    services: { any: { instances: [url] } },
    routes: [{ name: 'all', match: { path: '/' }, service: 'any' }],
    plugins: [{ path: './teller.mjs' }]
  })
  const port = gateway.portOf('mesh')
  await consul.api('PUT', '/v1/agent/service/register', {
    Name: 'jingwei',
    Port: port,
    Address: '127.0.0.1',
    Check: { TTL: '10m', Status: 'passing' },
    Connect: { Native: true }
  })
  const up = await freePort()
  await proxy(t, consul, ['-service=web', `-upstream=jingwei:127.0.0.1:${up}`], up)
  const ask = async () => {
    try {
      const r = await fetch(`http://127.0.0.1:${up}/x`)
      return { status: r.status, text: await r.text(), h: Object.fromEntries(r.headers) }
    } catch (e) {
      return { status: 0, text: String((e as Error).cause), h: {} }
    }
  }
  await waitFor(
    '200',
    async () => {
      const a = await ask()
      console.error(a)
      return a.status === 200
    },
    10_000
  )
  const deny = await intend(consul, 'web', 'jingwei', 'deny')
  await waitFor('403', async () => {
    const a = await ask()
    return a.status === 403
  })
  console.error(await ask())
  await deny.remove()
  await waitFor('200', async () => (await ask()).status === 200)
})
