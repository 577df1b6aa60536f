/** One active check over real sockets. */
import { once } from 'node:events'
import { readFileSync } from 'node:fs'
import https from 'node:https'
import type { AddressInfo, Socket } from 'node:net'
import type { Test } from 'tap'
import t from 'tap'
import { buildConnector } from 'undici'
import { probeOf } from '../../../plugins/mesh/health/probe.ts'
import type { Open } from '../../../plugins/mesh/http/pool.ts'
import { eventually } from '../../helpers/eventually.ts'
import { checkOptions } from '../../helpers/mesh/health.ts'
import { connecting, raw, refused, resetting, silent, upstream } from '../../helpers/mesh/servers.ts'
import { selfSigned } from '../../helpers/self-signed.ts'

/** Without SNI, which an address cannot have. */
function connectorOf(origin: string, options: buildConnector.BuildOptions = {}): Open {
  const connect = buildConnector({ allowH2: false, ...options })
  const { protocol, hostname, host, port } = new URL(origin)
  const address = { protocol, hostname: hostname.replace(/^\[|\]$/g, ''), host, port }
  return (callback) => connect(address, (error, socket) => callback(error, socket)) as unknown as Socket
}

function ask(origin: string, options: object = {}, connector = connectorOf(origin)): Promise<string | null> {
  return new Promise((resolve) => probeOf(origin, checkOptions({ timeout: '10s', ...options }), connector)(resolve))
}

t.test('a check succeeds with the expected statuses', async (t) => {
  const { url } = await upstream(t, 'a', (request, response) => {
    response.writeHead(Number(request.url!.slice(1)), { location: '/200' }).end()
  })
  const table: [statuses: (string | number)[], status: number, healthy: boolean][] = [
    [['200-299'], 200, true],
    [['200-299'], 299, true],
    [['200-299'], 300, false],
    [['200-299'], 302, false],
    [['200-299'], 404, false],
    [['200-299'], 500, false],
    [[200, '401-403', 429], 200, true],
    [[200, '401-403', 429], 201, false],
    [[200, '401-403', 429], 402, true],
    [[200, '401-403', 429], 429, true],
    [[503], 503, true]
  ]
  for (const [statuses, status, healthy] of table) {
    const failure = await ask(url, { path: `/${status}`, statuses })
    t.equal(failure, healthy ? null : `GET /${status} responded with ${status}`)
  }
})

t.test('the request of a check has the configured path and Host', async (t) => {
  const { url, requests, sockets } = await upstream(t, 'a')
  t.equal(await ask(url), null)
  t.equal(await ask(url, { path: '/up?deep=1', host: 'orders.internal' }), null)
  const [first, second] = requests
  t.match(first, { method: 'GET', url: '/health', headers: { host: url.slice('http://'.length) } })
  t.match(second, { method: 'GET', url: '/up?deep=1', headers: { host: 'orders.internal', connection: 'close' } })
  t.equal(second?.headers['user-agent'], 'jingwei-health-check')
  await eventually(() => sockets.size === 0, 'each connection to be closed')
})

t.test('an interim response does not count', async (t) => {
  const { url } = await raw(t, (socket) =>
    socket.once('data', () => socket.end('HTTP/1.1 103 Early\r\n\r\nHTTP/1.1 500 No\r\nContent-Length: 0\r\n\r\n'))
  )
  t.equal(await ask(url), 'GET /health responded with 500')
})

t.test('a failed check has its reason', async (t) => {
  const gone = await refused()
  t.equal(await ask(gone), 'connection refused')
  t.equal(await ask(gone, { type: 'tcp' }), 'connection refused')
  t.equal(await ask((await resetting(t)).url), 'connection reset')
  const closing = await raw(t, (socket) => socket.once('data', () => socket.end()))
  t.equal(await ask(closing.url), 'connection closed before the end of the response')
  const truncated = await raw(t, (socket) =>
    socket.once('data', () => socket.end('HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nshort'))
  )
  t.match(await ask(truncated.url), /^GET \/health: /)
  const babbling = await raw(t, (socket) => socket.once('data', () => socket.end('SSH-2.0-OpenSSH_9\r\n')))
  t.type(await ask(babbling.url), 'string')
})

t.test('the timeout bounds the whole check, and leaves no connection', async (t) => {
  const timeout = { timeout: '50ms' }
  const mute = await silent(t)
  t.equal(await ask(mute.url, timeout), 'GET /health: no response within 50 ms')
  await eventually(() => mute.sockets.size === 0, 'the connection to close')

  const stuck = await raw(t, (socket) =>
    socket.once('data', () => socket.write('HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nshort'))
  )
  t.equal(await ask(stuck.url, timeout), 'GET /health: no response within 50 ms', 'the timeout includes the body')
  await eventually(() => stuck.sockets.size === 0, 'the connection to close')

  for (const type of ['http', 'tcp']) {
    const handshaking = await connecting(t)
    t.match(await ask(handshaking.url, { ...timeout, type }, connectorOf(handshaking.url)), /no response within 50 ms$/)
    await eventually(() => handshaking.sockets.size === 0, 'a connection in the making to be given up')
  }
})

t.test('a response that has arrived while the event loop was blocked counts', async (t) => {
  const { url } = await upstream(t, 'a', (_request, response) => {
    response.end('well')
    const end = performance.now() + 300
    while (performance.now() < end);
  })
  t.equal(await ask(url, { timeout: '200ms' }), null)
})

t.test('a body without end is not read to its end', async (t) => {
  let sent = 0
  const { url, sockets } = await upstream(t, 'a', (_request, response) => {
    const more = () => {
      while (!response.destroyed && response.write(Buffer.alloc(16 * 1024))) sent += 16 * 1024
    }
    response.on('drain', more)
    more()
  })
  t.equal(await ask(url), null, 'the status decides')
  await eventually(() => sockets.size === 0, 'the connection to close')
  t.ok(sent < 8 * 1024 * 1024)
})

t.test('tcp: a connection suffices', async (t) => {
  const server = await raw(t, () => {})
  t.equal(await ask(server.url, { type: 'tcp' }), null)
  t.equal(await ask((await silent(t)).url, { type: 'tcp' }), null)
  await eventually(() => server.count() === 1 && server.sockets.size === 0, 'the connection to close')
})

t.test('a cancelled check has no result, and leaves no connection', async (t) => {
  for (const type of ['http', 'tcp'] as const) {
    const server = await silent(t)
    let results = 0
    const callOff = probeOf(
      server.url,
      checkOptions({ type, timeout: '20ms' }),
      connectorOf(server.url)
    )(() => results++)
    callOff()
    callOff()
    await new Promise((resolve) => setTimeout(resolve, 60))
    t.equal(results, 0)
    await eventually(() => server.sockets.size === 0, 'no open connection')
  }
})

t.test('a connector that fails at once, or later with an error of the mesh', async (t) => {
  const throwing: Open = () => {
    throw new Error('no credentials')
  }
  const refusing: Open = (callback) => {
    queueMicrotask(() => callback(new Error('no credentials'), null))
    return undefined
  }
  for (const connector of [throwing, refusing]) {
    for (const type of ['http', 'tcp']) t.equal(await ask('http://127.0.0.1:1', { type }, connector), 'no credentials')
  }
})

t.test('a connection that comes too late is closed', async (t) => {
  const server = await silent(t)
  for (const type of ['http', 'tcp']) {
    let connected = 0
    const waiting: Open = (callback, onread) => {
      setTimeout(() => {
        connectorOf(server.url)((...result) => {
          connected++
          callback(...result)
        }, onread)
      }, 50)
      return undefined
    }
    t.match(await ask(server.url, { type, timeout: '10ms' }, waiting), /no response within 10 ms/)
    await eventually(() => connected === 1, 'the late connection')
    await eventually(() => server.sockets.size === 0, 'the late connection to close')
  }
})

t.test('network errors have plain texts', async (t) => {
  for (const [code, words] of [
    ['ENOTFOUND', 'host name not found'],
    ['EHOSTUNREACH', 'host unreachable'],
    ['UND_ERR_CONNECT_TIMEOUT', 'connection timed out'],
    ['EWHATEVER', 'in its own words']
  ]) {
    const error = Object.assign(new Error('in its own words'), { code })
    const failing: Open = (callback) => {
      callback(error, null)
      return undefined
    }
    for (const type of ['http', 'tcp']) t.equal(await ask('http://127.0.0.1:1', { type }, failing), words)
  }
})

t.test('https checks use the connector of the service', async (t: Test) => {
  const { cert, key } = selfSigned(t)
  const server = https.createServer({ key: readFileSync(key), cert: readFileSync(cert) }, (_request, response) => {
    response.end('well')
  })
  server.listen(0, '127.0.0.1')
  await once(server, 'listening')
  t.teardown(() => new Promise<void>((resolve) => void server.close(() => resolve())))
  const url = `https://127.0.0.1:${(server.address() as AddressInfo).port}`
  const trusting = connectorOf(url, { ca: readFileSync(cert) })
  for (const type of ['http', 'tcp']) {
    t.equal(await ask(url, { type }, trusting), null)
    t.match(await ask(url, { type }, connectorOf(url)), /self-signed/, 'the check includes the TLS handshake')
  }
})
