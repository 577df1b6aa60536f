// A client has one address, in any notation of the proxies in front of the gateway.
import net from 'node:net'
import t from 'tap'
import { canonicalAddress } from '../../../plugins/edge/protocol/client-address.ts'
import { eventually } from '../../helpers/eventually.ts'
import type { Seen } from '../../helpers/gateway.ts'
import { ask, gatewayBefore, get, startEcho } from '../../helpers/gateway.ts'

t.test('spellings of one address are normalised', async (t) => {
  for (const [text, address] of [
    ['192.0.2.1', '192.0.2.1'],
    ['192.0.2.1:50123', '192.0.2.1'],
    ['[192.0.2.1]:50123', '192.0.2.1'],
    ['::ffff:192.0.2.1', '192.0.2.1'],
    ['::FFFF:C000:0201', '192.0.2.1'],
    ['[::ffff:192.0.2.1]:50123', '192.0.2.1'],
    ['2001:DB8::1', '2001:db8::1'],
    ['2001:0db8:0:0:0:0:0:0001', '2001:db8::1'],
    ['[2001:db8::1]', '2001:db8::1'],
    ['[2001:db8::1]:50123', '2001:db8::1'],
    ['fe80::1%eth0', 'fe80::1'],
    ['unknown', 'unknown'],
    ['_hidden', '_hidden'],
    ['[]', '[]'],
    ['192.0.2.1:port', '192.0.2.1:port']
  ] as const) {
    t.equal(canonicalAddress(text), address, text)
  }
})

t.test('limit, log and hash use one address, and the service gets the original header', async (t) => {
  const service = await startEcho()
  t.teardown(service.close)
  const trustProxy = ['127.0.0.1', '10.0.0.0/8']
  const more = { listen: { trustProxy }, edge: { rateLimit: { max: 1, window: '1m' } } }
  for (const [first, ...others] of [
    ['192.0.2.1:1000', '192.0.2.1:1001', '192.0.2.1', '::ffff:192.0.2.1', '192.0.2.1:1002, 10.0.0.1:443'],
    ['[2001:db8::1]:1000', '2001:DB8::1', '2001:db8:0:0:0:0:0:1', '203.0.113.9:1, [2001:db8::1]:1, 10.0.0.1']
  ]) {
    const gateway = await gatewayBefore(t, service.url, more, { log: true })
    const seen = JSON.parse((await get(gateway.port, '/', [`X-Forwarded-For: ${first}`])).body) as Seen
    t.equal(seen.headers['x-forwarded-for'], `${first}, 127.0.0.1`)
    for (const other of others) {
      t.equal((await get(gateway.port, '/', [`X-Forwarded-For: ${other}`])).status, 429, other)
    }
    await eventually(() => gateway.log.filter(({ msg }) => msg === 'request').length > others.length)
    const ips = new Set(gateway.log.filter(({ msg }) => msg === 'request').map(({ ip }) => ip))
    t.strictSame([...ips], [canonicalAddress(first!)])
  }

  const instances = await Promise.all(Array.from({ length: 8 }, startEcho))
  t.teardown(() => Promise.all(instances.map(({ close }) => close())))
  const hashing = await gatewayBefore(t, service.url, {
    listen: { trustProxy },
    services: {
      any: { instances: instances.map(({ url }) => url), mesh: { balance: { policy: 'ring-hash', hashOn: 'ip' } } }
    },
    edge: { host: 'upstream' }
  })
  const hosts = new Set<unknown>()
  for (let port = 1000; port < 1020; port++) {
    hosts.add((await ask(hashing.port, '/', [`X-Forwarded-For: 192.0.2.1:${port}`])).headers.host)
  }
  t.equal(hosts.size, 1)
})

t.test('an untrusted peer cannot name a client address', async (t) => {
  const service = await startEcho()
  t.teardown(service.close)
  const { port } = await gatewayBefore(t, service.url, { edge: { rateLimit: { max: 1, window: '1m' } } })
  t.equal((await get(port, '/', ['X-Forwarded-For: 192.0.2.1:1000'])).status, 200)
  t.equal((await get(port, '/', ['X-Forwarded-For: 192.0.2.2:1000'])).status, 429)
})

t.test('a dual-stack listener logs IPv4 as IPv4, also where no hook runs', async (t) => {
  const service = await startEcho()
  t.teardown(service.close)
  const dual = await gatewayBefore(t, service.url, {}, { log: true, host: '::' })
  await get(dual.port, '/')
  await new Promise<void>((resolve) => {
    net.connect(dual.port, '127.0.0.1').on('close', resolve).resume().write('nonsense\r\n\r\n')
  })
  await eventually(() => dual.log.filter(({ msg }) => msg === 'request').length > 1)
  t.strictSame([...new Set(dual.log.filter(({ msg }) => msg === 'request').map(({ ip }) => ip))], ['127.0.0.1'])
})
