// Deprecated routes.
import t from 'tap'
import { anyClient, listenFor, protocols } from '../../helpers/edge/asking-client.ts'
import { configOf, startGateway, startService } from '../../helpers/gateway.ts'

const fields = {
  deprecation: '@1767225600',
  sunset: 'Fri, 01 Jan 2100 00:00:00 GMT',
  link: '</v2>; rel="successor-version", <https://a.example/docs>; rel="deprecation"'
}
const options = { at: '2026-01-01', sunset: '2100-01-01', successor: '/v2', link: 'https://a.example/docs' }

for (const protocol of protocols) {
  t.test(`all responses of a deprecated route tell of it over ${protocol}`, async (t) => {
    const service = await startService((request, response) => {
      const link = request.url === '/linked' ? { link: '</a>; rel="next"' } : {}
      response.writeHead(200, { deprecation: '@1', sunset: 'never', ...link }).end('body')
    })
    t.teardown(service.close)
    const past = { ...options, sunset: '2026-02-01T00:00:00+01:00', afterSunset: 'refuse' }
    const route = (name: string, edge: object, more: object = {}) => ({
      name,
      match: { path: `/${name}` },
      service: 'any',
      edge: { deprecation: options, ...edge },
      ...more
    })
    const gateway = await startGateway({
      listen: listenFor(t, protocol),
      services: { any: { instances: [service.url] }, down: { instances: ['http://127.0.0.1:9'] } },
      routes: [
        route('good', {}),
        route('linked', {}),
        route('replied', { responsePath: 'reply' }),
        route('refused', { ipFilter: { deny: ['0.0.0.0/0'] } }),
        route('down', {}, { service: 'down' }),
        route('gone', { deprecation: past }),
        route('shadow', { deprecation: { ...past, mode: 'shadow' } }),
        route('current', { deprecation: false })
      ]
    })
    t.teardown(gateway.close)
    const { ask } = anyClient(t, protocol, gateway.port)
    t.match(await ask('/good'), { status: 200, headers: fields, body: Buffer.from('body'), isWhole: true })
    t.match(await ask('/good', { method: 'HEAD' }), { status: 200, headers: fields })
    t.match(await ask('/replied'), { status: 200, headers: fields })
    t.match(await ask('/refused'), { status: 403, headers: fields })
    t.match(await ask('/down'), { status: 502, headers: fields })
    const linked = [(await ask('/linked')).headers.link].flat().join(', ')
    t.ok(linked.includes('</a>; rel="next"') && linked.includes(fields.link), linked)
    const gone = await ask('/gone')
    t.match(gone, { status: 410, headers: { sunset: 'Sat, 31 Jan 2026 23:00:00 GMT', link: fields.link } })
    t.match(JSON.parse(gone.body.toString()), { code: 'JW_SUNSET' })
    t.match(await ask('/shadow'), { status: 200, headers: { sunset: 'Sat, 31 Jan 2026 23:00:00 GMT' } })
    t.match((await ask('/current')).headers, { deprecation: '@1', sunset: 'never' }, 'those of the service')
    const metrics = await gateway.server.metrics.metrics()
    t.match(metrics, 'jingwei_edge_deprecated_requests_total{route="good"} 2')
    t.match(metrics, 'jingwei_edge_shadow_refusals_total{concern="deprecation",route="shadow"} 1')
    t.match(metrics, 'jingwei_edge_refusals_total{concern="deprecation",route="gone",code="JW_SUNSET"} 1')
  })
}

t.test('faults of options', async (t) => {
  const faultOf = (deprecation: object) => {
    try {
      configOf({
        services: { any: { instances: ['http://127.0.0.1:9'] } },
        routes: [{ name: 'a', match: { path: '/' }, service: 'any', edge: { deprecation } }]
      })
      return 'none'
    } catch (error) {
      return (error as Error).message.split('\n')[0]!
    }
  }
  t.equal(faultOf(options), 'none')
  t.match(faultOf({}), 'deprecation: has nothing to tell')
  t.match(faultOf({ at: '2026-02-30' }), 'deprecation.at: no such time')
  t.match(faultOf({ at: 'tomorrow' }), 'deprecation.at: ')
  t.match(faultOf({ at: '2026-02-01', sunset: '2026-01-01' }), 'deprecation.sunset: is before "at"')
  t.match(
    faultOf({ at: '2026-02-01', afterSunset: 'refuse' }),
    'deprecation.afterSunset: has no effect without "sunset"'
  )
  t.match(faultOf({ successor: '/a>\r\nx' }), 'deprecation.successor: ')
})
