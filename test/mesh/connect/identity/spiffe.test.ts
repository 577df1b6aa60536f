import type { PeerCertificate } from 'node:tls'
import t from 'tap'
import { parseSpiffe, speaksFor } from '../../../../plugins/mesh/connect/identity/spiffe.ts'

const domain = '11111111-2222.consul'
const orders = `spiffe://${domain}/ns/default/dc/dc1/svc/orders`

t.test('SPIFFE IDs of services are parsed, others are refused', async (t) => {
  const id = { trustDomain: domain, namespace: 'default', datacenter: 'dc1', service: 'orders' }
  t.strictSame(parseSpiffe(orders), id)
  t.strictSame(parseSpiffe(orders.replace('11111111-2222.consul', '11111111-2222.CONSUL')), id)
  t.strictSame(parseSpiffe(`spiffe://${domain}/ns/default/dc/dc1/svc/a%20b`), { ...id, service: 'a b' })
  t.strictSame(
    parseSpiffe(`spiffe://${domain}/ap/part/ns/default/dc/dc1/svc/orders`),
    null,
    'an ID of another partition is refused'
  )
  for (const odd of [
    `spiffe://${domain}/agent/client/dc/dc1/id/x`,
    `spiffe://${domain}/gateway/mesh/dc/dc1`,
    `spiffe://${domain}`,
    `spiffe:///ns/default/dc/dc1/svc/orders`,
    `spiffe://user@${domain}/ns/default/dc/dc1/svc/orders`,
    `spiffe://${domain}:443/ns/default/dc/dc1/svc/orders`,
    `${orders}/more`,
    `${orders}?x=1`,
    `${orders}#x`,
    ` ${orders}`,
    `${orders}\n`,
    `https://${domain}/ns/default/dc/dc1/svc/orders`,
    `spiffe://${domain}/ns/default/dc/dc1/svc/%zz`
  ]) {
    t.equal(parseSpiffe(odd), null, odd)
  }
})

t.test('an identity must be valid for the target', async (t) => {
  const target = { service: 'orders', namespace: 'default', trustDomain: domain, datacenters: ['dc1', 'dc2'] }
  const check = (subjectaltname: string | undefined, of: object = {}) =>
    speaksFor('orders', () => ({ ...target, ...of }))('127.0.0.1', { subjectaltname } as unknown as PeerCertificate)
  t.equal(check(`URI:${orders}`), undefined)
  t.equal(check(`DNS:orders.internal, URI:${orders}`), undefined)
  t.equal(check(`URI:${orders.replace('dc1', 'dc2')}`), undefined, 'an ID of a failover datacenter is valid')
  t.equal(check(`URI:${orders}`, { trustDomain: domain.toUpperCase() }), undefined)
  for (const names of [
    undefined,
    '',
    'DNS:orders',
    `DNS:"${orders}"`,
    `URI:${orders.replace('orders', 'users')}`,
    `URI:${orders.replace('orders', 'Orders')}`,
    `URI:${orders.replace('dc1', 'dc3')}`,
    `URI:${orders.replace('default', 'other')}`,
    `URI:${orders.replace(domain, 'other.consul')}`,
    `URI:${orders}, URI:${orders.replace('orders', 'users')}`,
    `DNS:"x, URI:${orders}"`
  ]) {
    const error = check(names) as { code?: string; cause?: Error } | undefined
    t.equal(error?.code, 'JW_UPSTREAM_UNTRUSTED', `${names}`)
    t.match(error?.cause?.message, /expected a certificate for spiffe:/)
  }
  t.ok(check(`URI:${orders}`, { trustDomain: null }), 'no ID is valid before the roots are known')
  t.ok(check(`URI:spiffe://null/ns/default/dc/null/svc/orders`, { trustDomain: null, datacenters: [null] }))
})
