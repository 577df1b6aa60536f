/** `edge.csrf`: which requests of browsers are refused, over each protocol, and for WebSockets. */
import type { Test } from 'tap'
import t from 'tap'
import { ConfigError } from '../../../config/load.ts'
import csrf from '../../../plugins/edge/concerns/csrf.ts'
import { anyClient, listenFor, protocols } from '../../helpers/edge/asking-client.ts'
import { handshake, startWebSocketService } from '../../helpers/edge/websocket.ts'
import { eventually } from '../../helpers/eventually.ts'
import { configOf, connect, get, startEcho, startGateway } from '../../helpers/gateway.ts'

async function start(t: Test, options: object | false, more: object = {}) {
  const service = await startEcho()
  t.teardown(service.close)
  const gateway = await startGateway(
    {
      services: { any: { instances: [service.url] } },
      edge: { csrf: options },
      routes: [{ name: 'all', match: { path: '/' }, service: 'any' }],
      ...more
    },
    { log: true }
  )
  t.teardown(gateway.close)
  const lines = () => gateway.log.filter(({ msg }) => msg === 'request')
  return { ...gateway, lines }
}

for (const protocol of protocols) {
  t.test(`over ${protocol}, requests of other sites are refused`, async (t) => {
    const options = { trustedOrigins: ['https://app.example.com', 'https://*.example.org'] }
    const gateway = await start(t, options, { listen: listenFor(t, protocol) })
    const { ask } = anyClient(t, protocol, gateway.port)
    const scheme = protocol === 'HTTP/1.1' ? 'http' : 'https'
    const own = `${scheme}://127.0.0.1:${gateway.port}`
    const cases: [Record<string, string>, reason: string | null][] = [
      [{}, null],
      [{ cookie: 'a=b' }, null],
      [{ 'sec-fetch-site': 'same-origin' }, null],
      [{ 'sec-fetch-site': 'none' }, null],
      [{ 'sec-fetch-site': 'cross-site' }, 'csrf_site'],
      [{ 'sec-fetch-site': 'same-site' }, 'csrf_site'],
      [{ 'sec-fetch-site': 'anything' }, 'csrf_site'],
      [{ 'sec-fetch-site': '' }, 'csrf_site'],
      [{ 'sec-fetch-site': 'cross-site', origin: own }, 'csrf_site'],
      [{ 'sec-fetch-site': 'cross-site', origin: 'https://app.example.com' }, null],
      [{ 'sec-fetch-site': 'cross-site', origin: 'https://a.example.org' }, null],
      [{ 'sec-fetch-site': 'cross-site', origin: 'https://app.example.com.evil.example' }, 'csrf_site'],
      [{ origin: own }, null],
      [{ origin: 'https://app.example.com' }, null],
      [{ origin: 'http://app.example.com' }, 'csrf_origin'],
      [{ origin: 'https://evil.example' }, 'csrf_origin'],
      [{ origin: `${scheme}://127.0.0.1` }, 'csrf_origin'],
      [{ origin: 'null' }, 'csrf_origin'],
      [{ origin: '' }, 'csrf_origin'],
      [{ origin: `${own}, https://evil.example` }, 'csrf_origin'],
      [{ origin: own, authorization: 'Bearer x' }, null],
      [{ origin: 'https://evil.example', authorization: 'Bearer x' }, 'csrf_origin'],
      // A page without TLS could be anybody's; without TLS at the gateway, a proxy may have it.
      [
        { origin: `${scheme === 'http' ? 'https' : 'http'}://127.0.0.1:${gateway.port}` },
        scheme === 'http' ? null : 'csrf_origin'
      ]
    ]
    let count = 0
    for (const [headers, reason] of cases) {
      for (const method of ['POST', 'PUT', 'PATCH', 'DELETE']) {
        const body = 'x'.repeat(1000)
        const response = await ask('/', { method, headers, body })
        t.equal(response.status, reason === null ? 200 : 403, `${method} ${JSON.stringify(headers)}`)
        if (reason === null) t.equal((JSON.parse(response.body.toString()) as { body: string }).body, body)
        else t.match(JSON.parse(response.body.toString()), { code: 'JW_CROSS_SITE', statusCode: 403 })
        count++
        await eventually(() => gateway.lines().length >= count)
        t.equal(gateway.lines()[count - 1]!.reason, reason ?? undefined)
      }
    }
    for (const method of ['GET', 'HEAD', 'OPTIONS']) {
      t.equal((await ask('/', { method, headers: { 'sec-fetch-site': 'cross-site' } })).status, 200, method)
    }
  })
}

t.test('requests without cookies, with bearer tokens, and of the same site, by option', async (t) => {
  const status = async (options: object, ...headers: string[]) => {
    const gateway = await start(t, options)
    return (await get(gateway.port, '/', ['Sec-Fetch-Site: same-site', ...headers], 'POST')).status
  }
  t.equal(await status({ sameSite: true }), 200)
  t.equal(await status({ sameSite: true }, 'Sec-Fetch-Site: cross-site'), 403, 'two fields')
  t.equal(await status({ withoutCookies: true }), 200)
  t.equal(await status({ withoutCookies: true }, 'Authorization: Bearer a'), 200)
  t.equal(await status({ withoutCookies: true }, 'Authorization: Basic YTpi'), 403, 'browsers send it by themselves')
  t.equal(await status({ withoutCookies: true }, 'Cookie: a=b'), 403)
  t.equal(await status({ withoutCookies: true }, 'Cookie: a=b', 'Authorization: Bearer a'), 403)
  t.equal(await status({ bearer: true }, 'Cookie: a=b', 'Authorization: bearer a'), 200)
  t.equal(await status({ bearer: true }, 'Authorization: Bearer'), 403)
  t.equal(await status({ bearer: true }, 'Authorization: Bearer a', 'Authorization: Basic YTpi'), 403)
  t.equal(await status({ bearer: true }), 403)
})

t.test('the host is the one that a trusted proxy forwards; default ports are omitted', async (t) => {
  const listen = { trustProxy: ['127.0.0.1'] }
  const gateway = await start(t, {}, { listen })
  const status = async (...headers: string[]) => (await get(gateway.port, '/', headers, 'POST')).status
  t.equal(await status('X-Forwarded-Host: shop.example', 'Origin: https://shop.example'), 200)
  t.equal(await status('X-Forwarded-Host: shop.example', 'Origin: https://h'), 403)
  t.equal(await status('Host: Shop.example:443', 'Origin: https://shop.example'), 200)
  t.equal(await status('Host: shop.example:80', 'Origin: https://shop.example'), 403)
  t.equal(await status('Host: shop.example', 'X-Forwarded-Proto: https', 'Origin: http://shop.example'), 403)
  const direct = await start(t, {})
  t.equal(
    (await get(direct.port, '/', ['X-Forwarded-Host: evil.example', 'Origin: https://evil.example'], 'POST')).status,
    403
  )
})

t.test('a WebSocket handshake of another site is refused before the service sees it', async (t) => {
  const service = await startWebSocketService()
  t.teardown(service.close)
  const gateway = await start(t, {}, { services: { any: { instances: [service.url] } } })
  const response = async (...headers: string[]) => {
    const client = connect(gateway.port, handshake('/', headers))
    t.teardown(() => client.socket.destroy())
    return (await client.until('\r\n\r\n')).split(' ')[1]
  }
  t.equal(await response('Origin: https://evil.example', 'Cookie: a=b'), '403')
  t.equal(await response('Origin: http://h', 'Sec-Fetch-Site: cross-site'), '403')
  t.equal(service.requests.length, 0)
  t.equal(await response('Origin: http://h'), '101')
  t.equal(await response(), '101', 'no browser')
})

t.test(
  'shadow mode refuses nothing; a route can switch the concern off; plugins can have it on their own routes',
  async (t) => {
    const service = await startEcho()
    t.teardown(service.close)
    const gateway = await startGateway(
      {
        services: { any: { instances: [service.url] } },
        edge: { csrf: {} },
        routes: [
          { name: 'shadow', match: { path: '/shadow' }, service: 'any', edge: { csrf: { mode: 'shadow' } } },
          { name: 'off', match: { path: '/off' }, service: 'any', edge: { csrf: false } }
        ]
      },
      {
        log: true,
        before: (server) =>
          void server.register(async (own) => {
            own.post('/own', { config: { edge: { csrf: true } } }, () => 'own')
            own.post('/open', () => 'open')
          })
      }
    )
    t.teardown(gateway.close)
    const status = async (path: string) =>
      (await get(gateway.port, path, ['Sec-Fetch-Site: cross-site'], 'POST')).status
    t.equal(await status('/shadow'), 200)
    t.equal(await status('/off'), 200)
    t.equal(await status('/own'), 403)
    t.equal(await status('/open'), 200)
    const text = await gateway.server.metrics.metrics()
    t.match(text, /jingwei_edge_shadow_refusals_total\{concern="csrf",route="shadow"\} 1\n/)
    const line = () => gateway.log.find(({ msg, route }) => msg === 'request' && route === 'shadow')
    await eventually(() => line() !== undefined)
    t.match(line(), { shadow: [{ concern: 'csrf', error: 'JW_CROSS_SITE', reason: 'csrf_site' }] })
  }
)

t.test('explain', async (t) => {
  const example = { target: '/', ip: '127.0.0.1', consumer: null, user: null, paths: undefined as never, date: 0 }
  const explained = (method: string, headers: Record<string, string>) =>
    csrf.explain?.({ edge: { csrf: { sameSite: false, withoutCookies: false, bearer: false } } } as never, {
      ...example,
      method,
      headers
    })
  t.equal(explained('GET', { 'sec-fetch-site': 'cross-site' }), 'allows GET')
  t.equal(explained('POST', { 'sec-fetch-site': 'cross-site' }), 'refuses the request: csrf_site')
  t.equal(explained('POST', { host: 'a', origin: 'http://a' }), 'allows the request')
  const exempting = { sameSite: false, withoutCookies: true, bearer: true }
  const exempt = (headers: Record<string, string>) =>
    csrf.explain?.({ edge: { csrf: exempting } } as never, { method: 'POST', headers } as never)
  const site = { 'sec-fetch-site': 'cross-site' }
  t.match(exempt({ ...site, authorization: 'Bearer x', cookie: 'a=1' }), /^allows the request: a page of another site/)
  t.match(exempt(site), /^allows the request: a page of another site/)
  t.equal(exempt({ ...site, cookie: 'a=1' }), 'refuses the request: csrf_site')
})

t.test('origins that allow too much, or nothing, are faults', async (t) => {
  const faults = (options: object): string[] => {
    try {
      configOf({
        services: { a: { instances: ['http://127.0.0.1:1'] } },
        edge: { csrf: options },
        routes: [{ name: 'a', match: { path: '/' }, service: 'a' }]
      })
      return []
    } catch (error) {
      if (error instanceof ConfigError) return error.faults.map(({ path, message }) => `${path}: ${message}`)
      throw error
    }
  }
  const of = (origin: string) => faults({ trustedOrigins: [origin] })
  t.match(of('*'), [/^edge.csrf.trustedOrigins\[0\]: "\*" would allow pages of any site/])
  t.match(of('null'), [/"null" would allow/])
  t.match(of('app.example.com'), [/write "https:\/\/app.example.com"/])
  t.match(of('https://app.example.com/'), [/an origin has no path/])
  t.match(of('/(a+)+\\b/'), [/not a regular expression/])
  t.match(faults({ additionalOrigins: [] }), [/write "trustedOrigins"/])
  t.match(faults({ trustedOrigins: [] }), [/edge.csrf.trustedOrigins/])
  t.same(of('https://app.example.com'), [])
})
