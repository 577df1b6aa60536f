/** Fields that clients forge must not become other fields, parameters or cookies by rules and templates. */
import type { Test } from 'tap'
import t from 'tap'
import { parseConfig } from '../../../../plugins/config.ts'
import { secret } from '../../../helpers/edge/tokens.ts'
import type { Seen } from '../../../helpers/gateway.ts'
import {
  ask,
  connect,
  gatewayBefore,
  parse,
  startEcho,
  startGateway,
  startRawService
} from '../../../helpers/gateway.ts'

const echo = await startEcho()
t.teardown(echo.close)

const valuesOf = ({ rawHeaders }: Seen, name: string) => rawHeaders.filter((_, index) => rawHeaders[index - 1] === name)

const gatewayWith = (t: Test, edge: object, more: object = {}) => gatewayBefore(t, echo.url, { edge, ...more })

const forwarding = ['X-Real-IP: 6.6.6.6', 'X-Forwarded-For: 6.6.6.6', 'X-Original-URL: /evil', 'Client-Cert: :forged:']
const rules = {
  headers: {
    request: {
      rename: { 'x-real-ip': 'x-client' },
      set: { 'x-for': '{headers.x-forwarded-for|none}', 'x-url': '{headers.x-original-url|none}' },
      add: { 'client-cert': 'none' }
    }
  },
  query: { set: { ip: '{headers.x-real-ip|none}' } },
  cookies: { request: { set: { ip: '{headers.x-real-ip|none}' } } }
}

t.test('forwarding headers count only if a trusted peer has sent them', async (t) => {
  const open = await gatewayWith(t, rules)
  const seen = await ask(open.port, '/', [...forwarding, 'X_Real_IP: 7.7.7.7', 'X.Real.IP: 8.8.8.8'])
  t.strictSame(valuesOf(seen, 'x-client'), [])
  t.match(seen, {
    url: '/?ip=none',
    headers: { 'x-for': 'none', 'x-url': 'none', cookie: 'ip=none', 'client-cert': 'none' }
  })

  const trustHeaders = ['x-forwarded-for', 'x-real-ip']
  const trusting = await gatewayWith(t, rules, { listen: { trustProxy: ['127.0.0.1'], trustHeaders } })
  const passed = await ask(trusting.port, '/', [...forwarding, 'X_Real_IP: 7.7.7.7', 'X.Real.IP: 8.8.8.8'])
  t.strictSame(valuesOf(passed, 'x-client'), ['6.6.6.6'])
  t.match(passed.headers, { 'x-for': '6.6.6.6', 'x-url': 'none' })
  const { query, cookies } = rules
  const later = await gatewayWith(t, { query, cookies }, { listen: { trustProxy: ['127.0.0.1'], trustHeaders } })
  t.match(await ask(later.port, '/', forwarding), { url: '/?ip=6.6.6.6', headers: { cookie: 'ip=6.6.6.6' } })
})

t.test('headers that services trust are no values, on any route to the service', async (t) => {
  const { port, close } = await startGateway({
    services: { any: { instances: [echo.url] } },
    routes: [
      { name: 'jwt', match: { path: '/' }, service: 'any', edge: { jwt: { secret, forward: { sub: 'x-user' } } } },
      {
        name: 'open',
        match: { path: '/open' },
        service: 'any',
        edge: {
          headers: { request: { set: { 'x-copy': '{headers.x-user|none}' } } },
          query: { set: { user: '{headers.x-user|none}' } },
          cookies: { request: { set: { user: '{headers.x-user|none}' } } }
        }
      }
    ]
  })
  t.teardown(close)
  const seen = await ask(port, '/open', ['X-User: forged', 'X_User: forged'])
  t.match(seen, { url: '/open?user=none', headers: { 'x-copy': 'none', cookie: 'user=none' } })
  t.equal(seen.headers['x-user'], undefined)
})

t.test('fields that a rule removes or replaces do not reach the service in the trailer section either', async (t) => {
  let received = ''
  const service = await startRawService((socket) => {
    socket.on('data', (chunk) => {
      received += chunk.toString('latin1')
      if (received.endsWith('\r\n\r\n') && received.includes('0\r\n')) socket.end('HTTP/1.1 204 No Content\r\n\r\n')
    })
  })
  t.teardown(service.close)
  const sendTo = async (port: number) => {
    received = ''
    const fields = 'x-debug: 1\r\nx_tenant: evil\r\nx-tail: 1\r\n'
    const head = 'POST / HTTP/1.1\r\nHost: h\r\nTrailer: x-debug, x-tenant, x-tail\r\nTransfer-Encoding: chunked\r\n'
    await connect(port, `${head}Connection: close\r\n\r\n2\r\nhi\r\n0\r\n${fields}\r\n`).closed
    return received
  }
  const removing = { remove: ['x-debug'], set: { 'x-tenant': 'acme' } }
  const { port } = await gatewayBefore(t, service.url, { edge: { headers: { request: removing } } })
  const text = await sendTo(port)
  t.match(text, 'x-tail: 1')
  t.match(text, 'trailer: x-tail\r\n')
  t.notMatch(text, 'x-debug')
  t.notMatch(text, 'evil')
  const only = await gatewayBefore(t, service.url, { edge: { headers: { request: { only: ['trailer', 'x-debug'] } } } })
  const passed = await sendTo(only.port)
  t.match(passed, 'x-debug: 1')
  t.notMatch(passed, 'x-tail')
  t.notMatch(passed, 'evil')
})

t.test('cookies that a rule removes hide in no other cookie', async (t) => {
  const { port } = await gatewayWith(t, { cookies: { request: { remove: ['admin'], set: { tenant: 'me' } } } })
  const cases = {
    'a=1 admin=1; b=2': 'b=2; tenant=me',
    'a=1,tenant=evil; b=2': 'b=2; tenant=me',
    'a="x; admin=1; y"': 'a="x; y"; tenant=me',
    'a=admin; b=x y; c={"d": 1, "e"}': 'a=admin; b=x y; c={"d": 1, "e"}; tenant=me'
  }
  for (const [given, wanted] of Object.entries(cases)) {
    t.equal((await ask(port, '/', [`Cookie: ${given}`])).headers.cookie, wanted, given)
  }
})

t.test('parameters that a rule removes hide behind no semicolon', async (t) => {
  const { port } = await gatewayWith(t, { query: { remove: ['admin'], set: { tenant: 'me' } } })
  const cases = {
    'admin;x=1': 'admin%3Bx=1&tenant=me',
    'tenant;x': 'tenant%3Bx&tenant=me',
    'x=1;admin=2': 'x=1%3Badmin=2&tenant=me',
    'x;y=1': 'x;y=1&tenant=me',
    'adm%69n=1&a=%&b=%zz&c=+%20': 'a=%&b=%zz&c=+%20&tenant=me',
    '': 'tenant=me'
  }
  for (const [query, wanted] of Object.entries(cases)) {
    t.equal((await ask(port, `/p?${query}`)).url, `/p?${wanted}`, query)
  }
})

t.test('a forwarding header that is always missing causes a warning', async (t) => {
  const warningsOf = (request: object, listen: object = {}) => {
    const warnings: string[] = []
    const config = {
      listen,
      services: { any: { instances: [echo.url] } },
      edge: { headers: { request } },
      routes: [{ name: 'all', match: { path: '/' }, service: 'any' }]
    }
    parseConfig(JSON.stringify(config), 'gateway.yaml', {}, ({ message }) => void warnings.push(message))
    return warnings
  }
  const rename = { rename: { 'x-real-ip': 'x-client' } }
  const set = { set: { 'x-client': '{headers.x-real-ip}' } }
  for (const request of [rename, set]) {
    t.match(warningsOf(request), [/x-real-ip" is always missing/])
    t.strictSame(warningsOf(request, { trustProxy: ['10.0.0.0/8'], trustHeaders: ['x-real-ip'] }), [])
  }
})

t.test('a header in UTF-8 keeps its characters in queries and cookies', async (t) => {
  const set = { city: '{headers.x-city}' }
  const { port } = await gatewayWith(t, {
    headers: { request: { set } },
    query: { set },
    cookies: { request: { set } }
  })
  const octets = (text: string) => Buffer.from(text).toString('latin1')
  const seen = await ask(port, '/', [`X-City: ${octets('Köln')}`])
  t.match(seen, { url: '/?city=K%C3%B6ln', headers: { cookie: 'city=K%C3%B6ln', city: octets('Köln') } })
  t.equal((await ask(port, '/', ['X-City: K\xf6ln'])).url, '/?city=K%C3%B6ln', 'Latin-1')
})

t.test('only keeps what frames the body and belongs to the connection, for handlers of plugins, too', async (t) => {
  const plugin = `export default async (server) => {
    server.addContentTypeParser('*', { parseAs: 'string' }, (request, body, done) => done(null, body))
    const config = { edge: { headers: { request: { only: ['x-a'] } } } }
    server.post('/own', { config }, async ({ headers, host, body }) => ({ host, body, hidden: headers['x-b'] ?? null }))
  }`
  const path = `${t.testdir({ 'own.mjs': plugin })}/own.mjs`
  const { port } = await gatewayBefore(t, echo.url, { plugins: [{ path }] })
  const head = 'POST /own HTTP/1.1\r\nHost: h\r\nX-B: 1\r\nConnection: close\r\n'
  for (const rest of ['Content-Length: 2\r\n\r\nhi', 'Transfer-Encoding: chunked\r\n\r\n2\r\nhi\r\n0\r\n\r\n']) {
    const { text } = await connect(port, head + rest).closed
    t.strictSame(JSON.parse(parse(text).body), { host: 'h', body: 'hi', hidden: null }, rest)
  }
})
