/** A header of 15 KB costs, with any content, at most ten times the CPU time of an ordinary request. */
import { fork } from 'node:child_process'
import { once } from 'node:events'
import type { Test } from 'tap'
import t from 'tap'
import type { Order, Report } from '../helpers/e2e/other-side.ts'
import { startGateway } from '../helpers/gateway.ts'

const most = 10
const size = 15_000

const values: Readonly<Record<string, string>> = {
  letters: 'x', slashes: '/', blanks: ' ', tabs: '\t', commas: ',', 'spaced commas': ' ,', items: 'a,', semicolons: ';',
  'spaced semicolons': '; ', equals: '=', pairs: 'a=b;', arguments: 'a=b,', quotes: '"', backslashes: '\\', colons: ':',
  digits: '1', dots: '.', addresses: '10.0.0.1, ', 'IPv6 addresses': '[::1]:80, ', encoded: '%2', broken: '%zz&',
  parentheses: '(', protocols: 'websocket, '
} // biome-ignore format: a table

const requestHeaders = [
  'X-Forwarded-Prefix', 'X-Forwarded-Host', 'X-Forwarded-For', 'X-Forwarded-Proto', 'X-Forwarded-Port', 'Forwarded',
  'X-Real-Ip', 'Host', 'Cookie', 'Connection', 'Keep-Alive', 'Trailer', 'TE', 'Via', 'Cache-Control', 'Origin', 'Accept',
  'Accept-Encoding', 'Content-Type', 'User-Agent', 'X-Request-Id', 'X-Limit', 'Authorization', 'If-None-Match', 'X_Any'
] // biome-ignore format: a list

const responseHeaders = [
  'Vary', 'Cache-Control', 'Connection', 'Keep-Alive', 'Trailer', 'Set-Cookie', 'Location', 'Content-Location',
  'Retry-After', 'Via', 'Age', 'Date', 'ETag', 'Content-Type', 'Cache-Status', 'Upgrade', 'X-Any'
] // biome-ignore format: a list

/** Configuration with every concern that reads headers, each on a route. */
const config = (service: string) => ({
  listen: { trustProxy: ['127.0.0.1', '10.0.0.0/8'], limits: { headers: '32kb', url: '16kb' } },
  edge: {
    requestId: { trustClient: true },
    cors: { origin: ['https://a.example'] },
    rateLimit: { max: 1_000_000, window: '1h', by: 'header:x-limit' }
  },
  mesh: { retry: { on: [503] } },
  services: {
    shared: {
      instances: [service],
      mesh: {
        collapse: true,
        fallback: [{ stale: {} }],
        balance: { policy: 'maglev', hashOn: 'cookie:user', tableSize: 101 }
      }
    },
    plain: { instances: [service], mesh: { balance: { policy: 'maglev', hashOn: 'query:user', tableSize: 101 } } }
  },
  routes: [
    { name: 'shared', match: { path: '/a' }, service: 'shared', path: { strip: '/a' } },
    {
      name: 'split',
      match: { path: '/b' },
      split: [
        { service: 'shared', weight: 1, match: { cookies: { user: '1' } } },
        { service: 'plain', weight: 1 }
      ],
      stickOn: 'cookie:other'
    },
    { name: 'tokens', match: { path: '/c' }, service: 'plain', edge: { jwt: { secret: 's'.repeat(32) } } }
  ]
})

async function measured(t: Test) {
  const peer = fork(`${import.meta.dirname}/../helpers/e2e/other-side.ts`)
  t.teardown(() => peer.disconnect())
  const report = async () => (await once(peer, 'message'))[0] as Report
  const send = (order: Order) => peer.send(order)
  const started = await report()
  if (!('port' in started)) throw new Error('no port')
  const gateway = await startGateway(config(`http://127.0.0.1:${started.port}`))
  t.teardown(gateway.close)

  /** CPU time of a request, in microseconds. */
  const cost = async (path: string, fields: string, more: string, times: number): Promise<number> => {
    send({ response: `HTTP/1.1 200 OK\r\n${more}content-length: 2\r\n\r\nok` })
    const host = fields.startsWith('Host:') ? '' : 'Host: h\r\n'
    const before = process.cpuUsage()
    send({ port: gateway.port, request: `GET ${path} HTTP/1.1\r\n${host}${fields}\r\n`, times })
    const done = await report()
    const { user, system } = process.cpuUsage(before)
    if (!('count' in done) || done.count === 0) throw new Error(`no response for ${path} ${fields.slice(0, 50)}`)
    // A refused request closes its connection, so its cost includes a new connection for a single request.
    return (user + system) / Math.max(done.count, 10)
  }
  for (const path of ['/a', '/b', '/c']) await cost(path, '', '', 1000)
  const ordinary = Math.min(await cost('/a', '', '', 500), await cost('/b', '', '', 500))

  /** Returns the least cost of one such request, in ordinary requests. */
  return async (path: string, fields: string, more = ''): Promise<number> => {
    let least = Number.POSITIVE_INFINITY
    for (let i = 0; i < 4 && least > most; i++) least = Math.min(least, (await cost(path, fields, more, 20)) / ordinary)
    return least
  }
}

t.test('the cost of headers of clients is bounded', async (t) => {
  const ratio = await measured(t)
  for (const name of requestHeaders) {
    for (const [kind, part] of Object.entries(values)) {
      const value = `x${part.repeat(size / part.length)}x`
      const path = name === 'Cookie' ? '/b' : name === 'Authorization' ? '/c' : '/a'
      const scheme = name === 'Authorization' ? 'Bearer ' : ''
      const found = await ratio(path, `${name}: ${scheme}${value}\r\n`, 'Location: http://other/x\r\n')
      if (found > most) t.fail(`${name} of ${kind} costs ${found} requests`)
    }
    t.pass(name)
  }
  for (const [kind, part] of Object.entries(values)) {
    if (/\s/.test(part)) continue
    const found = await ratio(`/b/?${part.repeat(size / part.length)}`, '')
    t.ok(found <= most, `a query of ${kind} costs ${found} requests`)
  }
})

t.test('the cost of headers of services is bounded', async (t) => {
  const ratio = await measured(t)
  const hosts = `X-Forwarded-Host: ${'h, '.repeat(5000)}\r\n`
  for (const name of responseHeaders) {
    for (const [kind, part] of Object.entries(values)) {
      const found = await ratio(
        '/a',
        name === 'Location' ? hosts : '',
        `${name}: ${part.repeat(size / part.length)}\r\n`
      )
      if (found > most) t.fail(`${name} of ${kind} costs ${found} requests`)
    }
    t.pass(name)
  }
  const fields = Array.from({ length: 900 }, (_, i) => `X-${i}: 1\r\n`).join('')
  const vary = `Vary: ${Array.from({ length: 2000 }, (_, i) => `x-${i}`).join()}\r\n`
  for (const more of [vary, `${vary}Cache-Control: public\r\n`]) {
    const [alone, found] = [await ratio('/a', fields), await ratio('/a', fields, more)]
    t.ok(found <= alone + most, `Vary and 900 fields cost ${found} requests, 900 fields ${alone}`)
  }
})
