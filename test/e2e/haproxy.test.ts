/** The load balancer of config/haproxy: forwarding headers of a client do not pass it. */
import { join } from 'node:path'
import t from 'tap'
import { ask, startEcho } from '../helpers/gateway.ts'
import { startHaproxy } from '../helpers/haproxy.ts'
import { freePorts, waitFor } from '../helpers/processes.ts'

const configFile = join(import.meta.dirname, '../../config/haproxy/haproxy.cfg')

t.test('forwarding headers of clients are deleted or replaced', async (t) => {
  const echo = await startEcho()
  t.teardown(echo.close)
  const [port, status] = (await freePorts(2)) as [number, number]
  const gateway = { GATEWAY_1: `127.0.0.1:${echo.port}`, GATEWAY_1_ADMIN: `${echo.port}` }
  const env = {
    ...gateway,
    GATEWAY_2: gateway.GATEWAY_1,
    GATEWAY_2_ADMIN: gateway.GATEWAY_1_ADMIN,
    EDGE_BIND: `127.0.0.1:${port}`,
    STATUS_BIND: `127.0.0.1:${status}`
  }
  const haproxy = await startHaproxy({ configFile, env, ports: [port] })
  t.teardown(haproxy.stop)
  const names = [
    'X-Original-URL', 'X-Rewrite-URL', 'X-Forwarded-Prefix', 'X-Forwarded-Server', 'X-Forwarded-Scheme',
    'X-Forwarded-Ssl', 'X-Real-IP', 'Forwarded', 'x-jingwei-fault-abort', 'X-Jingwei-Fault-Delay', 'X-JINGWEI-other',
    'X-Forwarded-For', 'X-Forwarded-Proto', 'X-Forwarded-Port', 'X-Forwarded-Host'
  ] // biome-ignore format: a list
  const lines = ['Host: shop.example.com', 'X-Other: kept', ...names.map((name) => `${name}: evil`)]
  await waitFor('a node is up', async () => (await ask(port, '/')).url === '/')
  const { headers } = await ask(port, '/', lines)
  t.notMatch(JSON.stringify(headers), /evil|jingwei/i)
  t.match(headers, {
    'x-other': 'kept',
    'x-forwarded-for': '127.0.0.1',
    'x-forwarded-proto': 'http',
    'x-forwarded-port': String(port),
    'x-forwarded-host': 'shop.example.com'
  })
})
