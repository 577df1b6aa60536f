import type { FastifyInstance } from 'fastify'
import Fastify from 'fastify'
import fp from 'fastify-plugin'
import t from 'tap'
import { gateway, serverOptions } from '../../app.ts'
import { ask, configOf, get, parse, raw, startEcho } from '../helpers/gateway.ts'

t.test(
  'registered in another Fastify server, the gateway serves its routes beside others and ends with the server',
  async (t) => {
    const echo = await startEcho()
    t.teardown(echo.close)
    const server = Fastify()
    server.get('/own', async () => ({ mine: true }))
    server.post('/own', async (request) => request.body)
    const config = configOf({
      services: { any: { instances: [echo.url] } },
      routes: [{ name: 'api', match: { path: '/api' }, service: 'any' }]
    })
    await server.register(gateway, config)
    await server.listen({ host: '127.0.0.1', port: 0 })
    const { port } = server.server.address() as { port: number }
    t.strictSame(JSON.parse((await get(port, '/own')).body), { mine: true })
    t.equal(
      (await get(port, '/own')).headers['x-request-id'],
      undefined,
      'hooks of the gateway do not run on routes of the server'
    )
    const own = await raw(
      port,
      `POST /own HTTP/1.1\r\nHost: h\r\nConnection: close\r\nContent-Type: application/json\r\nContent-Length: 7\r\n\r\n{"a":1}`
    )
    t.equal(parse(own).body, '{"a":1}', 'parsers of the server stay in use')
    const seen = await ask(port, `/api/${'x'.repeat(90)}?y`)
    t.equal(seen.url, `/api/${'x'.repeat(90)}?y`)
    t.ok(seen.headers['x-request-id'])
    await server.close()
    await t.rejects(fetch(`http://127.0.0.1:${port}/own`))
  }
)

t.test('a configuration that no loader returned is refused, and the message names the loaders', async (t) => {
  const config = configOf({
    services: { any: { instances: ['http://127.0.0.1:9'] } },
    routes: [{ name: 'api', match: { path: '/api' }, service: 'any' }]
  })
  const wrong = [
    [{ config }, 'an object with the keys config'],
    [{}, 'an empty object'],
    [undefined, 'an empty object'],
    [Promise.resolve(config), 'a promise'],
    [{ services: {}, routes: [] }, 'an object with the keys services, routes']
  ] as const
  for (const [options, found] of wrong) {
    const server = Fastify()
    t.teardown(() => server.close())
    const message = `gateway: expected the configuration that \`await loadConfig(file)\` or \`parseConfig(text, file)\` returns, found ${found}`
    await t.rejects(async () => server.register(gateway, options as never), { name: 'TypeError', message })
  }
  t.throws(() => serverOptions(Promise.resolve(config) as never), {
    message: /^serverOptions: expected the configuration that `await loadConfig\(file\)` .* found a promise$/
  })
})

t.test('a second gateway in the same server is refused', async (t) => {
  const config = configOf({ services: {}, routes: [], admin: false })
  const whole = fp((fastify: FastifyInstance) => gateway(fastify, config))
  const server = Fastify()
  t.teardown(() => server.close())
  await server.register(whole)
  await t.rejects(async () => server.register(whole), {
    message: 'gateway: this server has the gateway already; register it once, with all routes in one configuration'
  })
})
