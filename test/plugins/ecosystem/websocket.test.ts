// slow: installs packages
// WebSockets of a route with published plugins: those that guard it refuse handshakes, those that work in `onSend` leave
// messages alone.
import { join } from 'node:path'
import type { Test } from 'tap'
import t from 'tap'
import { build } from '../../../app.ts'
import { parseConfig } from '../../../plugins/config.ts'
import { echo, handshake, opcodes, open, startWebSocketService } from '../../helpers/edge/websocket.ts'
import { parse, raw } from '../../helpers/gateway.ts'
import { ecosystemPackages } from '../../helpers/packages.ts'

async function gateway(t: Test, plugins: string): Promise<number> {
  const service = await startWebSocketService({ onPeer: echo })
  const text = `
listen: { host: 127.0.0.1, port: 0, drain: { delay: 0ms } }
admin: false
services: { ws: { instances: ['${service.url}'] } }
routes: [{ name: ws, match: { path: /ws }, service: ws }]
plugins:${plugins}`
  const server = build(parseConfig(text, join(await ecosystemPackages(), 'gateway.yaml')), { logger: false })
  t.teardown(async () => {
    await service.close()
    await server.close()
  })
  return Number(new URL(await server.listen({ host: '127.0.0.1', port: 0 })).port)
}

t.test('@fastify/helmet, @fastify/compress, @fastify/session and @fastify/bearer-auth', async (t) => {
  const port = await gateway(
    t,
    `
  - package: '@fastify/helmet'
  - package: '@fastify/compress'
    options: { threshold: 0 }
  - package: '@fastify/cookie'
  - package: '@fastify/session'
    options: { secret: a secret with a minimum length of 32 characters, cookie: { secure: false } }
  - package: '@fastify/bearer-auth'
    options: { keys: [one-key] }`
  )
  const refused = parse(await raw(port, handshake('/ws')))
  t.equal(refused.status, 401)
  t.equal(refused.headers['x-frame-options'], 'SAMEORIGIN')
  const { peer } = await open(port, '/ws', ['Authorization: Bearer one-key'], Buffer.alloc(0))
  for (const [index, message] of ['hello', 'x'.repeat(10_000)].entries()) {
    peer.send(opcodes.text, message)
    t.equal((await peer.frame(index)).payload.toString(), message)
  }
  peer.socket.destroy()
})
