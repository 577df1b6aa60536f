// Headers by which browsers protect users: on every response of a route, and where no route matches.
import { once } from 'node:events'
import type { IncomingHttpHeaders } from 'node:http'
import http2 from 'node:http2'
import { connect as connectPlain } from 'node:net'
import { buffer } from 'node:stream/consumers'
import { connect as connectTls } from 'node:tls'
import t from 'tap'
import { http2Client } from '../../helpers/edge/direct-clients.ts'
import { secret } from '../../helpers/edge/tokens.ts'
import { gatewayBefore, get, startService } from '../../helpers/gateway.ts'
import { selfSigned } from '../../helpers/self-signed.ts'

const { cert, key } = selfSigned(t)
const service = await startService((_request, response) => {
  response.writeHead(200, {
    'x-frame-options': 'DENY',
    'x-powered-by': 'x',
    'content-security-policy': "default-src 'self'"
  })
  response.end('ok')
})
t.teardown(service.close)

/** The headers of helmet 8 by default, without its policy for contents. */
const helmet = {
  'cross-origin-opener-policy': 'same-origin',
  'cross-origin-resource-policy': 'same-origin',
  'origin-agent-cluster': '?1',
  'referrer-policy': 'no-referrer',
  'x-content-type-options': 'nosniff',
  'x-dns-prefetch-control': 'off',
  'x-download-options': 'noopen',
  'x-frame-options': 'SAMEORIGIN',
  'x-permitted-cross-domain-policies': 'none',
  'x-xss-protection': '0'
}
const names = [
  ...Object.keys(helmet),
  'content-security-policy',
  'strict-transport-security',
  'x-powered-by',
  'permissions-policy'
]
const found = (headers: object) => Object.fromEntries(Object.entries(headers).filter(([name]) => names.includes(name)))
const routes = (edge: object) => ({
  services: { any: { instances: [service.url] }, none: { instances: ['http://127.0.0.1:1'] } },
  routes: [
    { name: 'any', match: { path: '/any' }, service: 'any', edge },
    { name: 'none', match: { path: '/none' }, service: 'none', edge },
    { name: 'guarded', match: { path: '/guarded' }, service: 'any', edge: { ...edge, jwt: { secret } } },
    { name: 'off', match: { path: '/off' }, service: 'any', edge: { securityHeaders: false } },
    {
      name: 'hidden',
      match: { path: '/hidden' },
      service: 'any',
      edge: { ipFilter: { deny: ['127.0.0.1'], status: 404 }, securityHeaders: { xFrameOptions: 'DENY' } }
    }
  ]
})

for (const responsePath of ['raw', 'reply']) {
  t.test(`true has the defaults of helmet, and the service's own win, on the ${responsePath} path`, async (t) => {
    const { port, server } = await gatewayBefore(t, service.url, {
      edge: { securityHeaders: true },
      ...routes({ responsePath })
    })
    t.equal(server.responsePath('off'), 'raw')
    t.strictSame(found((await get(port, '/any')).headers), {
      ...helmet,
      'x-frame-options': 'DENY',
      'content-security-policy': "default-src 'self'"
    })
    for (const [path, status] of [
      ['/none', 502],
      ['/guarded', 401],
      ['/nowhere', 404],
      ['/hidden', 404]
    ] as const) {
      const response = await get(port, path)
      t.equal(response.status, status)
      t.strictSame(found(response.headers), helmet, path)
    }
    t.strictSame(Object.keys(found((await get(port, '/off')).headers)), [
      'x-frame-options',
      'x-powered-by',
      'content-security-policy'
    ])
  })
}

for (const isSecure of [false, true]) {
  t.test(`requests that are refused before routing, over ${isSecure ? 'https' : 'http'}`, async (t) => {
    const tls = isSecure ? { tls: { cert, key }, http2: true } : {}
    const start = (edge: object) =>
      gatewayBefore(t, service.url, { edge, listen: { ...tls, limits: { headers: '4kb' } }, ...routes({}) })
    const ask = async (port: number, text: string) => {
      const socket = isSecure
        ? connectTls({ port, rejectUnauthorized: false, ALPNProtocols: ['http/1.1'] })
        : connectPlain(port)
      socket.end(text)
      const [head = '', body = ''] = (await buffer(socket)).toString('latin1').split('\r\n\r\n')
      const [line = '', ...fields] = head.split('\r\n')
      return { line, body, headers: Object.fromEntries(fields.map((field) => field.split(': '))) }
    }
    const requests = [
      [400, 'GET / HTTP/1.1\r\nHost: a\r\nno colon\r\n\r\n'],
      [400, 'GET /%zz HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n'],
      [404, 'GET /%ff HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n'],
      [431, `GET / HTTP/1.1\r\nHost: a\r\nx: ${'x'.repeat(9000)}\r\n\r\n`]
    ] as const
    const hsts = isSecure ? { 'strict-transport-security': 'max-age=31536000; includeSubDomains' } : {}
    const { port } = await start({ securityHeaders: true })
    for (const [status, text] of requests) {
      const { line, headers, body } = await ask(port, text)
      t.match(line, `HTTP/1.1 ${status} `)
      t.strictSame(found(headers), { ...helmet, ...hsts }, text.slice(0, 50))
      t.equal(headers['content-length'], String(body.length))
      t.equal(JSON.parse(body).statusCode, status)
    }
    if (isSecure) {
      const ask = await http2Client(t, port)
      t.match(await ask('/%zz'), { status: 400, headers: { ...helmet, ...hsts } })
    }
    const plain = await start({})
    for (const [, text] of requests) t.strictSame(found((await ask(plain.port, text)).headers), {})
  })
}

t.test('other values, override, and headers that are left out', async (t) => {
  const securityHeaders = {
    override: true,
    xFrameOptions: 'SAMEORIGIN',
    contentSecurityPolicy: "default-src 'none'; frame-ancestors 'none'",
    permissionsPolicy: 'camera=()',
    referrerPolicy: 'same-origin',
    crossOriginOpenerPolicy: false,
    crossOriginResourcePolicy: false,
    originAgentCluster: false,
    xDnsPrefetchControl: false,
    xDownloadOptions: false,
    xPermittedCrossDomainPolicies: false,
    xXssProtection: false,
    hidePoweredBy: false
  }
  const { port } = await gatewayBefore(t, service.url, { ...routes({ securityHeaders }) })
  t.strictSame(found((await get(port, '/any')).headers), {
    'x-powered-by': 'x',
    'x-frame-options': 'SAMEORIGIN',
    'x-content-type-options': 'nosniff',
    'referrer-policy': 'same-origin',
    'content-security-policy': "default-src 'none'; frame-ancestors 'none'",
    'permissions-policy': 'camera=()'
  })
  t.strictSame(found((await get(port, '/nowhere')).headers), {}, 'only the top level is about requests without a route')
})

t.test('rules for headers win', async (t) => {
  const edge = {
    securityHeaders: true,
    headers: { response: { remove: ['x-download-options'], set: { 'x-frame-options': 'DENY' } } }
  }
  const { port } = await gatewayBefore(t, service.url, { edge, ...routes({}) })
  for (const path of ['/any', '/none']) {
    const { headers } = await get(port, path)
    t.match(
      headers,
      { 'x-frame-options': 'DENY', 'x-content-type-options': 'nosniff', 'x-download-options': undefined },
      path
    )
  }
})

t.test('Strict-Transport-Security is sent over HTTPS only', async (t) => {
  const listen = { tls: { cert, key }, http2: true }
  for (const [strictTransportSecurity, expected] of [
    [undefined, 'max-age=31536000; includeSubDomains'],
    [{ maxAge: '730d', preload: true }, 'max-age=63072000; includeSubDomains; preload'],
    [{ maxAge: '1s', includeSubDomains: false }, 'max-age=1'],
    [false, undefined]
  ] as const) {
    const edge = { securityHeaders: strictTransportSecurity === undefined ? true : { strictTransportSecurity } }
    const { port } = await gatewayBefore(t, service.url, { edge, listen, ...routes({}) })
    const session = http2.connect(`https://localhost:${port}`, { rejectUnauthorized: false })
    t.teardown(() => session.destroy())
    for (const path of ['/any', '/nowhere']) {
      const [headers] = (await once(session.request({ ':path': path }), 'response')) as [IncomingHttpHeaders]
      t.equal(headers['strict-transport-security'], expected)
    }
  }
  const edge = { securityHeaders: true }
  const proxied = await gatewayBefore(t, service.url, { edge, listen: { trustProxy: ['127.0.0.1'] }, ...routes({}) })
  t.match(
    (await get(proxied.port, '/any', ['X-Forwarded-Proto: https'])).headers['strict-transport-security'],
    /max-age/
  )
  const plain = await gatewayBefore(t, service.url, { edge, ...routes({}) })
  t.notOk('strict-transport-security' in (await get(plain.port, '/any', ['X-Forwarded-Proto: https'])).headers)
})
