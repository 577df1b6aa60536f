/** `edge.earlyHints`: who gets a 103, with which bytes, and what stays as it was. */
import { once } from 'node:events'
import http2 from 'node:http2'
import type { Test } from 'tap'
import t from 'tap'
import { ConfigError } from '../../../config/load.ts'
import { anyClient, listenFor, protocols } from '../../helpers/edge/asking-client.ts'
import { handshake, startWebSocketService } from '../../helpers/edge/websocket.ts'
import { configOf, connect, get, raw, startGateway, startRawService, startService } from '../../helpers/gateway.ts'

const links = ['</app.css>; rel=preload; as=style', '<https://cdn.example.com>; rel="preconnect"']
const navigate = { 'sec-fetch-mode': 'navigate' }

async function start(t: Test, options: object, more: object = {}) {
  const service = await startService((request, response) => {
    if (request.url === '/own') response.writeEarlyHints({ link: '</own.css>; rel=preload; as=style' })
    response.setHeader('link', '</final>; rel=next')
    response.end(JSON.stringify(request.headers))
  })
  t.teardown(service.close)
  const gateway = await startGateway(
    {
      services: { any: { instances: [service.url] } },
      edge: { earlyHints: options },
      routes: [{ name: 'all', match: { path: '/' }, service: 'any' }],
      ...more
    },
    {
      before: (server) =>
        void server.register(async (own) => {
          own.get('/page', { config: { edge: { earlyHints: true } } }, () => 'page')
        })
    }
  )
  t.teardown(gateway.close)
  return gateway
}

for (const protocol of protocols) {
  t.test(`over ${protocol}, hints are for navigations over HTTP/2 by default`, async (t) => {
    const listen = { listen: listenFor(t, protocol) }
    const { port } = await start(t, { links }, listen)
    const { ask } = anyClient(t, protocol, port)
    const hints = protocol === 'HTTP/2' ? [103] : []
    for (const path of ['/', '/page']) {
      t.match(await ask(path, { headers: navigate }), { status: 200, hints, isWhole: true })
      t.match(await ask(path, { headers: { 'sec-fetch-mode': 'cors' } }), { status: 200, hints: [] })
      t.match(await ask(path), { status: 200, hints: [] })
      t.match(await ask(path, { headers: navigate, method: 'HEAD' }), { status: 200, hints: [] })
    }
    t.match(await ask('/', { headers: navigate, method: 'POST' }), { status: 200, hints: [] })
    t.match(await ask('/own'), { status: 200, hints: [103] }, 'those of the service pass')
    t.match(await ask('/own', { headers: navigate }), { status: 200, hints: [...hints, 103] })

    const all = await start(t, { links, when: 'always', http1: true }, listen)
    const client = anyClient(t, protocol, all.port)
    const response = await client.ask('/')
    t.match(response, { status: 200, hints: [103], isWhole: true, headers: { link: '</final>; rel=next' } })
    t.match(await client.ask('/', { method: 'POST' }), { status: 200, hints: [] })
  })
}

t.test('the hint comes before the service responds, with its links', async (t) => {
  const service = await startRawService(() => {})
  t.teardown(service.close)
  const services = { any: { instances: [service.url] } }
  const old = await start(t, { links, http1: true }, { services })
  const client = connect(old.port, 'GET / HTTP/1.1\r\nHost: h\r\nSec-Fetch-Mode: navigate\r\n\r\n')
  t.teardown(() => client.socket.destroy())
  const lines = links.map((link) => `link: ${link}\r\n`).join('')
  t.equal((await client.until('\r\n\r\n')).toLowerCase(), `http/1.1 103 early hints\r\n${lines}\r\n`.toLowerCase())

  const { port } = await start(t, { links }, { services, listen: listenFor(t, 'HTTP/2') })
  const session = http2.connect(`https://127.0.0.1:${port}`, { rejectUnauthorized: false })
  t.teardown(() => session.destroy())
  const stream = session.request({ ':path': '/', ...navigate })
  stream.on('error', () => {})
  const [headers] = (await once(stream, 'headers')) as [http2.IncomingHttpHeaders]
  t.match(headers, { ':status': 103, link: links.join(', ') })
})

t.test('HTTP/1.0, WebSockets and refused requests get no hint; a compressed response has both', async (t) => {
  const options = { links, when: 'always', http1: true }
  const { port } = await start(t, options, { edge: { earlyHints: options, ipFilter: { deny: ['127.0.0.1'] } } })
  t.match(await raw(port, 'GET / HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n'), /^HTTP\/1\.1 403 /)
  const open = await start(t, options, { edge: { earlyHints: options, compression: { minSize: '1b' } } })
  t.match(await raw(open.port, 'GET / HTTP/1.0\r\nHost: h\r\n\r\n'), /^HTTP\/1\.1 200 /)
  const both = await raw(
    open.port,
    'GET /own HTTP/1.1\r\nHost: h\r\nAccept-Encoding: gzip\r\nConnection: close\r\n\r\n'
  )
  t.match(both, /^HTTP\/1\.1 103 [\s\S]+\r\nHTTP\/1\.1 103 [\s\S]+\r\nHTTP\/1\.1 200 /)
  t.equal((await get(open.port, '/', [], 'POST')).status, 200)
  const service = await startWebSocketService()
  t.teardown(service.close)
  const tunnel = await start(t, options, { services: { any: { instances: [service.url] } } })
  const client = connect(tunnel.port, handshake('/'))
  t.teardown(() => client.socket.destroy())
  t.match(await client.until('\r\n\r\n'), /^HTTP\/1\.1 101 /)
})

t.test('links that no browser uses are faults', async (t) => {
  const faults = (link: string): string[] => {
    try {
      configOf({
        services: { a: { instances: ['http://127.0.0.1:1'] } },
        edge: { earlyHints: { links: [link] } },
        routes: [{ name: 'a', match: { path: '/' }, service: 'a' }]
      })
      return []
    } catch (error) {
      if (error instanceof ConfigError) return error.faults.map(({ path, message }) => `${path}: ${message}`)
      throw error
    }
  }
  for (const link of links) t.same(faults(link), [], link)
  t.match(faults('/app.css'), [/earlyHints.links\[0\]: expected a Link/])
  t.match(faults('</a>\r\nx: y; rel=preload'), [/expected a Link/])
  t.match(faults('</a>; rel=preload; as="\u00e9"'), [/expected a Link/])
  t.match(faults('</a>; rel=next'), [/browsers use only hints with rel=preload/])
  t.match(faults('</a>; rel=preload'), [/without "as"/])
})
