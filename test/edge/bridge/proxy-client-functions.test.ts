/** Failing functions that users pass to @fastify/http-proxy, the real package: only the request fails. */
import { join } from 'node:path'
import httpProxy from '@fastify/http-proxy'
import type { FastifyInstance } from 'fastify'
import type { Test } from 'tap'
import t from 'tap'
import { eventually } from '../../helpers/eventually.ts'
import { get, startGateway, startService } from '../../helpers/gateway.ts'

/** Options with a function that fails, as the text of a module. */
const failing: Readonly<Record<string, string>> = {
  'preHandler that throws': 'preHandler() { throw new Error("a slip") }',
  'preRewrite that throws': 'preRewrite() { throw new Error("a slip") }',
  'handler that rejects': 'async handler() { throw new Error("a slip") }',
  'rewriteRequestHeaders that throws': 'replyOptions: { rewriteRequestHeaders() { throw new Error("a slip") } }',
  'rewriteHeaders that throws': 'replyOptions: { rewriteHeaders() { throw new Error("a slip") } }',
  'onResponse that throws': 'replyOptions: { onResponse() { throw new Error("a slip") } }',
  'onResponse that rejects': 'replyOptions: { async onResponse() { throw new Error("a slip") } }'
}

/** A service with responses that end only when they are closed. */
async function endless(t: Test) {
  const open = new Set<unknown>()
  const service = await startService((request, response) => {
    if (request.url?.endsWith('fine')) return void response.end('fine')
    open.add(response)
    response.once('close', () => open.delete(response))
    response.writeHead(200).write('begun')
  })
  t.teardown(service.close)
  return { url: service.url, open }
}

for (const [what, text] of Object.entries(failing)) {
  t.test(`${what}: 500, logged, and the call ends`, async (t) => {
    const { url, open } = await endless(t)
    const folder = t.testdir({ 'options.ts': `export default { ${text} }` })
    const module = join(folder, 'options.ts')
    const { default: options } = (await import(module)) as { default: object }
    const gateway = await startGateway(
      {
        services: { any: { instances: [url] } },
        routes: [
          { name: 'via', match: { path: '/via' }, service: 'any', via: 'http-proxy', httpProxy: { module } },
          { name: 'bridge', match: { path: '/bridge' }, service: 'any' }
        ]
      },
      {
        log: true,
        before: (server) => void server.register(httpProxy, { prefix: '/own', upstream: 'http://any.mesh', ...options })
      }
    )
    t.teardown(gateway.close)
    for (const path of ['/via/7', '/own/7']) {
      const { status, body } = await get(gateway.port, path)
      t.match({ status, body }, { status: 500, body: /JW_INTERNAL/ }, path)
      t.notMatch(body, /a slip/)
      t.match(JSON.stringify(gateway.log), /"level":50,.*a slip/)
      await eventually(() => open.size === 0)
    }
    t.equal((await get(gateway.port, '/bridge/fine')).body, 'fine', 'the gateway continues to serve')
  })
}

t.test("a user's onError gets the error of the table as the cause", async (t) => {
  const causes: unknown[] = []
  const gateway = await startGateway(
    { services: { any: { instances: ['http://127.0.0.1:1'] } } },
    {
      before: (server) =>
        void server.register(httpProxy, {
          prefix: '/own',
          upstream: 'http://any.mesh',
          replyOptions: {
            onError(reply, { error }) {
              causes.push((error.cause as { code?: string }).code)
              void reply.code(418).send({ sorry: true })
            }
          }
        })
    }
  )
  t.teardown(gateway.close)
  t.match(await get(gateway.port, '/own/7'), { status: 418, body: '{"sorry":true}' })
  t.strictSame(causes, ['JW_UPSTREAM_REFUSED'])
})

t.test('a body is changed in onResponse, by its stream', async (t) => {
  const service = await startService((_request, response) => response.end('{"secret":1,"id":7}'))
  t.teardown(service.close)
  const gateway = await startGateway(
    { services: { any: { instances: [service.url] } } },
    {
      before: (server: FastifyInstance) =>
        void server.register(httpProxy, {
          prefix: '/own',
          upstream: 'http://any.mesh',
          replyOptions: {
            async onResponse(_request, reply, res) {
              const chunks: Buffer[] = []
              for await (const chunk of res.stream) chunks.push(chunk as Buffer)
              const { secret: _secret, ...rest } = JSON.parse(Buffer.concat(chunks).toString()) as { secret: number }
              reply.removeHeader('content-length').send(rest)
            }
          }
        })
    }
  )
  t.teardown(gateway.close)
  t.match(await get(gateway.port, '/own/7'), { status: 200, body: '{"id":7}' })
})

t.test('reply-from for the whole gateway, beside a route via http-proxy', async (t) => {
  const folder = t.testdir({
    'own.ts': 'export default async function own(fastify) { fastify.decorateReply("from", function () {}) }'
  })
  const config = {
    services: { any: { instances: ['http://127.0.0.1:1'] } },
    routes: [{ name: 'via', match: { path: '/via' }, service: 'any', via: 'http-proxy' }],
    plugins: [{ path: join(folder, 'own.ts') }]
  }
  const gateway = await startGateway(config)
  t.teardown(gateway.close)
  t.equal((await get(gateway.port, '/via')).status, 502)
})
