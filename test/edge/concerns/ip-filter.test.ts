// slow: takes about 10 s
/** `edge.ipFilter`: allow and deny lists of addresses, over each protocol, in every spelling, and from watched files. */
import { mkdtempSync, renameSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import type { Test } from 'tap'
import t from 'tap'
import { ConfigError } from '../../../config/load.ts'
import { anyClient, listenFor, protocols } from '../../helpers/edge/asking-client.ts'
import { handshake, startWebSocketService } from '../../helpers/edge/websocket.ts'
import { eventually } from '../../helpers/eventually.ts'
import { configOf, connect, get, startEcho, startGateway } from '../../helpers/gateway.ts'
import { ask as askSocket, drain, running } from '../../helpers/listeners.ts'

const trustProxy = ['127.0.0.1', '10.0.0.0/8']

async function start(t: Test, ipFilter: object | false, more: object = {}) {
  const service = await startEcho()
  t.teardown(service.close)
  const gateway = await startGateway(
    {
      listen: { trustProxy },
      services: { any: { instances: [service.url] } },
      edge: { ipFilter },
      routes: [{ name: 'all', match: { path: '/all' }, service: 'any' }],
      ...more
    },
    { log: true }
  )
  t.teardown(gateway.close)
  const from = (address: string, path = '/all', headers: string[] = [], method = 'GET') =>
    get(gateway.port, path, [`X-Forwarded-For: ${address}`, ...headers], method)
  const lastLine = async (count: number) => {
    const lines = () => gateway.log.filter(({ msg }) => msg === 'request')
    await eventually(() => lines().length >= count)
    return lines()[count - 1]!
  }
  return { ...gateway, from, lastLine }
}

for (const protocol of protocols) {
  t.test(`over ${protocol}, denied and other addresses than the allowed ones are refused`, async (t) => {
    const gateway = await start(
      t,
      { allow: ['192.0.2.0/24', '2001:db8::/32'], deny: ['192.0.2.128/25', '2001:db8:bad::/48'] },
      { listen: { trustProxy, ...listenFor(t, protocol) } }
    )
    const { ask } = anyClient(t, protocol, gateway.port)
    let count = 0
    for (const [address, reason] of [
      ['192.0.2.1', null],
      ['192.0.2.200', 'ip_denied'],
      ['198.51.100.1', 'ip_not_allowed'],
      ['2001:db8::1', null],
      ['2001:db8:bad::1', 'ip_denied'],
      ['2001:db9::1', 'ip_not_allowed'],
      ['unknown', 'ip_unknown']
    ] as const) {
      const method = count % 2 === 0 ? 'GET' : 'POST'
      const body = method === 'POST' ? { body: 'x'.repeat(1000) } : {}
      const received = await ask('/all', { method, headers: { 'x-forwarded-for': address }, ...body })
      t.equal(received.status, reason === null ? 200 : 403, address)
      t.ok(received.isWhole, address)
      const error = reason === null ? undefined : 'JW_ADDRESS_DENIED'
      if (reason !== null) t.equal(JSON.parse(received.body.toString()).code, error)
      const { reason: logged, error: code } = await gateway.lastLine(++count)
      t.strictSame([logged, code], [reason ?? undefined, error], address)
    }
  })
}

t.test('a list has an address in all its spellings, behind all trusted proxies', async (t) => {
  const { from } = await start(t, { deny: ['192.0.2.1', '2001:db8::1'] })
  for (const denied of [
    '192.0.2.1', '192.0.2.1:4711', '::ffff:192.0.2.1', '[::FFFF:C000:0201]:80', '0:0:0:0:0:ffff:192.0.2.1', '192.0.2.1, 10.0.0.1',
    '203.0.113.9, 192.0.2.1', '203.0.113.9, 192.0.2.1:80, 10.9.9.9:443', '2001:db8::1', '2001:DB8:0::0001', '[2001:db8::1]',
    '[2001:db8:0:0:0:0:0:1]:443', '2001:db8::0.0.0.1'
  ]) t.equal((await from(denied)).status, 403, denied) // biome-ignore format: a list
  for (const allowed of ['192.0.2.2', '192.0.2.1, 192.0.2.2', '2001:db8::2', '::192.0.2.1']) {
    t.equal((await from(allowed)).status, 200, allowed)
  }
  for (const unreadable of ['192.0.2', '192.0.2.01', '0300.0.2.1', '3221225985', '_hidden', 'a.example']) {
    t.equal((await from(unreadable)).status, 403, `${unreadable} cannot be read, so it is refused`)
  }
})

/** Concerns that would add headers to responses, or send other bodies. */
const telling = {
  deprecation: { at: '2020-01-01', sunset: '2020-01-02', link: '/docs' },
  errorPages: { pages: { default: { text: 'the page of the route' } } },
  maintenance: { body: 'down' },
  userAgent: { allow: ['none'] },
  csrf: {},
  securityHeaders: true,
  headers: { response: { set: { 'x-own': '1' } } }
}

t.test('a hidden route with other concerns looks like a path without a route', async (t) => {
  const edge = { ipFilter: { allow: ['192.0.2.1'], status: 404 }, ...telling }
  const { from } = await start(t, false, {
    edge: { errorPages: { pages: { default: { text: '{{status}} {{code}}' } } } },
    routes: [{ name: 'hidden', match: { path: '/hidden' }, service: 'any', edge }]
  })
  const fields = ['Origin: https://evil.example', 'Sec-Fetch-Site: cross-site', 'User-Agent: a']
  for (const method of ['GET', 'POST', 'OPTIONS']) {
    const shapeOf = async (path: string) => {
      const { status, headers, body } = await from('192.0.2.9', path, fields, method)
      return { status, body, names: Object.keys(headers).sort() }
    }
    t.strictSame(await shapeOf('/hidden'), await shapeOf('/nothing'), method)
  }
  const { headers } = await from('192.0.2.1', '/hidden')
  t.match(headers, { deprecation: /^@/, 'x-own': '1', 'x-frame-options': 'SAMEORIGIN' }, 'for others it is there')
})

t.test('a hidden route looks like a path without a route, for each method and with CORS', async (t) => {
  const hidden = { match: { path: '/hidden', methods: ['GET'] }, service: 'any' }
  const ipFilter = { allow: ['192.0.2.1'], status: 404 }
  const shadow = { ...ipFilter, mode: 'shadow' }
  const { from } = await start(t, false, {
    edge: { cors: { origin: 'https://a.example' } },
    routes: [
      { ...hidden, name: 'hidden', edge: { ipFilter } },
      { ...hidden, name: 'shadow', match: { ...hidden.match, path: '/shadow' }, edge: { ipFilter: shadow } }
    ]
  })
  const shape = async (address: string, path: string, method: string, headers: string[]) => {
    const response = await from(address, path, headers, method)
    const { status, body } = response
    const { code, message } = body === '' ? { code: '', message: '' } : JSON.parse(body)
    const names = Object.keys(response.headers).sort()
    return { status, code, message, names }
  }
  const origin = 'Origin: https://a.example'
  for (const method of ['GET', 'HEAD', 'POST', 'OPTIONS', 'DELETE']) {
    for (const headers of [[], [origin], [origin, 'Access-Control-Request-Method: GET']]) {
      const none = await shape('192.0.2.9', '/nothing', method, headers)
      t.equal(none.status, 404)
      t.strictSame(await shape('192.0.2.9', '/hidden', method, headers), none, `${method} ${headers}`)
      // Refused before the addresses are compared.
      for (const rest of [';x', '?a=%zz', '/%2e%2e']) {
        const noneSuch = await shape('192.0.2.9', `/nothing${rest}`, method, headers)
        t.strictSame(
          await shape('192.0.2.9', `/hidden${rest}`, method, headers),
          noneSuch,
          `${method} ${rest} ${headers}`
        )
      }
    }
  }
  for (const [address, path] of [
    ['192.0.2.1', '/hidden'],
    ['192.0.2.9', '/shadow']
  ] as const) {
    const { status, headers } = await from(address, path, [], 'POST')
    t.match({ status, headers }, { status: 405, headers: { allow: 'GET, HEAD' } }, path)
  }
})

t.test('only trusted proxies can forward an address, and `by: peer` ignores what they forward', async (t) => {
  const untrusted = await start(t, { allow: ['192.0.2.1'] }, { listen: {} })
  t.equal((await untrusted.from('192.0.2.1')).status, 403)
  const local = await start(t, { allow: ['127.0.0.0/8'] }, { listen: {} })
  t.equal((await local.from('192.0.2.1')).status, 200)
  const peer = await start(t, { by: 'peer', deny: ['192.0.2.1'], allow: ['127.0.0.1'] })
  t.equal((await peer.from('192.0.2.1')).status, 200)
  t.equal((await peer.from('unknown')).status, 200)
  const client = await start(t, { by: 'client', deny: ['192.0.2.1'] })
  t.equal((await client.from('192.0.2.1')).status, 403)
})

t.test('a dual-stack listener reports IPv4 peers as IPv4-mapped: they are IPv4 addresses', async (t) => {
  const service = await startEcho()
  t.teardown(service.close)
  const config = {
    services: { any: { instances: [service.url] } },
    edge: { ipFilter: { deny: ['127.0.0.0/8'] } },
    routes: [
      { name: 'denied', match: { path: '/denied' }, service: 'any' },
      { name: 'v6', match: { path: '/v6' }, service: 'any', edge: { ipFilter: { allow: ['::/0'], by: 'peer' } } },
      { name: 'v4', match: { path: '/v4' }, service: 'any', edge: { ipFilter: { allow: ['127.0.0.1'], by: 'peer' } } }
    ]
  }
  const gateway = await startGateway(config, { host: '::' })
  t.teardown(gateway.close)
  const status = async (path: string) => (await get(gateway.port, path)).status
  t.strictSame([await status('/denied'), await status('/v6'), await status('/v4')], [403, 403, 200])
})

t.test('refusals come before authentication, rate limits and responses to preflights', async (t) => {
  const edge = {
    ipFilter: { deny: ['192.0.2.1'] },
    jwt: { secret: 'a secret that is long enough, for tests' },
    rateLimit: { max: 2, window: '1h', by: 'ip' },
    cors: { origin: ['https://app.example'] }
  }
  const { from } = await start(t, false, { edge })
  const origin = 'Origin: https://app.example'
  for (let i = 0; i < 4; i++) t.equal((await from('192.0.2.1')).status, 403)
  const preflight = [origin, 'Access-Control-Request-Method: GET']
  t.equal((await from('192.0.2.1', '/all', preflight, 'OPTIONS')).status, 403)
  t.equal((await from('192.0.2.2', '/all', preflight, 'OPTIONS')).status, 204)
  t.equal((await from('192.0.2.2')).status, 401)
  const readable = await from('192.0.2.1', '/all', [origin])
  t.equal(readable.headers['access-control-allow-origin'], 'https://app.example', 'scripts can read the refusal')
})

t.test('a handshake of a WebSocket is refused', async (t) => {
  const service = await startWebSocketService()
  t.teardown(service.close)
  const { port } = await start(t, { deny: ['192.0.2.1'] }, { services: { any: { instances: [service.url] } } })
  const refused = connect(port, handshake('/all', ['X-Forwarded-For: 192.0.2.1']))
  t.match(await refused.until('JW_ADDRESS_DENIED'), /^HTTP\/1.1 403 /)
  refused.socket.destroy()
  const opened = connect(port, handshake('/all', ['X-Forwarded-For: 192.0.2.2']))
  t.match(await opened.until('\r\n\r\n'), /^HTTP\/1.1 101 /)
  opened.socket.destroy()
  t.equal(service.requests.length, 1)
})

t.test('another status; 404 is the response for a path without a route', async (t) => {
  const status = async (status: number) => (await start(t, { deny: ['192.0.2.1'], status })).from
  t.equal((await (await status(401))('192.0.2.1')).status, 401)
  const from = await status(404)
  const withoutIds = ({ lines, body }: Awaited<ReturnType<typeof from>>) =>
    [...lines.filter((line) => !/^(date|x-request-id)/i.test(line)), body.replace(/"requestId":"[^"]+"/, '')].join('\n')
  t.equal(withoutIds(await from('192.0.2.1')), withoutIds(await from('192.0.2.1', '/nowhere')))
})

t.test('shadow mode counts and lets the request pass', async (t) => {
  const gateway = await start(t, { deny: ['192.0.2.1'], mode: 'shadow' })
  t.equal((await gateway.from('192.0.2.1')).status, 200)
  const shadow = [{ concern: 'ip-filter', error: 'JW_ADDRESS_DENIED', reason: 'ip_denied' }]
  t.strictSame((await gateway.lastLine(1)).shadow, shadow)
  t.match(
    await gateway.server.metrics.metrics(),
    'jingwei_edge_shadow_refusals_total{concern="ip-filter",route="all"} 1'
  )
})

t.test('own routes of plugins are filtered if they ask for it', async (t) => {
  const service = await startEcho()
  t.teardown(service.close)
  const gateway = await startGateway(
    {
      services: { any: { instances: [service.url] } },
      edge: { ipFilter: { deny: ['127.0.0.1'] } },
      routes: [{ name: 'all', match: { path: '/' }, service: 'any', edge: { ipFilter: false } }]
    },
    {
      before: (server) =>
        void server.register(async (own) => {
          own.get('/asked', { config: { edge: { ipFilter: true } } }, async () => 'asked')
          own.get('/open', async () => 'open')
        })
    }
  )
  t.teardown(gateway.close)
  const status = async (path: string) => (await get(gateway.port, path)).status
  t.strictSame([await status('/asked'), await status('/open'), await status('/x')], [403, 200, 200])
})

t.test('at a Unix socket, requests without a forwarded address are those of `unix`', async (t) => {
  const folder = mkdtempSync(join(tmpdir(), 'jingwei-ip-'))
  t.teardown(() => rmSync(folder, { recursive: true, force: true }))
  const service = await startEcho()
  t.teardown(service.close)
  const route = (name: string, ipFilter: object) => ({
    name,
    match: { path: `/${name}` },
    service: 'any',
    edge: { ipFilter }
  })
  await running(t, folder, {
    listen: [
      { name: 'public', host: '127.0.0.1', port: 0, drain },
      { name: 'local', path: 'gateway.sock', trustProxy: ['unix'] }
    ],
    services: { any: { instances: [service.url] } },
    routes: [
      route('allowed', { allow: ['192.0.2.1', 'unix'] }),
      route('others', { allow: ['192.0.2.1'] }),
      route('denied', { deny: ['unix'] }),
      route('blocked', { deny: ['192.0.2.1'] }),
      route('peer', { allow: ['unix'], by: 'peer' })
    ]
  })
  const socketPath = join(folder, 'gateway.sock')
  const status = async (path: string, address?: string) =>
    (await askSocket({ socketPath, path, ...(address !== undefined && { headers: { 'x-forwarded-for': address } }) }))
      .status
  for (const [path, none, listed, unlisted] of [
    ['/allowed', 200, 200, 403],
    ['/others', 403, 200, 403],
    ['/denied', 403, 200, 200],
    ['/blocked', 200, 403, 200],
    ['/peer', 200, 200, 200]
  ] as const) {
    t.equal(await status(path), none, path)
    t.equal(await status(path, '192.0.2.1'), listed, path)
    t.equal(await status(path, '192.0.2.2'), unlisted, path)
    t.equal(await status(path, 'unknown'), path === '/peer' ? 200 : 403, path)
  }
})

t.test('lists from files are read again when they change; a malformed one is not used', async (t) => {
  const folder = mkdtempSync(join(tmpdir(), 'jingwei-ip-'))
  t.teardown(() => rmSync(folder, { recursive: true, force: true }))
  const [allowFile, denyFile] = [join(folder, 'allowed.txt'), join(folder, 'denied.txt')]
  writeFileSync(allowFile, '# the office\r\n192.0.2.0/24 # and its printers\r\n\r\n')
  writeFileSync(denyFile, '')
  const { from, log } = await start(t, { allow: ['198.51.100.1'], allowFile, denyFile })
  const statuses = async () =>
    Promise.all(['192.0.2.1', '198.51.100.1', '203.0.113.1'].map(async (address) => (await from(address)).status))
  t.strictSame(await statuses(), [200, 200, 403])
  const replace = (text: string) => {
    writeFileSync(`${denyFile}.new`, text)
    renameSync(`${denyFile}.new`, denyFile)
  }
  replace('192.0.2.1\n')
  await eventually(async () => (await from('192.0.2.1')).status === 403)
  replace('192.0.2.1\n192.0.2.2/24\n')
  const errors = () => log.filter(({ level }) => level === 50)
  await eventually(() => errors().length > 0)
  t.match(errors()[0], {
    msg: 'cannot read a list of addresses: the last one stays in use',
    file: denyFile,
    err: { message: new RegExp(`${denyFile}: line 2: "192.0.2.2/24" is an address within a network`) }
  })
  t.strictSame(await statuses(), [403, 200, 403])
  replace('203.0.113.0/24\n')
  await eventually(async () => (await from('192.0.2.1')).status === 200)
})

t.test('faults name the entry and the way to mend it', async (t) => {
  const folder = mkdtempSync(join(tmpdir(), 'jingwei-ip-'))
  t.teardown(() => rmSync(folder, { recursive: true, force: true }))
  const malformed = join(folder, 'malformed.txt')
  writeFileSync(malformed, '192.0.2.1\nexample.com\n')
  const faults = (ipFilter: unknown): string[] => {
    try {
      configOf({ edge: { ipFilter }, services: { a: { instances: ['http://h'] } }, routes: [] })
    } catch (error) {
      if (error instanceof ConfigError) return error.faults.map(({ path, message }) => `${path}: ${message}`)
      throw error
    }
    return []
  }
  for (const [ipFilter, ...expected] of [
    [{}, 'edge.ipFilter: needs addresses: write "allow" or "deny"'],
    [{ allow: [] }, 'edge.ipFilter.allow: expected a list with at least one item, found an empty list'],
    [
      { allow: ['10.0.0.1/8', 'x'] },
      'edge.ipFilter.allow[0]: "10.0.0.1/8" is an address within a network: write "10.0.0.0/8", or the address without "/8"',
      'edge.ipFilter.allow[1]: "x" is not an address or a CIDR range, such as 192.0.2.0/24'
    ],
    [
      { allow: ['10.1.0.0/16', '10.2.0.0/16'], deny: ['10.0.0.0/15'] },
      'edge.ipFilter.allow[0]: "deny" has all addresses of "10.1.0.0/16", so nothing is allowed by it'
    ],
    [
      { denyFile: malformed },
      `edge.ipFilter.denyFile: ${malformed}: line 2: "example.com" is not an address or a CIDR range, such as 192.0.2.0/24`
    ],
    [{ allowFile: '/nowhere/list' }, 'edge.ipFilter.allowFile: /nowhere/list: cannot be read (ENOENT)'],
    [{ whitelist: ['10.0.0.1'] }, 'edge.ipFilter.whitelist: unknown key; write "allow"'],
    [{ deny: ['10.0.0.1'], status: 500 }, 'edge.ipFilter.status: expected an integer from 400 to 499, found 500']
  ] as const) {
    t.strictSame(faults(ipFilter), expected)
  }
  t.strictSame(faults(false), [])
})
