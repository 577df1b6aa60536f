// Error pages: which body an error gets, over HTTP/1.1 and HTTP/2; and pages in place of error responses of services.
import { once } from 'node:events'
import { readdirSync, readFileSync, writeFileSync } from 'node:fs'
import type { IncomingMessage, ServerResponse } from 'node:http'
import { join } from 'node:path'
import type { Test } from 'tap'
import t from 'tap'
import type { ConfigError } from '../../../config/load.ts'
import { parseConfig } from '../../../plugins/config.ts'
import { preferred } from '../../../plugins/edge/concerns/error-pages/accept.ts'
import { errorCodes } from '../../../plugins/edge/concerns/error-pages/codes.ts'
import { parseTemplate } from '../../../plugins/edge/concerns/error-pages/template.ts'
import { errorTable } from '../../../plugins/error-table.ts'
import { http2Client } from '../../helpers/edge/direct-clients.ts'
import { eventually } from '../../helpers/eventually.ts'
import type { GatewayOptions } from '../../helpers/gateway.ts'
import {
  connect,
  get,
  responding,
  startGateway,
  startRawService,
  startService,
  startWith
} from '../../helpers/gateway.ts'
import { selfSigned } from '../../helpers/self-signed.ts'

const html = 'text/html; charset=utf-8'
const pages = {
  404: { html: '<h1>{{status}} {{ reason }}</h1><i>{{code}}</i>', json: '{"n":{{status}},"c":"{{code}}"}' },
  '5xx': { text: '{{status}} {{requestId}}' },
  JW_RATE_LIMITED: { html: 'slow down' },
  default: { text: 'default {{status}}' }
}

type Handler = (request: IncomingMessage, response: ServerResponse) => void

async function start(
  t: Test,
  errorPages: object,
  handler: Handler,
  more: Record<string, unknown> = {},
  options: GatewayOptions = {}
) {
  const service = await startService(handler)
  t.teardown(service.close)
  const { edge = {}, routes = [], ...rest } = more as { edge?: object; routes?: object[] }
  const gateway = await startGateway(
    {
      services: { any: { instances: [service.url] }, down: { instances: ['http://127.0.0.1:1'] } },
      routes: [
        { name: 'all', match: { path: '/a' }, service: 'any' },
        { name: 'down', match: { path: '/down' }, service: 'down' },
        { name: 'off', match: { path: '/off' }, service: 'down', edge: { errorPages: false } },
        ...routes
      ],
      edge: { errorPages, ...edge },
      mesh: { retry: false, circuitBreaker: false, outlierDetection: false },
      ...rest
    },
    { log: true, ...options }
  )
  t.teardown(gateway.close)
  return gateway
}

const ok: Handler = (_request, response) => void response.end('ok')

t.test('by status, class, code and Accept', async (t) => {
  const edge = { rateLimit: { max: 2, window: '1m' } }
  const { port } = await start(t, { pages }, ok, {
    routes: [{ name: 'limited', match: { path: '/limited' }, service: 'any', edge }]
  })
  const wanted: [path: string, accept: string | null, type: string, body: string | RegExp][] = [
    ['/none', 'text/html,application/xhtml+xml;q=0.9,*/*;q=0.8', html, '<h1>404 Not Found</h1><i>JW_NO_ROUTE</i>'],
    ['/none', 'application/json', 'application/json; charset=utf-8', '{"n":404,"c":"JW_NO_ROUTE"}'],
    [
      '/none',
      'text/html;q=0.1, application/json;q=0.2',
      'application/json; charset=utf-8',
      '{"n":404,"c":"JW_NO_ROUTE"}'
    ],
    ['/none', '*/*', html, /^<h1>/],
    ['/none', null, html, /^<h1>/],
    ['/none', 'image/png', 'application/json; charset=utf-8', /"statusCode":404,"code":"JW_NO_ROUTE"/],
    ['/none', 'text/html;q=0', 'application/json; charset=utf-8', /"statusCode":404/],
    ['/down', 'text/*', 'text/plain; charset=utf-8', /^502 [\w-]+$/],
    ['/off', 'text/*', 'application/json; charset=utf-8', /"code":"JW_UPSTREAM_REFUSED"/],
    ['/a/%2e%2e/x', '*/*', 'text/plain; charset=utf-8', 'default 400']
  ]
  for (const [path, accept, type, body] of wanted) {
    for (const method of ['GET', 'HEAD', 'POST']) {
      const got = await get(port, path, accept === null ? [] : [`Accept: ${accept}`], method)
      t.equal(got.headers['content-type'], type, `${method} ${path} ${accept}`)
      if (method === 'HEAD') t.equal(got.body, '')
      else {
        t.match(got.body, body)
        t.equal(got.headers['content-length'], String(got.body.length))
      }
    }
  }
  t.equal((await get(port, '/none')).headers.vary, 'accept')
  t.match((await get(port, '/down')).headers, { 'proxy-status': /jingwei; error=connection_refused/ })
  for (const status of [200, 200, 429]) t.equal((await get(port, '/limited')).status, status)
  t.match(await get(port, '/limited'), {
    status: 429,
    body: 'slow down',
    headers: { 'retry-after': /\d+/, 'content-type': html }
  })
})

t.test('over HTTP/2', async (t) => {
  const { port } = await start(t, { pages }, ok, { listen: { tls: selfSigned(t), http2: true } })
  const ask = await http2Client(t, port)
  t.match(await ask('/none', { accept: 'text/html' }), {
    status: 404,
    body: /^<h1>404 Not Found/,
    headers: { 'content-type': html }
  })
  t.match(await ask('/none', { accept: 'text/html', ':method': 'HEAD' }), { status: 404, body: '' })
  t.match(await ask('/down'), { status: 502, body: /^502 / })
  t.match(await ask('/none', { ':method': 'POST' }, 'body'), { status: 404, body: /^<h1>/ })
})

t.test('RFC 9457', async (t) => {
  const { port } = await start(t, { format: 'problem' }, ok)
  const got = await get(port, '/none', ['Accept: text/html'])
  t.equal(got.headers['content-type'], 'application/problem+json')
  const { requestId, ...problem } = JSON.parse(got.body) as Record<string, unknown>
  t.type(requestId, 'string')
  t.strictSame(problem, {
    type: 'about:blank',
    title: 'Not Found',
    status: 404,
    detail: 'No route matches this request',
    code: 'JW_NO_ROUTE'
  })
  t.match(JSON.parse((await get(port, '/down')).body), { title: 'Bad Gateway', code: 'JW_UPSTREAM_REFUSED' })
  t.match(JSON.parse((await get(port, '/off')).body), { statusCode: 502 })
  const ask = await http2Client(
    t,
    (await start(t, { format: 'problem' }, ok, { listen: { tls: selfSigned(t), http2: true } })).port
  )
  t.match(await ask('/none'), { status: 404, headers: { 'content-type': 'application/problem+json' } })
})

t.test('nothing of a request is in a page unescaped', async (t) => {
  const template = { html: '{{requestId}}', json: '{"id":"{{requestId}}"}', text: '{{requestId}}' }
  const { port } = await start(t, { pages: { default: template } }, ok, {
    edge: { requestId: { header: 'x-request-id' } },
    listen: { trustProxy: ['127.0.0.1'], trustHeaders: ['x-forwarded-for'] }
  })
  const evil = `x"<script>alert('1')</script>\\&`
  for (const accept of ['text/html', 'application/json', 'text/plain']) {
    const { body, headers } = await get(port, `/<b>"?${evil.replaceAll(' ', '+')}`, [
      `X-Request-Id: ${evil}`,
      `Accept: ${accept}`
    ])
    t.notMatch(body, headers['content-type'] === html ? /[<>"']/ : /\b\B/, body)
    if (accept === 'application/json') t.doesNotThrow(() => JSON.parse(body), body)
  }
})

t.test('values are escaped for the format', async (t) => {
  const values = { status: 404, reason: 'x', code: 'JW_X', requestId: `<a href="'">&\\\r\n\u0001é` }
  const filled = (format: string) => parseTemplate('[{{requestId}}]', format)(values)
  t.equal(filled('html'), '[&lt;a href=&quot;&#39;&quot;&gt;&amp;\\\r\n\u0001é]')
  t.equal(filled('json'), String.raw`[<a href=\"'\">&\\\r\n\u0001é]`)
  t.equal(filled('problem'), filled('json'))
  t.equal(filled('text'), `[<a href="'">&\\   é]`)
  t.equal(parseTemplate('{{ status }}{{{code}}} {{', 'text')(values), '404{JW_X} {{')
})

t.test('files, relative to the configuration', async (t) => {
  const folder = t.testdir({ '404.html': '' })
  writeFileSync(join(folder, '404.html'), '<p>é {{status}}</p>')
  const yaml =
    'admin: false\nedge: { errorPages: { pages: { 404: { html: { file: 404.html } } } } }\nroutes: [{ name: a, match: { path: /a }, response: {} }]'
  const { port, close } = await startWith(parseConfig(yaml, join(folder, 'gateway.yaml'), {}))
  t.teardown(close)
  t.equal((await get(port, '/')).body, Buffer.from('<p>é 404</p>').toString('latin1'))
})

t.test('CORS and Vary', async (t) => {
  const { port } = await start(t, { pages }, ok, { edge: { cors: { origin: ['https://a.example'] } } })
  const { headers } = await get(port, '/down', ['Origin: https://a.example'])
  t.match(headers, { 'access-control-allow-origin': 'https://a.example', vary: /origin.*accept/i })
})

/** Responds by the path: `/a/503` with that status, and more. */
const failing: Handler = ({ url = '' }, response) => {
  const [, status = '200', kind] = /^\/a\/(\d+)\/?(\w*)/.exec(url) ?? []
  const fields = {
    'content-type': 'text/x-secret',
    'x-secret': 'stack',
    'set-cookie': 'a=b',
    'retry-after': '7',
    'www-authenticate': 'Basic',
    etag: '"x"'
  }
  response.writeHead(Number(status), {
    ...fields,
    ...(kind === 'chunked' ? {} : { 'content-length': 6 }),
    ...(kind === 'gzip' && { 'content-encoding': 'gzip' })
  })
  response.end('SECRET')
}

for (const responsePath of ['raw', 'reply']) {
  t.test(`error responses of services, ${responsePath}`, async (t) => {
    const before: GatewayOptions['before'] = (server) => {
      if (responsePath === 'reply') server.addHook('onSend', async (_request, _reply, payload) => payload)
    }
    const options = { before }
    const { port, log } = await start(t, { pages, upstream: [404, '5xx'] }, failing, {}, options)
    for (const kind of ['', 'chunked', 'gzip']) {
      for (const [status, body] of [
        [404, '<h1>404 Not Found</h1><i></i>'],
        [500, /^500 /],
        [503, /^503 /]
      ] as const) {
        for (const method of ['GET', 'POST', 'HEAD']) {
          const got = await get(port, `/a/${status}/${kind}`, [], method)
          t.equal(got.status, status)
          t.match(got.body, method === 'HEAD' ? /^$/ : body)
          t.match(got.headers, { 'retry-after': '7', 'www-authenticate': 'Basic' })
          for (const name of ['x-secret', 'set-cookie', 'etag', 'content-encoding', 'transfer-encoding'])
            t.equal(got.headers[name], undefined, name)
          if (method !== 'HEAD') t.equal(got.headers['content-length'], String(got.body.length))
        }
      }
    }
    t.match(await get(port, '/a/403'), { status: 403, body: 'SECRET', headers: { 'x-secret': 'stack' } })
    t.match(await get(port, '/a/200'), { status: 200, body: 'SECRET' })
    const lines = log.filter(({ msg }) => msg === 'request')
    t.match(lines[0], { status: 404, service: 'any', attempts: 1, error: undefined })
    t.notOk(log.find(({ level }) => level === 50))
    const client = connect(port)
    for (const path of ['/a/500', '/a/500/chunked', '/a/200']) client.send(`GET ${path} HTTP/1.1\r\nHost: h\r\n\r\n`)
    t.match(await client.until('SECRET'), / 500 .* 500 .* 200 /s)
    client.socket.destroy()

    const secure = await start(t, { upstream: true }, failing, { listen: { tls: selfSigned(t), http2: true } }, options)
    const ask = await http2Client(t, secure.port)
    for (const status of [400, 404, 500]) {
      const got = await ask(`/a/${status}`)
      t.equal(got.status, status)
      t.match(JSON.parse(got.body), { statusCode: status, requestId: String })
      t.equal(got.headers['x-secret'], undefined)
      t.match(await ask(`/a/${status}`, { ':method': 'HEAD' }), { status, body: '' })
    }
    t.equal((await ask('/a/200')).body, 'SECRET')
  })

  t.test(`error responses whose bodies never end, ${responsePath}`, async (t) => {
    const before: GatewayOptions['before'] = (server) => {
      if (responsePath === 'reply') server.addHook('onSend', async (_request, _reply, payload) => payload)
    }
    let open = 0
    const endless: Handler = (_request, response) => {
      open++
      response.once('close', () => open--)
      response.writeHead(500)
      response.write('SECRET')
      const timer = setInterval(() => response.write('x'.repeat(10_000)), 5)
      response.once('close', () => clearInterval(timer))
    }
    const { port } = await start(t, { pages, upstream: true }, endless, {}, { before })
    const client = connect(port, 'GET /a HTTP/1.1\r\nHost: h\r\n\r\n')
    t.match(await client.until('500 '), /500/)
    await eventually(() => open === 0, 'the response of the service to be closed')
    client.send('GET /down HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n')
    const { text } = await client.closed
    t.strictSame(text.match(/HTTP\/1\.1 \d+/g), ['HTTP/1.1 500', 'HTTP/1.1 502'])
    t.notMatch(text, /SECRET|xxx/)
  })
}

t.test('connections to services are used again', async (t) => {
  let connections = 0
  const service = await startRawService((socket) => {
    connections++
    responding('HTTP/1.1 500 X\r\nTransfer-Encoding: chunked\r\n\r\n6\r\nSECRET\r\n0\r\n\r\n')(socket)
  })
  t.teardown(service.close)
  const { port, close } = await startGateway({
    services: { any: { instances: [service.url] } },
    routes: [{ name: 'all', match: { path: '/' }, service: 'any' }],
    edge: { errorPages: { upstream: true } },
    mesh: { retry: false }
  })
  t.teardown(close)
  for (let i = 0; i < 5; i++) t.match(await get(port, '/'), { status: 500, body: /"statusCode":500/ })
  t.equal(connections, 1)
})

t.test('a failure within the replaced body changes nothing', async (t) => {
  const service = await startRawService((socket) => {
    socket.once('data', () => socket.end('HTTP/1.1 500 X\r\nContent-Length: 100\r\n\r\nSECRET'))
  })
  t.teardown(service.close)
  const { port, log, close } = await startGateway(
    {
      services: { any: { instances: [service.url] } },
      routes: [{ name: 'all', match: { path: '/' }, service: 'any' }],
      edge: { errorPages: { upstream: true } },
      mesh: { retry: false }
    },
    { log: true }
  )
  t.teardown(close)
  t.match(await get(port, '/'), { status: 500, body: /"statusCode":500/ })
  await eventually(() => log.some(({ msg }) => msg === 'request'), 'the access line')
  t.match(
    log.find(({ msg }) => msg === 'request'),
    { status: 500 }
  )
})

t.test('with other concerns: headers, compression', async (t) => {
  const edge = {
    headers: { response: { set: { 'x-added': 'yes' }, remove: ['retry-after'] } },
    compression: { minSize: '1b' }
  }
  const { port } = await start(t, { pages: { '5xx': { text: 'y'.repeat(2000) } }, upstream: true }, failing, { edge })
  const got = await get(port, '/a/500', ['Accept-Encoding: gzip'])
  t.match(got, { status: 500, headers: { 'x-added': 'yes' } })
  t.equal(got.headers['x-secret'], undefined)
  if (got.headers['content-encoding'] === undefined) t.equal(got.body, 'y'.repeat(2000))
  t.match(await get(port, '/down'), { status: 502, headers: { 'x-added': 'yes' } })
})

t.test('responses of a cache are replaced, static fallbacks are not', async (t) => {
  let calls = 0
  const cacheable: Handler = (_request, response) => {
    calls++
    response.writeHead(404, { 'cache-control': 'max-age=60' }).end('SECRET')
  }
  const cached = await start(t, { upstream: true }, cacheable, { edge: { cache: {} } })
  for (let i = 0; i < 3; i++) t.match(await get(cached.port, '/a'), { status: 404, body: /^{"statusCode":404/ })
  t.equal(calls, 1, 'the cache has responded')
  const fallback = [{ status: 503, body: 'fallback' }]
  const { port } = await start(t, { upstream: true }, ok, { mesh: { retry: false, fallback } })
  t.match(await get(port, '/down'), { status: 503, body: 'fallback' })
})

t.test('a client that leaves', async (t) => {
  const { port, log } = await start(t, { pages, upstream: true }, (_request, response) => {
    response.writeHead(500)
    response.write('x')
  })
  const client = connect(port, 'GET /a HTTP/1.1\r\nHost: h\r\n\r\n')
  client.socket.destroy()
  await once(client.socket, 'close')
  t.match(await get(port, '/a'), { status: 500 })
  t.notOk(log.find(({ level }) => level === 50))
})

t.test('content negotiation', async (t) => {
  const types = ['text/html', 'application/json']
  const wanted: [string | undefined, number][] = [
    [undefined, 0], ['', 0], ['*/*', 0], ['text/html', 0], ['application/json', 1], ['application/*', 1], ['APPLICATION/JSON', 1],
    ['text/html;q=0.5, application/json;q=0.6', 1], ['text/html;q=0, */*', 1], ['image/*', -1], ['text/html;q=0', -1], ['text/html;q=2', -1],
    ['text/html;q=x, application/json', 1], [',,;;,', -1], ['text/html;level=1', 0], ['*/*;q=0.1, application/json', 1]
  ] // biome-ignore format: a table
  for (const [field, index] of wanted) t.equal(preferred(field, types), index, String(field))
  const long = `${'a/b,'.repeat(100_000)}text/html`
  t.equal(preferred(long, types), -1, 'a bounded number of ranges')
})

t.test('explain', async (t) => {
  const { server } = await start(t, { pages, upstream: [404, '5xx'] }, ok, { admin: { host: '127.0.0.1', port: 0 } })
  const { decisions } = (await server.admin!.inject('/admin/explain?path=/a')).json() as { decisions: string[][] }
  t.equal(
    decisions.find(([name]) => name === 'error-pages')?.[1],
    'renders errors by 404 as html or json, 5xx as text, JW_RATE_LIMITED as html, default as text, others as json; replaces 404, 5xx of services'
  )
})

t.test('faults', async (t) => {
  const folder = t.testdir({ '404.html': '<p>', 'large.html': 'x'.repeat(256 * 1024 + 1) })
  const faultsOf = (errorPages: string, route = 'service: a') => {
    try {
      parseConfig(
        `services: { a: { instances: ["http://h"] } }\nedge: {}\nroutes: [{ name: a, match: { path: /, methods: [GET] }, ${route}, edge: { errorPages: ${errorPages} } }]\n`,
        join(folder, 'gateway.yaml'),
        {}
      )
      return []
    } catch (error) {
      return (error as ConfigError).faults.map(
        ({ path, message }) => `${path.replace('routes[0].edge.errorPages', '~')}: ${message}`
      )
    }
  }
  const one = (errorPages: string, ...faults: string[]) => t.strictSame(faultsOf(errorPages), faults, errorPages)
  one('{ pages: { 404: { html: { file: 404.html } } } }')
  one('{ format: problem }')
  one('{}', '~: no effect: write "pages", "format: problem" or "upstream"')
  one(
    '{ pages: { 404: { html: "{{statu}}" } } }',
    '~.pages.404.html: unknown placeholder "{{statu}}"; did you mean "status"?'
  )
  one(
    '{ pages: { 404: { html: "{{url}}" } } }',
    '~.pages.404.html: unknown placeholder "{{url}}"; there are {{status}}, {{reason}}, {{code}}, {{requestId}}'
  )
  t.match(faultsOf('{ pages: { 404: { json: "{" } } }'), [/^~\.pages\.404\.json: no JSON: /])
  one('{ pages: { 404: { html: { file: none.html } } } }', '~.pages.404.html.file: no such file')
  one(
    '{ pages: { 404: { html: { file: large.html } } } }',
    '~.pages.404.html.file: it has 262145 bytes; 262144 are possible'
  )
  t.match(faultsOf('{ pages: { 200: { html: a } } }'), [/^~\.pages/])
  t.match(faultsOf('{ pages: { 404: {} } }'), [/^~\.pages\.404: expected a mapping with at least one key/])
  t.match(faultsOf('{ upstream: [200] }'), [/^~\.upstream\[0\]: /])
  const topOf = (upstream: string, mesh: string) => {
    try {
      parseConfig(
        `${mesh}\nservices: { a: { instances: ["http://h"] } }\nedge: { errorPages: { upstream: ${upstream} } }\nroutes: [{ name: a, match: { path: / }, service: a }, { name: b, match: { path: /b }, response: {} }]`,
        join(folder, 'gateway.yaml'),
        {}
      )
      return []
    } catch (error) {
      return (error as ConfigError).faults.map(({ path, message }) => `${path}: ${message}`)
    }
  }
  t.strictSame(topOf('true', ''), [])
  t.strictSame(topOf('true', 'mesh: false'), [
    'edge.errorPages.upstream: no effect on any route, such as with via: http-proxy: only responses that the bridge forwards are replaced'
  ])
  t.strictSame(faultsOf('{ upstream: true }', 'response: {}'), [
    '~.upstream: no effect without a service: only responses that the bridge forwards are replaced'
  ])
  t.strictSame(faultsOf('{ upstream: true }', 'service: a, via: http-proxy'), [
    '~.upstream: no effect with via: http-proxy: only responses that the bridge forwards are replaced'
  ])
})

t.test('pages and statuses that no response has are warned of', async (t) => {
  const warningsOf = (errorPages: object) => {
    const found: string[] = []
    const text = JSON.stringify({ edge: { errorPages } })
    parseConfig(text, 'gateway.yaml', {}, ({ line, column, path, message }) => {
      found.push(`${line}:${column}: ${path}: ${message}`)
    })
    return found
  }
  const page = { text: 'sorry' }
  t.strictSame(
    warningsOf({
      pages: { JW_RATE_LIMITTED: page, JW_RATE_LIMITED: page, JW_SOMETHING_ELSE: page, 499: page, 404: page }
    }),
    [
      '1:56: edge.errorPages.pages.499: has no effect: no error of the gateway has the status 499; write it under "upstream" as well if services respond with it',
      '1:79: edge.errorPages.pages.JW_RATE_LIMITTED: has no effect: there is no such error code; did you mean "JW_RATE_LIMITED"?',
      '1:150: edge.errorPages.pages.JW_SOMETHING_ELSE: has no effect: there is no such error code'
    ]
  )
  t.strictSame(warningsOf({ pages: { 499: page, 520: page }, upstream: [499, '5xx'] }), [])
  t.strictSame(warningsOf({ pages: { 599: page }, upstream: true }), [])
  t.strictSame(warningsOf({ upstream: [404, '4xx', 404, 500] }), [
    '1:36: edge.errorPages.upstream[0]: has no effect: "4xx" includes it',
    '1:46: edge.errorPages.upstream[2]: has no effect: "404" includes it'
  ])
})

t.test('the known error codes are those of the sources', async (t) => {
  const root = join(import.meta.dirname, '../../..')
  const made = new Set([...Object.keys(errorTable), 'JW_INTERNAL'])
  for (const folder of ['plugins', 'routes']) {
    for (const file of readdirSync(join(root, folder), { recursive: true, encoding: 'utf8' })) {
      if (!/\.m?ts$/.test(file) || file.includes('admin-hosts')) continue
      const text = readFileSync(join(root, folder, file), 'utf8')
      for (const [, code] of text.matchAll(/createError\(\s*'(JW_\w+)'/g)) made.add(code!)
    }
  }
  t.strictSame([...errorCodes].sort(), [...made].sort())
})
