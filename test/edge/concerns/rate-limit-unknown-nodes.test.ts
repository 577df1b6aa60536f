/** `edge.gatewayNodes` with a service under which no node is registered. */
import { join } from 'node:path'
import t from 'tap'
import { get, startEcho, startGateway } from '../../helpers/gateway.ts'
import { folder } from '../../helpers/plugins.ts'

t.test('a limit that is divided by nothing is logged once', async (t) => {
  const root = await folder(t, { 'nodes.json': '[]' })
  const service = await startEcho()
  t.teardown(service.close)
  const sections = {
    listen: { port: 0 },
    services: { 'edge-nodes': { file: { path: join(root, 'nodes.json') } }, any: { instances: [service.url] } },
    edge: { gatewayNodes: 'edge-nodes', rateLimit: { max: 9, window: '1h', share: true } },
    routes: [{ name: 'all', match: { path: '/' }, service: 'any' }]
  }
  const gateway = await startGateway(sections, { log: true })
  t.teardown(gateway.close)
  await gateway.server.mesh.service('edge-nodes').ready
  for (let i = 0; i < 3; i++) t.equal((await get(gateway.port, '/')).status, 200)
  const lines = gateway.log.filter(({ msg }) => String(msg).startsWith('edge.gatewayNodes: '))
  t.match(lines, [{ service: 'edge-nodes', msg: /edge-nodes has no instances, so limits .* are not divided/ }])
  t.equal(lines.length, 1)
})
