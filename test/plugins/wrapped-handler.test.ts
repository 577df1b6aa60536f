// Handlers with which plugins wrap the handlers of proxied routes in an `onRoute` hook, as tracers do.
import { once } from 'node:events'
import http2 from 'node:http2'
import { text } from 'node:stream/consumers'
import type { FastifyInstance, RouteHandlerMethod } from 'fastify'
import t from 'tap'
import { eventually } from '../helpers/eventually.ts'
import { gatewayBefore, startService } from '../helpers/gateway.ts'
import { selfSigned } from '../helpers/self-signed.ts'

const body = 'x'.repeat(100_000)

async function get(url: string, path: string): Promise<{ status: number; body: string }> {
  if (url.startsWith('http:')) {
    const response = await fetch(url + path)
    return { status: response.status, body: await response.text() }
  }
  const session = http2.connect(url, { rejectUnauthorized: false })
  try {
    const stream = session.request({ ':path': path })
    const [headers] = (await once(stream, 'response')) as [http2.IncomingHttpHeaders]
    return { status: Number(headers[':status']), body: await text(stream) }
  } finally {
    session.destroy()
  }
}

for (const protocol of ['HTTP/1.1', 'HTTP/2']) {
  for (const kind of ['plain', 'async']) {
    t.test(`${protocol}: a ${kind} handler wraps the handler of a route`, async (t) => {
      const service = await startService((request, response) => {
        if (request.url === '/fails') request.socket.destroy()
        else response.end(body)
      })
      t.teardown(service.close)
      const seen: string[] = []
      const around = (handler: RouteHandlerMethod): RouteHandlerMethod =>
        kind === 'plain'
          ? function (request, reply) {
              seen.push(`before ${request.url}`)
              return handler.call(this, request, reply)
            }
          : async function (request, reply) {
              seen.push(`before ${request.url}`)
              const result: unknown = await handler.call(this, request, reply)
              seen.push(`after ${request.url} ${reply.raw.writableEnded}`)
              return result
            }
      const before = (server: FastifyInstance) => {
        server.addHook('onRoute', (route) => {
          if (route.config?.route !== undefined) route.handler = around(route.handler)
        })
      }
      const listen = protocol === 'HTTP/2' ? { tls: selfSigned(t), http2: true } : {}
      const { url } = await gatewayBefore(t, service.url, { listen, mesh: { retry: false } }, { before })
      t.strictSame(await get(url, '/page'), { status: 200, body })
      t.match(await get(url, '/fails'), { status: 502, body: /JW_UPSTREAM/ })
      const expected = ['/page', '/fails'].flatMap((path) =>
        kind === 'plain' ? [`before ${path}`] : [`before ${path}`, `after ${path} true`]
      )
      await eventually(() => seen.length === expected.length)
      t.strictSame(seen, expected)
    })
  }
}
