/** Header sections beyond 16 KB, both ways, up to the configured limits: over HTTP/1.1, TLS and HTTP/2. */
import { once } from 'node:events'
import http from 'node:http'
import type { ClientHttp2Session, IncomingHttpHeaders } from 'node:http2'
import http2 from 'node:http2'
import https from 'node:https'
import type { Test } from 'tap'
import t from 'tap'
import type { RunningGateway } from '../../helpers/gateway.ts'
import { startGateway } from '../../helpers/gateway.ts'
import { raw } from '../../helpers/mesh/servers.ts'
import { selfSigned } from '../../helpers/self-signed.ts'

const cookies = (count: number) => Array.from({ length: count }, (_, i) => `c${i}=${'v'.repeat(190)}`)

/** Responds to `/N` with N cookies of 200 bytes each; the body is the number of bytes received in `x-large-N`. */
async function cookieService(t: Test) {
  const { url } = await raw(t, (socket) => {
    let text = ''
    socket.on('data', (chunk: Buffer) => {
      text += chunk.toString('latin1')
      if (!text.endsWith('\r\n\r\n')) return
      const count = Number(/^GET \/(\d+)/.exec(text)?.[1])
      const large = [...text.matchAll(/^x-large-\d: (x*)/gm)].map(([, value]) => value!.length)
      const body = String(large.reduce((sum, length) => sum + length, 0))
      text = ''
      const fields = cookies(count).map((cookie) => `Set-Cookie: ${cookie}\r\n`)
      socket.write(`HTTP/1.1 200 OK\r\n${fields.join('')}Content-Length: ${body.length}\r\n\r\n${body}`)
    })
  })
  return url
}

interface Seen {
  status: number
  cookies: readonly string[]
  body: string
}

function overHttp1(gateway: RunningGateway, path: string, headers: Record<string, string>): Promise<Seen> {
  const { get } = gateway.url.startsWith('https:') ? https : http
  const options = { headers, maxHeaderSize: 1 << 20, rejectUnauthorized: false, agent: false as const }
  return new Promise((resolve, reject) => {
    const request = get(`${gateway.url}${path}`, options, (response) => {
      let body = ''
      response.setEncoding('utf8').on('data', (text: string) => {
        body += text
      })
      response.on('end', () =>
        resolve({ status: response.statusCode ?? 0, cookies: response.headers['set-cookie'] ?? [], body })
      )
    })
    request.on('error', reject)
  })
}

async function overHttp2(session: ClientHttp2Session, path: string, headers: Record<string, string>): Promise<Seen> {
  const stream = session.request({ ':path': path, ...headers })
  let body = ''
  stream.setEncoding('utf8').on('data', (text: string) => {
    body += text
  })
  const [fields] = (await once(stream, 'response')) as [IncomingHttpHeaders]
  await once(stream, 'close')
  return { status: Number(fields[':status']), cookies: fields['set-cookie'] ?? [], body }
}

async function ways(t: Test, config: object) {
  const plain = await startGateway(config)
  const secure = await startGateway({
    ...config,
    listen: { ...Reflect.get(config, 'listen'), tls: selfSigned(t), http2: true }
  })
  const settings = { maxHeaderListSize: 1 << 20 }
  const session = http2.connect(secure.url, {
    rejectUnauthorized: false,
    maxHeaderListPairs: 10_000,
    maxSendHeaderBlockLength: 1 << 20,
    settings
  })
  t.teardown(async () => {
    session.destroy()
    await Promise.all([plain.close(), secure.close()])
  })
  return {
    'HTTP/1.1': (path: string, headers = {}) => overHttp1(plain, path, headers),
    TLS: (path: string, headers = {}) => overHttp1(secure, path, headers),
    'HTTP/2': (path: string, headers = {}) => overHttp2(session, path, headers)
  }
}

t.test('header sections of responses have up to 64 KB by default, and a limit per service', async (t) => {
  const url = await cookieService(t)
  const config = {
    mesh: { retry: false },
    services: { any: { instances: [url] }, large: { instances: [url], mesh: { maxHeaderSize: '128kb' } } },
    routes: [
      { name: 'any', match: { path: '/' }, service: 'any' },
      { name: 'large', match: { path: '/large' }, service: 'large', path: { strip: '/large' } }
    ]
  }
  for (const [name, ask] of Object.entries(await ways(t, config))) {
    for (const [path, count] of [
      ['/150', 150],
      ['/300', 300],
      ['/large/500', 500]
    ] as const) {
      const { status, cookies: got, body } = await ask(path)
      t.strictSame([status, body, got.length], [200, '0', count], `${name} ${path}`)
      t.ok(got.join() === cookies(count).join(), 'the header section is forwarded byte for byte')
    }
    for (const path of ['/400', '/large/700']) {
      const { status, body } = await ask(path)
      t.match([status, body], [502, /JW_UPSTREAM_HEADERS_TOO_LARGE/], `${name} ${path}`)
    }
  }
})

t.test('header sections of requests have the limit of listen.limits.headers', async (t) => {
  const config = {
    listen: { limits: { headers: '128kb' } },
    services: { any: { instances: [await cookieService(t)] } },
    routes: [{ name: 'any', match: { path: '/' }, service: 'any' }]
  }
  for (const [name, ask] of Object.entries(await ways(t, config))) {
    // One field of HTTP/2 has at most 64 KB.
    const large = (count: number) => {
      return Object.fromEntries(Array.from({ length: count }, (_, i) => [`x-large-${i}`, 'x'.repeat(50_000)]))
    }
    t.match(await ask('/1', large(2)), { status: 200, body: '100000' }, name)
    t.match(await ask('/1', large(3)), { status: 431 }, name)
  }
})
