// slow: takes about 12 s
// WebSocket clients that leave at any moment around their 101. Clients and service are separate processes: only then
// does the gateway find a client's end and a service's 101 in one event-loop iteration.
import type { ChildProcess } from 'node:child_process'
import { fork } from 'node:child_process'
import { once } from 'node:events'
import t from 'tap'
import { eventually } from '../../helpers/eventually.ts'
import { startGateway } from '../../helpers/gateway.ts'

const helper = (name: string, ...args: string[]): ChildProcess =>
  fork(`${import.meta.dirname}/../../helpers/edge/${name}.ts`, args, { stdio: 'inherit' })

for (const how of ['end', 'destroy', 'resetAndDestroy'] as const) {
  t.test(`a thousand clients that leave by ${how}() leave no connection open while their service pings`, async (t) => {
    const service = helper('pinging-service')
    t.teardown(() => service.kill())
    const [url] = (await once(service, 'message')) as [string]
    const gateway = await startGateway({
      listen: { drain: { delay: '0ms' } },
      admin: { port: 0 },
      services: { ws: { instances: [url] } },
      routes: [{ name: 'ws', match: { path: '/ws' }, service: 'ws' }]
    })
    t.teardown(gateway.close)
    const clients = helper('leaving-clients', String(gateway.port), how)
    t.teardown(() => clients.kill())
    const [opened] = (await once(clients, 'message')) as [number]
    t.ok(opened > 0, `${opened} got their 101`)
    await eventually(() => gateway.server.mesh.status()[0]!.instances[0]!.active === 0)
    const metrics = await gateway.server.metrics.metrics()
    t.match(metrics, /^jingwei_edge_websockets\{route="ws"\} 0$/m)
    t.match(metrics, /^jingwei_edge_connections\{listener="default"\} 0$/m)
  })
}
