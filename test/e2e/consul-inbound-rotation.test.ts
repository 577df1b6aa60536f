// slow: takes about 45 s
/** Consul's authority gets a new key while services call the gateway through the mesh: no call fails. */
import { generateKeyPairSync } from 'node:crypto'
import { setTimeout as sleep } from 'node:timers/promises'
import t from 'tap'
import { folderFor } from '../helpers/certificates.ts'
import { startConsul } from '../helpers/consul.ts'
import { running, service } from '../helpers/listeners.ts'
import { issuerAt, proxy, rotate } from '../helpers/mesh/connect.ts'
import { freePort, waitFor } from '../helpers/processes.ts'

t.test('roots and leaf certificates are replaced under load', async (t) => {
  const consul = await startConsul()
  t.teardown(consul.stop)
  const url = await service(t)
  const gateway = await running(t, folderFor(t), {
    discovery: { consul: { url: consul.url } },
    listen: { name: 'mesh', host: '127.0.0.1', port: 0, connect: { service: 'jingwei' }, drain: { delay: 0 } },
    services: { any: { instances: [url] } },
    routes: [{ name: 'all', match: { path: '/' }, service: 'any' }]
  })
  const meshPort = gateway.portOf('mesh')
  await consul.api('PUT', '/v1/agent/service/register', {
    Name: 'jingwei',
    Port: meshPort,
    Address: '127.0.0.1',
    Check: { TTL: '10m', Status: 'passing' },
    Connect: { Native: true }
  })
  const upstream = await freePort()
  await proxy(t, consul, ['-service=web', `-upstream=jingwei:127.0.0.1:${upstream}`], upstream)
  /** Fingerprint of the certificate with which the proxy has called last. */
  let caller = ''
  const send = async () => {
    const response = await fetch(`http://127.0.0.1:${upstream}/`, { headers: { connection: 'close' } })
    const text = await response.text()
    caller = /Hash=(\w+)/.exec(text)?.[1] ?? ''
    return response.status
  }
  await waitFor('the way through', async () => (await send()) === 200)
  const before = [await issuerAt(meshPort), caller]
  const { privateKey } = generateKeyPairSync('ec', {
    namedCurve: 'P-256',
    privateKeyEncoding: { type: 'sec1', format: 'pem' },
    publicKeyEncoding: { type: 'spki', format: 'pem' }
  })
  const failures: unknown[] = []
  let sent = 0
  let isOver = false
  const load = (async () => {
    while (!isOver) {
      const result = await send().catch(String)
      if (result !== 200) failures.push(result)
      sent++
      await sleep(10)
    }
  })()
  await rotate(consul, privateKey)
  const renewed = async () => ![await issuerAt(meshPort), caller].some((each) => before.includes(each))
  // Agents spread the renewal of leaf certificates over half a minute.
  await waitFor('new leaf certificates of both', renewed, 60_000)
  await sleep(500)
  isOver = true
  await load
  t.same(failures, [])
  t.ok(sent > 100, `${sent}`)
})
