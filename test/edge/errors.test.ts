import { once } from 'node:events'
import { readdirSync, readFileSync } from 'node:fs'
import https from 'node:https'
import type { AddressInfo } from 'node:net'
import { join } from 'node:path'
import createError from '@fastify/error'
import type { FastifyInstance } from 'fastify'
import type { Test } from 'tap'
import t from 'tap'
import { errorTable } from '../../plugins/error-table.ts'
import { authority, folderFor } from '../helpers/certificates.ts'
import { eventually } from '../helpers/eventually.ts'
import type { GatewayOptions } from '../helpers/gateway.ts'
import { get, responding, startGateway, startRawService } from '../helpers/gateway.ts'

const root = join(import.meta.dirname, '../..')

/** Proxy error types of RFC 9209, section 2.3, with their recommended statuses. */
const types: Readonly<Record<string, number>> = {
  dns_timeout: 504, dns_error: 502, destination_not_found: 500, destination_unavailable: 503,
  destination_ip_prohibited: 502, destination_ip_unroutable: 502, connection_refused: 502,
  connection_terminated: 502, connection_timeout: 504, connection_read_timeout: 504,
  connection_write_timeout: 504, connection_limit_reached: 503, tls_protocol_error: 502,
  tls_certificate_error: 502, tls_alert_received: 502, http_request_error: 400, http_request_denied: 403,
  http_response_incomplete: 502, http_response_header_section_size: 502, http_response_header_size: 502,
  http_response_body_size: 502, http_response_trailer_section_size: 502, http_response_trailer_size: 502,
  http_response_transfer_coding: 502, http_response_content_coding: 502, http_response_timeout: 504,
  http_upgrade_failed: 502, http_protocol_error: 502, proxy_internal_response: 500, proxy_internal_error: 500,
  proxy_configuration_error: 500, proxy_loop_detected: 502
} // biome-ignore format: a table

/** Errors for which another status is more specific than the recommended one. */
const chosen: Readonly<Record<string, number>> = {
  JW_NOT_CACHED: 504, JW_NO_SERVICE: 503, JW_CALLER_SILENT: 408, JW_LOOP_DETECTED: 508, JW_REDIRECT_LOOP: 508, JW_MAINTENANCE: 503,
  JW_OUT_OF_DESCRIPTORS: 503, JW_OUT_OF_MEMORY: 503, JW_OUT_OF_PORTS: 503, JW_OUT_OF_CPU: 503, JW_OUT_OF_CAPACITY: 503,
  JW_CONSUMERS_UNKNOWN: 503, JW_KEYS_UNAVAILABLE: 503, JW_AUTH_UNAVAILABLE: 503, JW_CREDENTIALS_UNAVAILABLE: 503, JW_AUTH_BUSY: 503, JW_RESPONSE_UNCHANGEABLE: 502, JW_BODY_BUSY: 503, JW_DECOMPRESSION_BUSY: 503, JW_REPLAY_WINDOW_FULL: 503, JW_SIGNATURES_LIMITED: 429, JW_AUTH_LIMITED: 429, JW_CLIENT_REQUESTS: 429, JW_CLIENT_WEBSOCKETS: 429
} // biome-ignore format: a table

t.test('each row of the table has a Proxy-Status type of RFC 9209 and its recommended status', async (t) => {
  for (const [code, [status, message, type]] of Object.entries(errorTable)) {
    t.ok(type in types, `${code}: ${type}`)
    t.equal(status, chosen[code] ?? types[type], code)
    t.match(message, /^[A-Z].*[^.]$/, code)
  }
})

t.test('each thrown code has a status: its own, or one in the table', async (t) => {
  const thrown = new Map<string, number | null>()
  const files = ['plugins', 'routes'].flatMap((folder) =>
    readdirSync(join(root, folder), { recursive: true, encoding: 'utf8' })
      .filter((file) => file.endsWith('.ts'))
      .map((file) => join(root, folder, file))
  )
  for (const file of files) {
    const text = readFileSync(file, 'utf8')
    for (const [, code = '', status] of text.matchAll(
      /createError\(\s*'(\w+)',\s*(?:'.*?'|".*?")(?:,\s*(\d{3}))?\s*\)/g
    )) {
      thrown.set(code, Number(status ?? Number.NaN))
    }
    for (const [, code = ''] of text.matchAll(/\bMeshError\(\s*(?:[^'()]*\?\s*)?'(\w+)'/g)) thrown.set(code, null)
    // Classes of errors; those without a row make no response.
    for (const [, code = ''] of text.matchAll(/readonly code = '(JW_\w+)'/g)) {
      if (Object.hasOwn(errorTable, code)) thrown.set(code, null)
    }
    for (const [, code, mapped = ''] of text.matchAll(/^ {2}(JW_\w+): ['"]|\/, '(JW_\w+)'\],?$/gm))
      thrown.set(code ?? mapped, null)
  }
  t.ok(thrown.size > 15, 'the search finds the thrown codes')
  for (const [code, status] of thrown) {
    t.match(code, /^JW_[A-Z_]+$/)
    if (status === null) t.ok(Object.hasOwn(errorTable, code), `${code} is in the table`)
    else t.ok(status >= 400 && status < 600, `${code} has a status`)
  }
  for (const code of Object.keys(errorTable)) {
    if (code.startsWith('JW_')) t.ok(thrown.has(code), `${code} is thrown somewhere`)
  }
})

async function before(t: Test, url: string, mesh: object = {}, options: GatewayOptions = {}) {
  const gateway = await startGateway(
    {
      mesh: { retry: false, ...mesh },
      services: { any: { instances: [url] } },
      routes: [{ name: 'all', match: { path: '/' }, service: 'any' }]
    },
    options
  )
  t.teardown(gateway.close)
  return gateway
}

t.test('a service that fails before its header section is a 5xx that names the cause, without details', async (t) => {
  const cases: [string, string | null, object, number, string, string][] = [
    ['refuses connections', null, {}, 502, 'JW_UPSTREAM_REFUSED', 'connection_refused'],
    ['closes without a word', '', {}, 502, 'JW_UPSTREAM_RESET', 'connection_terminated'],
    ['closes in its head', 'HTTP/1.1 200 OK\r\nX', {}, 502, 'JW_UPSTREAM_RESET', 'connection_terminated'],
    ['speaks no HTTP', 'SSH-2.0-x\r\n\r\n', {}, 502, 'JW_UPSTREAM_MALFORMED', 'http_protocol_error'],
    ['is silent', 'silent', { attemptTimeout: '50ms' }, 504, 'JW_ATTEMPT_TIMEOUT', 'http_response_timeout'],
    ['is silent for all', 'silent', { attemptTimeout: '50ms', timeout: '50ms' }, 504, '', 'http_response_timeout'],
    [
      'says too much',
      `HTTP/1.1 200 OK\r\nX: ${'x'.repeat(70_000)}\r\n\r\n`,
      {},
      502,
      'JW_UPSTREAM_HEADERS_TOO_LARGE',
      'http_response_header_section_size'
    ]
  ]
  for (const [what, bytes, mesh, status, code, type] of cases) {
    const service = await startRawService((socket) => {
      socket.once('data', () => {
        if (bytes !== 'silent') socket.end(bytes ?? '')
      })
    })
    if (bytes === null) await service.close()
    else t.teardown(service.close)
    const { port } = await before(t, service.url, mesh)
    for (const method of ['GET', 'POST']) {
      const more = method === 'POST' ? ['Content-Length: 0'] : []
      const response = await get(port, '/?token=secret', more, method)
      t.equal(response.status, status, what)
      t.equal(response.headers['proxy-status'], `jingwei; error=${type}`, what)
      const error = JSON.parse(response.body) as Record<string, unknown>
      if (code !== '') t.equal(error.code, code, what)
      t.strictSame(Object.keys(error), ['statusCode', 'code', 'error', 'message', 'requestId'])
      t.equal(error.requestId, response.headers['x-request-id'])
      t.notMatch(response.body, /127\.0\.0\.1|token/, 'the response has no addresses')
    }
  }
})

/** Codes of Node, OpenSSL, llhttp and undici. */
const foreign = /\bE[A-Z]{3,}\b|UND_ERR|HPE_|ERR_[A-Z]|CERT|SELF_SIGNED|UNABLE_TO|self-signed|undici|OpenSSL/

t.test('the code of the network error is only in the log', async (t) => {
  const folder = folderFor(t)
  const { cert, key } = authority(folder, 'strangers').issue('any', { san: 'IP:127.0.0.1' })
  const strangers = https.createServer({ cert, key }, (_request, response) => response.end('never'))
  strangers.listen(0, '127.0.0.1')
  await once(strangers, 'listening')
  t.teardown(() => {
    strangers.close()
    strangers.closeAllConnections()
  })
  const { port: secured } = strangers.address() as AddressInfo
  const plain = await startRawService((socket) => socket.once('data', () => socket.end('nonsense\r\n\r\n')))
  t.teardown(plain.close)
  const gone = await startRawService(() => {})
  await gone.close()
  const resetting = await startRawService((socket) => socket.once('data', () => socket.resetAndDestroy()))
  t.teardown(resetting.close)
  const cases: [what: string, url: string, status: number, code: string, cause: RegExp][] = [
    ['refuses connections', gone.url, 502, 'JW_UPSTREAM_REFUSED', /^ECONNREFUSED$/],
    ['resets', resetting.url, 502, 'JW_UPSTREAM_RESET', /^(ECONNRESET|EPIPE)$/],
    ['no HTTP', plain.url, 502, 'JW_UPSTREAM_MALFORMED', /^HPE_INVALID_CONSTANT$/],
    ['no TLS', plain.url.replace('http:', 'https:'), 502, 'JW_UPSTREAM_TLS', /^(ERR_SSL_\w+|EPROTO)$/],
    ['unknown CA', `https://127.0.0.1:${secured}`, 502, 'JW_UPSTREAM_UNTRUSTED', /^UNABLE_TO_VERIFY_LEAF_SIGNATURE$/],
    ['no such name', 'http://no-such-host.invalid:80', 502, 'JW_UPSTREAM_DNS', /^(ENOTFOUND|EAI_AGAIN)$/]
  ]
  for (const [what, url, status, code, cause] of cases) {
    const { port, log } = await before(t, url, {}, { log: true })
    const response = await get(port, '/')
    t.equal(response.status, status, what)
    t.match(JSON.parse(response.body), { code }, what)
    t.notMatch(response.body + JSON.stringify(response.headers), foreign, what)
    const line = () => log.find(({ msg }) => msg === 'request')
    await eventually(() => line() !== undefined)
    t.match(line(), { error: code, cause }, what)
    t.strictSame(
      log.filter(({ msg }) => String(msg).startsWith('request failed')),
      [],
      `${what}: no stack`
    )
  }
})

t.test('the client gets the response of a service that fails while the client still sends', async (t) => {
  for (const framing of ['Content-Length: 100000', 'Transfer-Encoding: chunked']) {
    const service = await startRawService((socket) => socket.once('data', () => socket.destroy()))
    t.teardown(service.close)
    const { port } = await before(t, service.url)
    const { connect, parse } = await import('../helpers/gateway.ts')
    const client = connect(port, `POST / HTTP/1.1\r\nHost: h\r\n${framing}\r\n\r\n5\r\nabcde\r\n`)
    t.equal(parse(await client.until('"requestId"')).status, 502, framing)
    client.socket.destroy()
  }
})

t.test('a 5xx of the service is passed on unchanged', async (t) => {
  const service = await startRawService(
    responding('HTTP/1.1 503 Closed For Lunch\r\nRetry-After: 7\r\nContent-Length: 5\r\n\r\nlunch')
  )
  t.teardown(service.close)
  const { port } = await before(t, service.url)
  const { status, headers, body } = await get(port, '/')
  t.match({ status, body, retry: headers['retry-after'] }, { status: 503, body: 'lunch', retry: '7' })
  t.equal(headers['proxy-status'], undefined)
})

t.test('an exception in a plugin is a plain 500, its details are only in the log', async (t) => {
  const service = await startRawService(responding('HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n'))
  t.teardown(service.close)
  const secret = 'password=hunter2'
  const failures: [string, () => unknown, number][] = [
    ['error', () => new Error(secret), 500],
    ['string', () => secret, 500],
    ['503', () => Object.assign(new Error(secret), { statusCode: 503 }), 503],
    ["a plugin's own database", () => Object.assign(new Error(secret), { code: 'ECONNREFUSED' }), 500],
    ['odd code', () => Object.assign(new Error(secret), { code: 'constructor' }), 500],
    ['4xx', () => Object.assign(new Error('Not so'), { statusCode: 403, code: 'MY_CODE' }), 403]
  ]
  const { port, log } = await before(
    t,
    service.url,
    {},
    {
      log: true,
      before: (server) => {
        for (const hook of ['onRequest', 'preHandler'] as const) {
          server.addHook(hook, async (request) => {
            const named = String(request.headers['x-fail'] ?? '')
            const found = failures.find(([name]) => `${hook} ${name}` === named)
            if (found) throw found[1]()
          })
        }
      }
    }
  )
  for (const hook of ['onRequest', 'preHandler']) {
    for (const [name, , expected] of failures) {
      const { status, body, headers } = await get(port, '/', [`X-Fail: ${hook} ${name}`])
      t.equal(status, expected, name)
      t.notMatch(body, /hunter2/, name)
      t.equal(headers['proxy-status'], undefined, name)
      if (expected >= 500)
        t.match(JSON.parse(body), { message: 'The gateway failed to handle the request', code: 'JW_INTERNAL' })
      else t.match(JSON.parse(body), { message: 'Not so', code: 'MY_CODE' })
    }
  }
  const failed = log.filter(({ msg }) => String(msg).startsWith('request failed'))
  t.match(JSON.stringify(failed), /hunter2/)
  t.match(failed[0], { status: 500, msg: 'request failed with an unexpected error: responding with 500' })
})

/** An error class as of http-errors: `expose` is a property of the prototype. */
class ServiceUnavailable extends Error {
  readonly statusCode: number

  constructor(message: string, statusCode = 503) {
    super(message)
    this.statusCode = statusCode
  }
}
Object.assign(ServiceUnavailable.prototype, { expose: false })

t.test('a 5xx error that is meant as a response is passed on, and is no failure of the gateway', async (t) => {
  const service = await startRawService(responding('HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n'))
  t.teardown(service.close)
  const Busy = createError('MY_BUSY', 'busy', 503)
  const Broken = createError('MY_BROKEN', 'password=hunter2', 500)
  const given = (fields: object, message = 'password=hunter2') => Object.assign(new Error(message), fields)
  const ours = { code: 'JW_INTERNAL', message: 'The gateway failed to handle the request' }
  const failures: Readonly<Record<string, readonly [() => unknown, number, { message: string; code?: string }]>> = {
    'fastify-error': [() => new Busy(), 503, { message: 'busy', code: 'MY_BUSY' }],
    'http-errors': [() => new ServiceUnavailable('busy'), 503, { message: 'busy' }],
    exposed: [() => given({ statusCode: 503, expose: true }, 'busy'), 503, { message: 'busy' }],
    'exposed-500': [() => given({ statusCode: 500, expose: true }, 'busy'), 500, { message: 'busy' }],
    plain: [() => given({ statusCode: 503 }), 503, ours],
    'not-exposed': [() => given({ statusCode: 503, expose: false }), 503, ours],
    'fastify-error-500': [() => new Broken(), 500, ours],
    'http-errors-500': [() => new ServiceUnavailable('password=hunter2', 500), 500, ours]
  }
  const before = (server: FastifyInstance) => {
    server.addHook('onRequest', async ({ headers }) => {
      const failure = failures[String(headers['x-fail'])]
      if (failure !== undefined) throw failure[0]()
    })
  }
  const config = {
    services: { any: { instances: [service.url] } },
    routes: [{ name: 'all', match: { path: '/' }, service: 'any' }]
  }
  const gateway = await startGateway(config, { log: true, before })
  t.teardown(gateway.close)
  for (const [name, [, expected, content]] of Object.entries(failures)) {
    gateway.log.length = 0
    const { status, body } = await get(gateway.port, '/', [`X-Fail: ${name}`])
    t.equal(status, expected, name)
    t.match(JSON.parse(body), { statusCode: expected, ...content }, name)
    const isOurs = content === ours
    if (!isOurs) t.equal(JSON.parse(body).code, content.code, name)
    t.equal(
      gateway.log.some(({ level }) => level === 50),
      isOurs,
      `${name}: an error in the log only where it is one`
    )
  }
})

t.test('errors with a numeric code, as of fetch and databases, are 500', async (t) => {
  const errors: Readonly<Record<string, () => Error>> = {
    timeout: () => new DOMException('the fetch took too long', 'TimeoutError'),
    conflict: () => Object.assign(new Error('duplicate key'), { code: 11_000, statusCode: 409 })
  }
  const gateway = await startGateway(
    { routes: [] },
    {
      log: true,
      before: (server) => {
        server.after(() => {
          server.get('/own/:error', async ({ params }) => {
            throw errors[(params as { error: string }).error]!()
          })
        })
      }
    }
  )
  t.teardown(gateway.close)
  const timeout = await get(gateway.port, '/own/timeout')
  t.equal(timeout.status, 500)
  t.match(JSON.parse(timeout.body), { code: 'JW_INTERNAL', message: 'The gateway failed to handle the request' })
  const conflict = await get(gateway.port, '/own/conflict')
  t.equal(conflict.status, 409)
  t.match(JSON.parse(conflict.body), { message: 'duplicate key', error: 'Conflict' })
  t.notOk('code' in JSON.parse(conflict.body))
})
