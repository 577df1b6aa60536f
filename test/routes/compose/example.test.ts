// The example config/examples/compose.yaml, with its own ports replaced by those of real services.
import { readFileSync } from 'node:fs'
import { join } from 'node:path'
import type { Test } from 'tap'
import t from 'tap'
import { startGateway } from '../../helpers/gateway.ts'
import { json, startServices } from './services.ts'

const text = readFileSync(join(import.meta.dirname, '../../../config/examples/compose.yaml'), 'utf8')

async function shop(t: Test) {
  const services = await startServices(t, {
    users: (request, response) => {
      if (request.url === '/users/7') {
        json(
          response,
          { id: 7, name: 'Ada', password: 'x', address: { city: 'Turin', zip: '10100' } },
          { 'cache-control': 'max-age=60' }
        )
      } else json(response, { error: 'no such user' }, {}, 404)
    },
    orders: async (request, response) => {
      if (request.method === 'POST') {
        json(response, { id: 'o9', received: await bodyOf(request) }, {}, 201)
        return
      }
      const items = [
        { id: 'o1', sku: 'p1', internal: true },
        { id: 'o2', sku: 'p 2', internal: true }
      ]
      json(
        response,
        { data: { items }, url: request.url },
        { 'cache-control': 'max-age=30', age: '10', vary: 'Accept' }
      )
    },
    catalog: (request, response) => {
      const { searchParams } = new URL(request.url!, 'http://a')
      const products = searchParams
        .getAll('sku')
        .map((sku) => ({ sku, cost: 3, language: request.headers['accept-language'] }))
      json(response, products, { 'cache-control': 'max-age=50' })
    },
    news: (_request, response) => json(response, ['rain'], { 'cache-control': 'max-age=90' })
  })
  const ports: Record<string, string> = { 9101: 'users', 9102: 'orders', 9103: 'catalog', 9104: 'news' }
  const config = text.replace(/http:\/\/127\.0\.0\.1:(910\d)/g, (_all, port: string) => services[ports[port]!]!.url)
  const gateway = await startGateway(`admin: false\n${config.replace('port: 8080', 'port: 0')}`)
  t.teardown(gateway.close)
  return { gateway, services }
}

async function bodyOf(request: AsyncIterable<Buffer>): Promise<unknown> {
  const chunks: Buffer[] = []
  for await (const chunk of request) chunks.push(chunk)
  return JSON.parse(Buffer.concat(chunks).toString())
}

t.test('one page of four services', async (t) => {
  const { gateway } = await shop(t)
  const response = await fetch(`${gateway.url}/shop/7`, { headers: { 'accept-language': 'it' } })
  t.equal(response.status, 200)
  t.strictSame(await response.json(), {
    id: 7,
    name: 'Ada',
    city: 'Turin',
    orders: [
      { sku: 'p1', no: 'o1' },
      { sku: 'p 2', no: 'o2' }
    ],
    products: [
      { sku: 'p1', language: 'it' },
      { sku: 'p 2', language: 'it' }
    ],
    news: ['rain']
  })
  t.equal(response.headers.get('x-jingwei-complete'), 'true')
  t.equal(response.headers.get('content-type'), 'application/json; charset=utf-8')
  t.equal(response.headers.get('cache-control'), 'max-age=20', 'the shortest remaining lifetime')
  t.equal(response.headers.get('vary'), 'accept, accept-language')
  const etag = response.headers.get('etag')!
  t.match(etag, /^W\/"/)
  const again = await fetch(`${gateway.url}/shop/7`, { headers: { 'accept-language': 'it', 'if-none-match': etag } })
  t.equal(again.status, 304)
  t.equal(await again.text(), '')
})

t.test('without the news', async (t) => {
  const { gateway, services } = await shop(t)
  await services.news!.close()
  const response = await fetch(`${gateway.url}/shop/7`)
  const page = (await response.json()) as Record<string, unknown>
  t.equal(response.status, 200)
  t.strictSame(page.news, [])
  t.equal(page.notice, 'Some parts of this page are missing.')
  t.equal(response.headers.get('x-jingwei-complete'), 'false')
  t.equal(response.headers.get('x-jingwei-missing'), 'news')
  t.equal(response.headers.get('cache-control'), 'no-store')
})

t.test('an unknown user', async (t) => {
  const { gateway } = await shop(t)
  const response = await fetch(`${gateway.url}/shop/8`)
  t.equal(response.status, 404)
  const body = (await response.json()) as Record<string, unknown>
  t.equal(body.code, 'JW_COMPOSE_STATUS')
  t.notMatch(JSON.stringify(body), 'no such user')
})

t.test('a sequence with a body', async (t) => {
  const { gateway } = await shop(t)
  const order = { customer: 7, items: [{ sku: 'p1' }] }
  const response = await fetch(`${gateway.url}/shop/orders`, {
    method: 'POST',
    headers: { 'content-type': 'application/json' },
    body: JSON.stringify(order)
  })
  t.equal(response.status, 201)
  t.equal(response.headers.get('location'), '/shop/orders/o9')
  t.strictSame(await response.json(), { id: 'o9', received: { ...order, note: 'by web' } })
})
