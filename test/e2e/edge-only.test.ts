// slow: needs Consul
/** The example of an edge without the mesh: a process of its own, a real sidecar of Consul Connect, and fixed addresses. */
import { join } from 'node:path'
import t from 'tap'
import { startConsul } from '../helpers/consul.ts'
import { startService } from '../helpers/gateway.ts'
import { behindSidecar, plain, proxy } from '../helpers/mesh/connect.ts'
import { freePort, runToEnd, start, waitFor } from '../helpers/processes.ts'

const root = join(import.meta.dirname, '../..')
const example = join(root, 'config/examples/edge-only.yaml')

t.test('orders through its sidecar and that of the gateway, users at two addresses', async (t) => {
  const consul = await startConsul()
  t.teardown(consul.stop)
  const orders = await plain(t, 'orders')
  await behindSidecar(t, consul, 'orders', orders.port)
  const outbound = await freePort()
  await proxy(t, consul, ['-service=gateway', `-upstream=orders:127.0.0.1:${outbound}`], outbound)
  const users = await Promise.all(
    ['one', 'two'].map(async (name) => {
      const service = await startService(({ url }, response) => response.end(`${name} ${url}`))
      t.teardown(service.close)
      return service.url
    })
  )
  const env = {
    ...process.env,
    PORT: '0',
    ADMIN_PORT: '0',
    ORDERS_SIDECAR: `http://127.0.0.1:${outbound}`,
    USERS_URL: users[0]!,
    USERS_URL_2: users[1]!
  }
  const app = join(root, 'app.ts')
  const check = await runToEnd('node', [app, 'check', example], { env })
  t.match(check, { code: 0, stdout: /: ok, 2 routes, 2 services\n$/ })
  const gateway = await start({ command: 'node', args: [app, '-c', example], env, ready: /jingwei is up/ })
  t.teardown(() => gateway.stop())
  const [, edge, admin] = /^ {2}edge {5}(\S+)\n {2}metrics {2}(\S+)\/metrics$/m.exec(gateway.output()) ?? []
  await waitFor('the way through both sidecars', async () => (await fetch(`${edge}/api/orders/7`)).status === 200)
  const response = await fetch(`${edge}/api/orders/7`, { method: 'POST', body: 'an order' })
  t.equal(response.status, 200)
  t.equal(response.headers.get('x-instance'), 'orders')
  t.match(await response.text(), /^orders /)
  const answers = [await fetch(`${edge}/api/users/7`), await fetch(`${edge}/api/users/7`)]
  t.strictSame((await Promise.all(answers.map((each) => each.text()))).sort(), ['one /users/7', 'two /users/7'])
  t.match(
    await (await fetch(`${admin}/metrics`)).text(),
    /jingwei_forward_calls_total\{service="users",outcome="success"\} 2\n/
  )
})
