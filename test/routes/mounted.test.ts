// The gateway as a plugin of a server of one's own, under a prefix.
import type { AddressInfo } from 'node:net'
import Fastify from 'fastify'
import t from 'tap'
import { gateway } from '../../app.ts'
import { configOf, get, startEcho } from '../helpers/gateway.ts'

for (const [prefix, below] of [
  ['/', ''],
  ['/x', '/x'],
  ['/x/', '/x'],
  ['/x/y', '/x/y']
] as const) {
  t.test(`the gateway serves below the prefix ${prefix}`, async (t) => {
    const echo = await startEcho()
    t.teardown(echo.close)
    const config = configOf({
      services: { any: { instances: [echo.url] } },
      routes: [
        { name: 'api', match: { path: '/api' }, service: 'any' },
        { name: 'user', match: { path: '/u/:id' }, service: 'any' }
      ]
    })
    const server = Fastify()
    server.get('/own', async () => 'own')
    server.register(gateway, { ...config, prefix })
    await server.listen({ host: '127.0.0.1', port: 0 })
    t.teardown(() => server.close())
    const { port } = server.server.address() as AddressInfo
    for (const path of ['/api', '/api/orders?q=1', '/u/7']) {
      const { status, body } = await get(port, `${below}${path}`)
      t.equal(status, 200, path)
      t.equal(JSON.parse(body).url, `${below}${path}`)
    }
    t.equal((await get(port, '/own')).body, 'own')
    for (const path of [`${below}/other`, `${below}${below === '' ? '/z' : below}/api`]) {
      t.equal((await get(port, path)).status, 404, path)
    }
  })
}
