import assert from 'node:assert/strict'
import { test } from 'node:test'
import type { Script } from 'jingwei/testing'
import { testGateway } from 'jingwei/testing'

const config = new URL('../gateway.yaml', import.meta.url)

/** The gateway as it is shipped, before a service `orders` with this script. */
const gatewayBefore = (orders: Script) => testGateway({ config, env: {}, services: { orders } })

const headers = { 'x-tenant': 'tea' }

test('a request reaches the service', async () => {
  await using gateway = await gatewayBefore({ json: [{ id: 7 }] })
  const response = await gateway.inject({ url: '/api/orders?page=1', headers })
  assert.equal(response.statusCode, 200)
  assert.deepEqual(response.json(), [{ id: 7 }])
  const [call] = gateway.calls('orders')
  assert.equal(call?.url, '/orders?page=1')
  assert.equal(call?.headers['x-tenant'], 'tea')
})

test('a request for invoices needs a tenant', async () => {
  await using gateway = await gatewayBefore({ json: [] })
  for (const none of [{}, { 'x-tenant': '' }]) {
    const response = await gateway.inject({ url: '/api/invoices', headers: none })
    assert.equal(response.statusCode, 400)
    assert.equal(response.json().code, 'TENANT_MISSING')
  }
  assert.equal(gateway.calls('orders').length, 0)
})

test('a failed connection is tried again', async () => {
  await using gateway = await gatewayBefore([{ connection: 'refused' }, { status: 503 }, { json: [] }])
  const response = await gateway.inject({ url: '/api/orders', headers })
  assert.equal(response.statusCode, 200)
})

test('100 requests a minute', async () => {
  await using gateway = await gatewayBefore({ json: [] })
  const statusOf = async () => (await gateway.inject({ url: '/api/orders', headers })).statusCode
  for (let i = 0; i < 100; i++) assert.equal(await statusOf(), 200)
  assert.equal(await statusOf(), 429)
  gateway.clock.advance(60_000)
  assert.equal(await statusOf(), 200)
})
