/** Stickiness through the whole gateway: what the edge knows of the caller reaches the balancer, the cookie the client. */
import t from 'tap'
import type { Answer, RunningGateway, RunningService } from '../helpers/gateway.ts'
import { get, startGateway, startService } from '../helpers/gateway.ts'

async function three(): Promise<RunningService[]> {
  return Promise.all(['1', '2', '3'].map((name) => startService((_request, response) => response.end(name))))
}

async function gatewayOver(services: RunningService[], balance: object): Promise<RunningGateway> {
  return startGateway({
    listen: { trustProxy: ['127.0.0.1/32'] },
    mesh: { balance },
    services: { s: { instances: services.map(({ url }) => url) } },
    routes: [{ name: 's', match: { path: '/' }, service: 's' }]
  })
}

t.test('a cookie makes a client come back to the same instance', async (t) => {
  const services = await three()
  const gateway = await gatewayOver(services, { policy: 'maglev', hashOn: 'cookie:jw', cookieTtl: '1h' })
  t.teardown(async () => {
    await gateway.close()
    for (const service of services) await service.close()
  })
  for (let i = 0; i < 8; i++) {
    const first: Answer = await get(gateway.port, '/')
    const [pair] = /^jw=[0-9a-f]{16}/.exec(first.headers['set-cookie'] ?? '')!
    t.match(first.headers['set-cookie'], /; Path=\/; HttpOnly; SameSite=Lax; Max-Age=3600$/)
    const again = await get(gateway.port, '/', [`Cookie: a=1; ${pair}`])
    t.equal(again.body, first.body)
    t.equal(again.headers['set-cookie'], undefined)
  }
})

t.test("by the client's address, as far as its proxy is trusted", async (t) => {
  const services = await three()
  const gateway = await gatewayOver(services, { policy: 'ring-hash', hashOn: 'ip', maxLoad: '150%' })
  t.teardown(async () => {
    await gateway.close()
    for (const service of services) await service.close()
  })
  const homes: string[] = []
  for (let i = 0; i < 60; i++) homes.push((await get(gateway.port, '/', [`X-Forwarded-For: 203.0.113.${i}`])).body)
  t.equal(new Set(homes).size, 3)
  for (const i of [0, 9, 30]) {
    t.equal((await get(gateway.port, '/', [`X-Forwarded-For: 203.0.113.${i}`])).body, homes[i])
  }
})
