/**
 * The mesh half without gateway and Fastify: a plain Node program that calls services by name, `http://orders.mesh/…`. The
 * mesh finds the instances in Consul, balances the calls, and retries at another instance if one cannot be reached. Its
 * settings are those of a gateway's configuration.
 *
 *   consul agent -dev &
 *   node config/examples/service.ts --name orders --port 9101 &
 *   node --conditions=checkout config/examples/mesh-client.ts /orders 5          # path, number of calls
 *
 * The condition selects the sources of this checkout. A copy of this file runs without it, where the package is installed.
 * `CONSUL_URL`: URL of another Consul than the one on this machine. See plugins/mesh/library.md.
 */
import { createMesh } from 'jingwei/mesh'

const [path = '/orders', calls = '3'] = process.argv.slice(2)
const { CONSUL_URL = 'http://127.0.0.1:8500' } = process.env

const mesh = createMesh({
  discovery: { consul: { url: CONSUL_URL } },
  mesh: { balance: 'round-robin', timeout: '3s' },
  services: { orders: {} }
})
try {
  // Waits for the first instance list; a call before it would fail with JW_NO_INSTANCE.
  await mesh.ready({ timeout: '10s' })

  // The mesh is also an undici `Dispatcher`: everything that accepts one can use it.
  for (let call = 0; call < Number(calls); call++) {
    const response = await mesh.fetch(`http://orders.mesh${path}`)
    console.log(response.status, await response.text())
  }
} finally {
  await mesh.close() // ends discovery and every connection, so that the program can end
}
