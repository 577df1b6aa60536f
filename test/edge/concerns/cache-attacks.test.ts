/** `edge.cache` under attack: no client changes what others get, and no service breaks the cache. */
import { once } from 'node:events'
import net from 'node:net'
import type { Test } from 'tap'
import t from 'tap'
import { Flights } from '../../../plugins/edge/concerns/cache/flights.ts'
import { protocols } from '../../helpers/edge/asking-client.ts'
import type { CachingOptions } from '../../helpers/edge/caching.ts'
import { cachingGateway, respond } from '../../helpers/edge/caching.ts'
import { eventually } from '../../helpers/eventually.ts'
import { gatewayBefore, get } from '../../helpers/gateway.ts'

/** Sends bytes, and returns what comes until the gateway closes or the response is complete. */
async function raw(port: number, text: string): Promise<string> {
  const socket = net.connect(port, '127.0.0.1')
  socket.setTimeout(3000, () => socket.destroy())
  socket.write(text)
  let received = ''
  socket.setEncoding('latin1').on('data', (chunk: string) => {
    received += chunk
  })
  socket.on('error', () => {})
  await once(socket, 'close')
  return received
}

/** A gateway before a service that responds with all that it sees of a request. */
async function reflecting(t: Test, options: CachingOptions = {}) {
  return cachingGateway(
    t,
    (request, response) => {
      const chunks: Buffer[] = []
      request.on('data', (chunk: Buffer) => chunks.push(chunk))
      request.on('end', () => {
        const { 'x-request-id': _id, via: _via, ...headers } = request.headers
        const seen = { method: request.method, url: request.url, headers, body: Buffer.concat(chunks).toString() }
        respond(response, JSON.stringify(seen), { 'cache-control': 'max-age=60' })
      })
    },
    options
  )
}

for (const protocol of protocols) {
  t.test(`${protocol}: headers of one client never show in the response of another`, async (t) => {
    const { client } = await reflecting(t, { protocol })
    const names = [
      'x-forwarded-host', 'x-forwarded-server', 'x-forwarded-scheme', 'x-forwarded-proto', 'x-forwarded-port', 'x-forwarded-prefix',
      'x-forwarded-path', 'x-original-url', 'x-original-host', 'x-rewrite-url', 'x-host', 'x-http-host-override', 'forwarded',
      'x-http-method-override', 'x-http-method', 'x-method-override', 'x-url-scheme', 'x-wap-profile', 'x-api-version', 'origin',
      'x-tenant', 'x-user-id', 'x-amz-website-redirect-location', 'x-middleware-subrequest', 'x-invoke-path', 'rsc', 'next-router-prefetch',
      'x-requested-with', 'content-type', 'accept-version', 'x-client-ip', 'true-client-ip', 'cf-connecting-ip', 'x-cluster-client-ip',
      'client-cert', 'x-ssl-cert', 'sec-websocket-key', 'last-event-id', 'x-csrf-token', 'x-api-key', 'prefer', 'a-im', 'accept-datetime'
    ] // biome-ignore format: a list
    for (const [index, name] of names.entries()) {
      const value = name === 'forwarded' ? 'host=poison.example' : 'poison'
      await client.ask(`/${index}`, { headers: { [name]: value } })
      t.notMatch((await client.ask(`/${index}`)).body.toString(), /poison/, name)
    }
  })

  t.test(`${protocol}: a GET with a body is neither stored nor answered from the cache`, async (t) => {
    const { client, seen } = await reflecting(t, { protocol })
    await client.ask('/', { body: 'q=poison' })
    t.notMatch((await client.ask('/')).body.toString(), /poison/)
    t.match((await client.ask('/', { body: 'q=mine' })).body.toString(), /mine/)
    t.equal(seen.length, 3)
    t.notMatch((await client.ask('/')).body.toString(), /mine|poison/)
  })

  t.test(`${protocol}: HEAD stores nothing, and conditions and ranges store only complete responses`, async (t) => {
    const { client, seen } = await cachingGateway(
      t,
      (request, response) => {
        const { range } = request.headers
        const fields = { 'cache-control': 'max-age=60' }
        if (request.method === 'HEAD') respond(response, '', { ...fields, 'content-length': '4' })
        else if (request.headers['if-none-match']) respond(response, 'failed', fields, 412)
        else if (range === 'bytes=1-2') respond(response, 'od', { ...fields, 'content-range': 'bytes 1-2/4' }, 206)
        else if (range !== undefined) respond(response, 'bad', { ...fields, 'content-range': 'bytes */4' }, 416)
        else respond(response, 'body', fields)
      },
      { protocol }
    )
    const poisons: Record<string, string>[] = [
      { range: 'bytes=1-2' },
      { range: 'bytes=9-' },
      { 'if-none-match': '"x"' }
    ]
    for (const [index, headers] of poisons.entries()) {
      await client.ask(`/${index}`, { headers })
      const given = await client.ask(`/${index}`)
      t.equal(given.status, 200, JSON.stringify(headers))
      t.equal(given.body.toString(), 'body')
    }
    await client.ask('/head', { method: 'HEAD' })
    t.equal((await client.ask('/head')).body.toString(), 'body')
    t.equal(seen.length, 8)
  })

  t.test(`${protocol}: informational responses pass, and the final one is stored without them`, async (t) => {
    const { client, seen } = await cachingGateway(
      t,
      (_request, response) => {
        response.writeEarlyHints({ link: '</a.css>; rel=preload', 'x-early': 'poison', 'cache-control': 'no-store' })
        response.writeProcessing()
        respond(response, 'x', { 'cache-control': 'max-age=60' })
      },
      { protocol }
    )
    t.ok((await client.ask('/')).hints.includes(103))
    const given = await client.ask('/')
    t.strictSame(given.hints, [])
    t.equal(given.headers['x-early'], undefined)
    t.match(given.headers['cache-status'], /hit/)
    t.equal(seen.length, 1)
  })
}

for (const protocol of protocols) {
  t.test(
    `${protocol}: a 206 with the complete body is stored as a 200; parts and mixed versions are not`,
    async (t) => {
      const body = Buffer.from(Array.from({ length: 70_000 }, (_, i) => i & 255))
      const { client, seen } = await cachingGateway(
        t,
        (request, response) => {
          const { range } = request.headers
          const [, from = '', to = ''] = /^bytes=(\d+)-(\d*)$/.exec(range ?? '') ?? []
          const etag = request.url === '/weak' ? 'W/"a"' : request.url === '/none' ? '' : '"a"'
          const fields = { 'cache-control': 'max-age=60', 'content-type': 'x/y', ...(etag && { etag }) }
          if (from === '') return respond(response, body, fields)
          const last = to === '' ? body.length - 1 : Number(to)
          const total = request.url === '/unknown' ? '*' : body.length
          const more = { 'content-range': `bytes ${from}-${last}/${total}` }
          respond(response, body.subarray(Number(from), last + 1), { ...fields, ...more }, 206)
        },
        { protocol }
      )
      const ask = async (path: string, range?: string, more: Record<string, string> = {}) => {
        const before = seen.length
        const given = await client.ask(path, { headers: { ...(range && { range }), ...more } })
        return { ...given, isHit: seen.length === before }
      }
      const first = await ask('/', 'bytes=0-')
      t.equal(first.status, 206)
      t.ok(first.body.equals(body))
      const whole = await ask('/')
      t.ok(whole.isHit && whole.isWhole)
      t.equal(whole.status, 200)
      t.ok(whole.body.equals(body))
      t.equal(whole.headers['content-range'], undefined)
      t.equal(whole.headers['content-length'], '70000')
      t.equal(whole.headers['content-type'], 'x/y')
      for (const [range, from, to] of [
        ['bytes=10-69', 10, 70],
        ['bytes=69990-', 69_990, 70_000],
        ['bytes=-5', 69_995, 70_000],
        ['bytes=0-99999', 0, 70_000]
      ] as const) {
        const part = await ask('/', range)
        t.ok(part.isHit && part.isWhole, range)
        t.equal(part.status, 206)
        t.equal(part.headers['content-range'], `bytes ${from}-${to - 1}/70000`)
        t.ok(part.body.equals(body.subarray(from, to)), range)
      }
      const condition = await ask('/', 'bytes=1-2', { 'if-range': '"a"' })
      t.ok(condition.isHit && condition.status === 206)
      const other = await ask('/', 'bytes=1-2', { 'if-range': '"b"' })
      t.ok(other.isHit && other.status === 200 && other.body.equals(body))
      t.equal((await ask('/', 'bytes=70000-')).status, 416)
      const cases: [path: string, range: string, more?: Record<string, string>][] = [
        ['/part', 'bytes=1-'],
        ['/part', 'bytes=0-9'],
        ['/weak', 'bytes=0-'],
        ['/none', 'bytes=0-'],
        ['/unknown', 'bytes=0-'],
        ['/condition', 'bytes=0-', { 'if-range': '"a"' }]
      ]
      for (const [path, range, more] of cases) {
        t.notOk((await ask(path, range, more)).isHit)
        t.notOk((await ask(path, range, more)).isHit, `${path} ${range}`)
      }
    }
  )
}

t.test('If-Range with a date needs a strong one', async (t) => {
  const { client, seen } = await cachingGateway(t, (request, response) => {
    const modified =
      request.url === '/strong' ? new Date(Date.now() - 60_000).toUTCString() : response.getHeader('date')
    respond(response, 'abcdef', { 'cache-control': 'max-age=60', 'last-modified': String(modified) })
  })
  for (const [path, status] of [
    ['/strong', 206],
    ['/same', 200]
  ] as const) {
    const { headers } = await client.ask(path)
    const condition = String(headers['last-modified'])
    const given = await client.ask(path, { headers: { range: 'bytes=1-2', 'if-range': condition } })
    t.equal(given.status, status, path)
  }
  t.equal(seen.length, 2)
})

t.test('spellings of hosts and targets', async (t) => {
  const { client, port } = await reflecting(t)
  const end = '\r\nConnection: close\r\n\r\n'
  const targets = [
    `GET http://poison.example/1 HTTP/1.1\r\nHost: a.example${end}`,
    `GET http://poison.example/1 HTTP/1.1\r\nHost: poison.example${end}`,
    `GET /1 HTTP/1.1\r\nHost: a.example\r\nHost: poison.example${end}`,
    `GET /1 HTTP/1.1\r\nHost: a.example, poison.example${end}`,
    `GET /1 HTTP/1.1\r\nHost: a.example:poison${end}`,
    `GET /1 HTTP/1.1\r\nHost: poison@a.example${end}`,
    `GET /1 HTTP/1.1\r\nHost: a.example\r\nConnection: host, x-forwarded-host\r\nX-Forwarded-Host: poison\r\n${end}`,
    `GET /1 HTTP/1.0\r\n${end}`
  ]
  for (const target of targets) {
    await raw(port, target)
    t.notMatch((await client.ask('/1', { headers: { host: 'a.example' } })).body.toString(), /poison/, target)
  }
  // Ports and trailing dots are other names: the service may build links from them.
  for (const host of ['a.example:80', 'a.example:8080', 'a.example.']) {
    const own = (await client.ask('/1', { headers: { host } })).body.toString()
    t.match(own, new RegExp(`"host":"${host.replaceAll('.', '\\.')}"`))
  }
})

t.test('HTTP/2: the authority counts, whatever Host says', async (t) => {
  const { client } = await reflecting(t, { protocol: 'HTTP/2' })
  await client.ask('/', { headers: { ':authority': 'a.example', host: 'poison.example' } })
  t.notMatch((await client.ask('/', { headers: { ':authority': 'a.example' } })).body.toString(), /poison/)
  await client.ask('/2', { headers: { ':authority': 'poison.example', host: 'a.example' } })
  t.notMatch((await client.ask('/2', { headers: { ':authority': 'a.example' } })).body.toString(), /poison/)
  await client.ask('/3', { headers: { ':authority': 'a.example', ':scheme': 'http' } })
  t.notMatch((await client.ask('/3', { headers: { ':authority': 'a.example' } })).body.toString(), /"http"/)
})

t.test('spellings of paths and queries', async (t) => {
  const { client } = await reflecting(t, { cache: { key: { ignoreQuery: ['utm_*', 'ref'], sortQuery: true } } })
  const targets = ['/a', '//a', '/a/', '/a;x=poison', '/a.css', '/%61', '/a?x=1', '/a?x=1&x=poison', '/a?x=poison&x=1', '/a?x=1;poison', '/a?X=1', '/a?x=1%26poison', '/a??x=1'] // biome-ignore format: a list
  for (const target of targets) await client.ask(target)
  for (const target of targets) {
    const { body, status } = await client.ask(target)
    if (status === 200) t.equal((JSON.parse(body.toString()) as { url: string }).url, target)
  }
  // A service that also separates parameters by semicolons sees a parameter that the cache would ignore.
  for (const [index, cloak] of ['utm_x=1;callback=poison', 'ref=;callback=poison', 'utm_;callback=poison'].entries()) {
    await client.ask(`/cloak/${index}?${cloak}`)
    t.notMatch((await client.ask(`/cloak/${index}?utm_x=2`)).body.toString(), /poison/, cloak)
    t.notMatch((await client.ask(`/cloak/${index}`)).body.toString(), /poison/, cloak)
  }
})

t.test('statuses that depend on one request or one client are never stored', async (t) => {
  const { client, seen } = await cachingGateway(t, (request, response) =>
    respond(response, 'x', { 'cache-control': 'public, s-maxage=60' }, Number(request.url!.slice(1)))
  )
  const never = [400, 401, 406, 407, 408, 411, 412, 413, 415, 416, 417, 421, 425, 426, 428, 429, 431]
  for (const status of never) {
    const before = seen.length
    await client.ask(`/${status}`)
    await client.ask(`/${status}`)
    t.equal(seen.length, before + 2, `${status}`)
  }
  for (const status of [200, 203, 301, 302, 307, 308, 403, 404, 405, 410, 414, 451, 501]) {
    const before = seen.length
    await client.ask(`/${status}`)
    await client.ask(`/${status}`)
    t.equal(seen.length, before + 1, `${status}`)
  }
})

t.test('a compressed response without Vary reaches only clients that accept the same', async (t) => {
  const { client, seen } = await cachingGateway(t, (request, response) => {
    const isCompressed = /gzip/.test(String(request.headers['accept-encoding']))
    respond(response, isCompressed ? 'GZIP' : 'plain', {
      'cache-control': 'max-age=60',
      ...(isCompressed && { 'content-encoding': 'gzip' })
    })
  })
  const ask = async (headers: Record<string, string>) => (await client.ask('/', { headers })).body.toString()
  t.equal(await ask({ 'accept-encoding': 'gzip' }), 'GZIP')
  t.equal(await ask({}), 'plain')
  t.equal(await ask({ 'accept-encoding': 'br' }), 'plain')
  const before = seen.length
  t.equal(await ask({}), 'plain')
  t.equal(seen.length, before)
})

t.test('fields of services that make no sense', async (t) => {
  const { client, seen } = await cachingGateway(t, (request, response) => {
    respond(response, 'x', JSON.parse(Buffer.from(request.url!.slice(1), 'base64url').toString()))
  })
  const old = 'Mon, 01 Jan 1990 00:00:00 GMT'
  const far = 'Fri, 31 Dec 9999 23:59:59 GMT'
  const stale: Record<string, string | string[]>[] = [
    { 'cache-control': 'max-age=60', age: '61' },
    { 'cache-control': 'max-age=60', age: '2147483648' },
    { 'cache-control': 'max-age=60', age: '99999999999999999999999' },
    { 'cache-control': 'max-age=60', age: '-1' },
    { 'cache-control': 'max-age=60', age: ['0', '100'] },
    { 'cache-control': 'max-age=60', age: '1e1' },
    { 'cache-control': 'max-age=60', date: old },
    { 'cache-control': 'max-age=-60' },
    { 'cache-control': 'max-age=1e9' },
    { 'cache-control': 'max-age' },
    { 'cache-control': 'max-age=0, max-age=60' },
    { expires: '0' },
    { expires: '-1' },
    { expires: far, date: far },
    { expires: [far, old] },
    { 'cache-control': ['max-age=60', 'no-store'] },
    { 'cache-control': 'max-age=60, private="x"' },
    { 'cache-control': 'max-age=60, PRIVATE' },
    { 'cache-control': 'max-age=60, "no-store' },
    { 'cache-control': `max-age=60${', a'.repeat(100)}` },
    { 'cache-control': 'max-age=60', vary: '*' },
    { 'cache-control': 'max-age=60', vary: ['accept', '*'] },
    { 'cache-control': 'max-age=60', vary: 'accept, *' },
    { 'cache-control': 'max-age=60', vary: Array.from({ length: 70 }, (_, i) => `a${i}`).join() },
    { 'cache-control': 'max-age=60', 'set-cookie': 'a=b' }
  ]
  for (const fields of stale) {
    const path = `/${Buffer.from(JSON.stringify(fields)).toString('base64url')}`
    const before = seen.length
    t.equal((await client.ask(path)).status, 200)
    t.equal((await client.ask(path)).status, 200)
    t.equal(seen.length, before + 2, JSON.stringify(fields).slice(0, 100))
  }
  for (const fields of [
    { 'cache-control': 'max-age=99999999999999999999999' },
    { 'cache-control': 'max-age=60', date: far },
    { 'cache-control': 'max-age=60', date: 'x' },
    { 'cache-control': 'max-age=60', expires: 'x' }
  ]) {
    const path = `/${Buffer.from(JSON.stringify(fields)).toString('base64url')}`
    const before = seen.length
    await client.ask(path)
    const given = await client.ask(path)
    t.equal(seen.length, before + 1, JSON.stringify(fields))
    t.match(given.headers.age, /^\d$/)
  }
})

t.test('fields that should be one, but come several times', async (t) => {
  const { client } = await cachingGateway(t, (request, response) => {
    const [, name = ''] = request.url!.split('/')
    const value = name === 'last-modified' ? 'Mon, 01 Jan 2024 00:00:00 GMT' : '"a"'
    response.setHeader('cache-control', 'max-age=1, stale-while-revalidate=60')
    response.setHeader(name, [value, value])
    response.setHeader('content-length', '4')
    response.end('body')
  })
  const conditions: Record<string, string>[] = [
    {},
    { 'if-none-match': '"a"' },
    { 'if-modified-since': 'Mon, 01 Jan 2024 00:00:00 GMT' },
    { range: 'bytes=0-1', 'if-range': '"a"' },
    { range: 'bytes=0-1' },
    { 'cache-control': 'no-cache' },
    { 'cache-control': 'no-cache', 'if-none-match': '"a"' }
  ]
  for (const name of [
    'etag',
    'last-modified',
    'content-type',
    'content-encoding',
    'vary',
    'location',
    'expires',
    'surrogate-key',
    'age',
    'content-range'
  ]) {
    for (const headers of conditions) {
      for (const method of ['GET', 'HEAD']) {
        const { status } = await client.ask(`/${name}`, { headers, method })
        t.ok([200, 206, 304].includes(status), `${name} ${JSON.stringify(headers)}: ${status}`)
      }
    }
  }
})

t.test('an age that is no number is never sent on, and a client that asks for nothing logs no error', async (t) => {
  const { client, logged } = await cachingGateway(t, (_request, response) =>
    respond(response, 'x', { 'cache-control': 'max-age=60, stale-while-revalidate=60', etag: '"a"', age: 'unknown' })
  )
  await client.ask('/')
  const stale = await client.ask('/', { headers: { 'cache-control': 'max-stale' } })
  t.match(stale.headers['cache-status'], /hit/)
  t.equal(stale.headers.age, '2147483648')
  const none = await client.ask('/none', { headers: { 'cache-control': 'only-if-cached' } })
  t.equal(none.status, 504)
  t.match(JSON.parse(none.body.toString()), { code: 'JW_NOT_CACHED' })
  await eventually(() => logged.some((line) => /JW_NOT_CACHED/.test(JSON.stringify(line))))
  t.strictSame(
    logged.filter(({ level }) => Number(level) >= 50),
    []
  )
})

t.test('bodies that are cut off, too long, or of unknown length are not stored', async (t) => {
  const answers = [
    'Content-Length: 10\r\n\r\nhalf',
    'Transfer-Encoding: chunked\r\n\r\n4\r\nhalf\r\n',
    'Transfer-Encoding: chunked\r\n\r\n4\r\nhalf\r\nzz\r\n',
    'Transfer-Encoding: identity\r\n\r\nhalf',
    'Transfer-Encoding: gzip\r\n\r\nhalf',
    'Transfer-Encoding: chunked\r\nContent-Length: 4\r\n\r\n0\r\n\r\n',
    'Content-Length: 4\r\nContent-Length: 5\r\n\r\nhalf',
    'Content-Length: -4\r\n\r\nhalf',
    '\r\nhalf',
    'Transfer-Encoding: chunked\r\n\r\n4\r\nhalf\r\n0\r\nX-Trailer: 1\r\n\r\n'
  ]
  let count = 0
  const server = net.createServer((socket) => {
    socket.on('error', () => {})
    socket.once('data', (data) => {
      count++
      const index = Number(/^GET \/(\d+)/.exec(data.toString())![1])
      socket.end(`HTTP/1.1 200 OK\r\nCache-Control: max-age=60\r\n${answers[index]}`)
    })
  })
  server.listen(0, '127.0.0.1')
  await once(server, 'listening')
  t.teardown(() => server.close())
  const origin = `http://127.0.0.1:${(server.address() as net.AddressInfo).port}`
  const { port } = await gatewayBefore(t, origin, { edge: { cache: { staleIfError: '60s' } }, mesh: { retry: false } })
  for (const [index, answer] of answers.entries()) {
    const before = count
    for (let round = 0; round < 2; round++) await get(port, `/${index}`).catch(() => {})
    t.equal(count, before + 2, answer)
  }
})

t.test('a private response never reaches another caller, whatever was public before', async (t) => {
  let directive = 'public, max-age=10, stale-while-revalidate=60, stale-if-error=60'
  const { client, pass } = await cachingGateway(t, (request, response) =>
    respond(response, `of ${request.headers.authorization}`, { 'cache-control': directive, etag: '"a"' })
  )
  const ask = async (authorization?: string) =>
    (await client.ask('/', { headers: authorization ? { authorization } : {} })).body.toString()
  t.equal(await ask('alice'), 'of alice')
  t.equal(await ask('bob'), 'of alice')
  pass(11)
  directive = 'private, max-age=60'
  // Alice gets the expired public response, while hers is fetched in the background.
  t.equal(await ask('alice'), 'of alice')
  await eventually(async () => (await ask('bob')) === 'of bob')
  for (const caller of ['carol', 'dave', 'alice']) t.equal(await ask(caller), `of ${caller}`)
  t.equal(await ask(), 'of undefined')
  t.equal(await ask('eve'), 'of eve')
})

t.test('a client that reads slowly holds others only until the time of `coalesce`, and only once', async (t) => {
  const big = Buffer.alloc(20_000_000, 'x')
  const { client, seen } = await cachingGateway(
    t,
    (_request, response, count) => respond(response, count === 1 ? big : 'small', { 'cache-control': 'max-age=60' }),
    { cache: { coalesce: '50ms', maxEntry: '32mb', maxSize: '256mb' } }
  )
  const socket = net.connect(client.port, '127.0.0.1').pause()
  t.teardown(() => socket.destroy())
  socket.write(`GET / HTTP/1.1\r\nHost: 127.0.0.1:${client.port}\r\n\r\n`)
  await eventually(() => seen.length === 1)
  const all = await Promise.all([client.ask('/'), client.ask('/'), client.ask('/')])
  t.ok(all.every(({ body }) => body.toString() === 'small'))

  const flights = new Flights(() => 0)
  const slow = flights.begin('key')
  const late = new Promise((resolve) => slow.join((stored, isLate) => resolve([stored, isLate]), 1))
  t.strictSame(await late, [null, true])
  t.equal(flights.get('key'), undefined, 'nobody waits for it any more')
  const next = flights.begin('key')
  slow.end(null)
  t.equal(flights.get('key'), next)
})

t.test('memory stays within its bound under variants, keys and slow bodies', async (t) => {
  const { client, status } = await cachingGateway(
    t,
    (request, response) =>
      respond(response, Buffer.alloc(request.url === '/vary' ? 1000 : 5000), {
        'cache-control': 'max-age=60',
        vary: 'accept-language, x-a',
        'surrogate-key': 'a '.repeat(500)
      }),
    { cache: { maxSize: '1mb', maxEntry: '100kb' } }
  )
  for (let at = 0; at < 300; at++)
    await client.ask('/vary', { headers: { 'accept-language': `l${at}`, 'x-a': 'same' } })
  const { routes } = (await status()).stores[0]!
  t.ok(routes[0]!.entries <= 64, `${routes[0]!.entries} variants`)
  for (let at = 0; at < 400; at++) await client.ask(`/${at}`)
  const { bytes } = (await status()).stores[0]!
  t.ok(bytes <= 1_048_576 && bytes > 500_000, `${bytes} bytes`)
})
