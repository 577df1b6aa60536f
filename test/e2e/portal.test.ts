// slow: starts Chromium
// The page of a portal in a real browser, over HTTPS and HTTP/2.
import t from 'tap'
import { startChromium } from '../helpers/chromium.ts'
import { startGateway, startService } from '../helpers/gateway.ts'
import { selfSigned } from '../helpers/self-signed.ts'

t.setTimeout(120_000)

t.test('a developer reads the page, and its policy lets no script of a document run', async (t) => {
  const operation = {
    summary: 'Orders <img src=x onerror="document.title=1">',
    responses: { 200: { description: 'all of them' } }
  }
  const document = { openapi: '3.1.0', info: { title: 's', version: '1' }, paths: { '/orders': { get: operation } } }
  const service = await startService((_request, response) => void response.end(JSON.stringify(document)))
  t.teardown(service.close)
  const gateway = await startGateway({
    listen: { tls: selfSigned(t), http2: true },
    services: { orders: { instances: [service.url] } },
    routes: [
      { name: 'orders', match: { path: '/orders' }, service: 'orders' },
      {
        name: 'docs',
        match: { path: '/docs' },
        portal: { title: 'The shop', services: { orders: { path: '/openapi.json' } } }
      }
    ]
  })
  t.teardown(gateway.close)
  const tab = await (await (await startChromium(t, ['docs.example'])).profile()).tab()
  await tab.open(`https://docs.example:${gateway.port}/docs`)
  await tab.shows('The shop')
  const text = () => tab.run<string>('document.body.innerText')
  t.match(await text(), /GET\s+\/orders\s+Orders <img/)
  t.equal(await tab.run('document.title'), 'The shop')
  t.equal(
    await tab.run('getComputedStyle(document.querySelector("details")).borderTopStyle'),
    'solid',
    'its style is in force'
  )
  await tab.click('summary')
  await tab.shows('all of them')
  t.match(await text(), 'The service did not respond in time.')
})
