/** Configurations that users of other gateways keep, which need API keys, passwords and consumers. */
import { createHash } from 'node:crypto'
import t from 'tap'
import { hashOf } from '../../../plugins/edge/concerns/basic-auth/hashes.ts'
import { anyClient } from '../../helpers/edge/asking-client.ts'
import type { Seen } from '../../helpers/gateway.ts'
import { startEcho, startGateway } from '../../helpers/gateway.ts'

const sha256 = (key: string) => `sha256:${createHash('sha256').update(key).digest('hex')}`

t.test('K02, an interbank switch on Kong: key-auth, consumers, CORS, prefixes taken off', async (t) => {
  const service = await startEcho()
  t.teardown(service.close)
  const { port, close } = await startGateway(`
admin: false
edge:
  keyAuth: { header: apikey }
  cors: { origin: ["https://bank.example"], methods: [GET, POST], allowedHeaders: [apikey, content-type] }
services: { transfers: { instances: ["${service.url}"] } }
routes:
  - { name: quotes, match: { path: /switch/quotes, methods: [GET, POST] }, service: transfers, path: { strip: /switch } }
  - { name: transfers, match: { path: /switch/transfers, methods: [POST] }, service: transfers, path: { strip: /switch } }
consumers:
  - { name: bank-a, keyAuth: { hash: "${sha256('a')}" } }
  - { name: bank-b, keyAuth: [{ hash: "${sha256('b')}" }, { hash: "${sha256('b2')}" }] }
`)
  t.teardown(close)
  const { ask } = anyClient(t, 'HTTP/1.1', port)
  const post = await ask('/switch/transfers?x=1', { method: 'POST', headers: { apikey: 'b2' }, body: '{}' })
  const seen = JSON.parse(post.body.toString()) as Seen
  t.match(seen, { url: '/transfers?x=1', body: '{}' })
  t.equal(seen.headers.apikey, undefined)
  t.equal((await ask('/switch/quotes')).status, 401)
  const preflight = {
    origin: 'https://bank.example',
    'access-control-request-method': 'POST',
    'access-control-request-headers': 'apikey'
  }
  const { status, headers } = await ask('/switch/quotes', { method: 'OPTIONS', headers: preflight })
  t.equal(status, 204, 'a preflight needs no key')
  t.match(headers['access-control-allow-headers'], /apikey/)
})

t.test('A09, a game shop on APISIX: basic-auth and a consumer', async (t) => {
  const service = await startEcho()
  t.teardown(service.close)
  const { port, close } = await startGateway(`
admin: false
services: { shop: { instances: ["${service.url}"] } }
routes:
  - { name: shop, match: { path: /shop }, service: shop }
  - name: stock
    match: { path: /shop/stock }
    service: shop
    edge: { basicAuth: {}, authentication: { forward: { id: x-consumer-username } } }
consumers: [{ name: keeper, basicAuth: { username: keeper, hash: "${await hashOf('s3cret')}" } }]
`)
  t.teardown(close)
  const { ask } = anyClient(t, 'HTTP/1.1', port)
  const authorization = `Basic ${Buffer.from('keeper:s3cret').toString('base64')}`
  t.equal((await ask('/shop/games')).status, 200)
  t.equal((await ask('/shop/stock/7')).status, 401)
  const { body } = await ask('/shop/stock/7', { headers: { authorization } })
  const { headers } = JSON.parse(body.toString()) as Seen
  t.equal(headers['x-consumer-username'], 'keeper')
  t.equal(headers.authorization, undefined)
})
