/** Rules for targets, hosts and framing are the same over HTTP/1.1 and HTTP/2, and each refusal is logged. */
import type { ClientHttp2Session, OutgoingHttpHeaders } from 'node:http2'
import http2 from 'node:http2'
import tls from 'node:tls'
import type { Test } from 'tap'
import t from 'tap'
import type { RunningGateway } from '../../helpers/gateway.ts'
import { parse, startGateway, startRawService } from '../../helpers/gateway.ts'
import { selfSigned } from '../../helpers/self-signed.ts'

const { cert, key } = selfSigned(t)

interface RequestOptions {
  readonly method?: string
  readonly path?: string
  readonly host?: string
  readonly fields?: readonly (readonly [name: string, value: string])[]
  readonly content?: string
}

interface Both {
  readonly gateway: RunningGateway
  /** Requests that reached the service. */
  readonly reached: string[]
  readonly http1: (options: RequestOptions) => Promise<{ status: number; body: string }>
  readonly http2: (options: RequestOptions) => Promise<{ status: number; body: string }>
}

/** A gateway over TLS that speaks both versions, and a client of each. */
async function both(
  t: Test,
  more: object = {},
  routes: object[] = [{ name: 'all', match: { path: '/' } }]
): Promise<Both> {
  const reached: string[] = []
  const service = await startRawService((socket) => {
    let text = ''
    socket.on('data', (chunk: Buffer) => {
      text += chunk.toString('latin1')
      const end = text.indexOf('\r\n\r\n')
      if (end === -1) return
      const fields = text.slice(0, end).split('\r\n')
      reached.push(`${fields[0]} ${fields.find((line) => /^host:/i.test(line))}`)
      text = ''
      const body = String(fields.length)
      socket.write(`HTTP/1.1 200 OK\r\nContent-Length: ${body.length}\r\n\r\n${body}`)
    })
  })
  t.teardown(service.close)
  const gateway = await startGateway(
    {
      admin: { port: 0 },
      services: { any: { instances: [service.url] } },
      routes: routes.map((route) => ({ service: 'any', ...route })),
      listen: { tls: { cert, key }, http2: true, ...more }
    },
    { log: true }
  )
  t.teardown(gateway.close)
  const session = http2.connect(`https://localhost:${gateway.port}`, { rejectUnauthorized: false })
  session.on('error', () => {})
  t.teardown(() => session.destroy())
  return {
    gateway,
    reached,
    http1: (options) => askHttp1(gateway.port, options),
    http2: (options) => askHttp2(session, options)
  }
}

async function askHttp1(
  port: number,
  { method = 'GET', path = '/', host = 'h', fields = [], content = '' }: RequestOptions
) {
  const socket = tls.connect({ port, host: '127.0.0.1', rejectUnauthorized: false })
  socket.on('error', () => {})
  const lines = [`Host: ${host}`, 'Connection: close', ...fields.map(([name, value]) => `${name}: ${value}`)]
  socket.write(`${method} ${path} HTTP/1.1\r\n${lines.join('\r\n')}\r\n\r\n${content}`, 'latin1')
  let text = ''
  for await (const chunk of socket) text += (chunk as Buffer).toString('latin1')
  const { status, body } = parse(text)
  return { status, body }
}

function askHttp2(
  session: ClientHttp2Session,
  { method = 'GET', path = '/', host = 'h', fields = [], content = '' }: RequestOptions
) {
  const headers: OutgoingHttpHeaders = { ':method': method, ':path': path, ':authority': host }
  for (const [name, value] of fields) headers[name.toLowerCase()] = value
  const stream = session.request(headers, { endStream: content === '' })
  if (content !== '') stream.end(content)
  return new Promise<{ status: number; body: string }>((resolve) => {
    let status = 0
    let body = ''
    stream.on('response', (fields) => {
      status = Number(fields[':status'])
    })
    stream.on('data', (chunk: Buffer) => {
      body += chunk.toString()
    })
    stream.on('error', () => {})
    stream.on('close', () => resolve({ status, body }))
  })
}

const lines = ({ log }: RunningGateway) => log.filter(({ msg }) => msg === 'request')

t.test('invalid hosts are 400, logged, and reach no service', async (t) => {
  const { gateway, reached, ...versions } = await both(t)
  const hosts = ['a,b', 'h:80:80', '*', '%67w.test', 'h:99999', '[::1', 'h:x', 'h..', '.h', 'a..h', '.', '']
  for (const [version, ask] of Object.entries(versions)) {
    for (const host of hosts) {
      // Over HTTP/2, nghttp2 resets the stream of an empty one.
      if (host === '' && version === 'http2') continue
      const before = lines(gateway).length
      const { status, body } = await ask({ host })
      t.equal(status, 400, `${version} "${host}"`)
      t.match(JSON.parse(body), { code: 'JW_BAD_HOST' }, `${version} "${host}"`)
      t.equal(lines(gateway).length, before + 1, `${version} "${host}"`)
    }
    for (const host of ['h', 'h:', 'h:80', '[::1]:8080', 'a_b.example.com.', 'h:65535']) {
      t.equal((await ask({ host })).status, 200, `${version} ${host}`)
    }
  }
  t.equal(reached.length, 12)
})

t.test('HTTP/2: different Host and :authority are 400, equal ones are one', async (t) => {
  const { http2, reached } = await both(t)
  const { status, body } = await http2({ host: 'a', fields: [['host', 'b']] })
  t.equal(status, 400)
  t.match(JSON.parse(body), { code: 'JW_SEVERAL_HOSTS' })
  t.equal((await http2({ host: 'a', fields: [['host', 'a']] })).status, 200)
  t.strictSame(reached, ['GET / HTTP/1.1 host: a'])
})

t.test('bytes beyond ASCII in a target are 400', async (t) => {
  const { reached, ...versions } = await both(t)
  for (const path of ['/caf\xe9', '/caf\xc3\xa9', '/?q=\xff']) {
    // Newer HTTP/1 parsers refuse them.
    t.equal((await versions.http1({ path })).status, 400, path)
    const { status, body } = await versions.http2({ path })
    t.equal(status, 400, path)
    t.match(JSON.parse(body), { code: 'JW_BAD_TARGET' }, path)
  }
  t.strictSame(reached, [])
})

t.test('a Content-Length with leading zeros is 400', async (t) => {
  const { gateway, reached, ...versions } = await both(t)
  for (const [version, ask] of Object.entries(versions)) {
    for (const [value, content] of [
      ['0003', 'abc'],
      ['00', '']
    ] as const) {
      const { status, body } = await ask({ method: 'POST', fields: [['content-length', value]], content })
      t.equal(status, 400, version)
      t.match(JSON.parse(body), { code: 'JW_BAD_FRAMING' }, version)
    }
    t.equal((await ask({ method: 'POST', fields: [['content-length', '0']] })).status, 200, version)
  }
  t.equal(lines(gateway).filter(({ status }) => status === 400).length, 4)
  t.equal(reached.length, 2)
})

t.test('a header section is limited by size, not by its number of fields', async (t) => {
  const { gateway, reached, ...versions } = await both(t)
  const many = (count: number) => Array.from({ length: count }, (_, n) => [`x-${n}`, 'a'] as const)
  for (const [version, ask] of Object.entries(versions)) {
    const { status, body } = await ask({ fields: many(1300) })
    t.equal(status, 200, version)
    t.ok(Number(body) > 1300, `${version}: the service got ${body} fields`)
    t.equal((await ask({ fields: many(2500) })).status, 431, version)
  }
  t.equal(lines(gateway).filter(({ status }) => status === 431).length, 2)
  t.equal(reached.length, 2)
})

t.test(
  'a method that no route takes is 405, one that HTTP does not define is 501; both are logged and counted',
  async (t) => {
    const { gateway, reached, http2 } = await both(t)
    t.equal((await http2({ method: 'PROPFIND' })).status, 405)
    for (const method of ['FOO', 'get', 'G\u0021T']) {
      const { status, body } = await http2({ method, path: '/x?y' })
      t.equal(status, 501, method)
      t.match(JSON.parse(body), { code: 'JW_UNKNOWN_METHOD', error: 'Not Implemented' })
    }
    t.match(lines(gateway), [
      { method: 'PROPFIND', status: 405 },
      { method: 'FOO', path: '/x', route: null, status: 501, error: 'JW_UNKNOWN_METHOD' },
      { method: 'get', status: 501 },
      { method: 'G!T', status: 501 }
    ])
    const metrics = await gateway.server.metrics.metrics()
    t.match(
      metrics,
      'jingwei_edge_requests_total{route="(none)",method="(any)",status="501",direction="north-south"} 3'
    )
    t.notOk(gateway.log.some(({ msg }) => /bug/.test(String(msg))))
    t.notOk(
      gateway.log.some(({ level }) => Number(level) >= 40),
      'a client error is not a gateway error'
    )
    t.strictSame(reached, [])
  }
)
