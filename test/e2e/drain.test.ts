// Start and stop of the process: it starts completely or not at all, and SIGTERM loses no request.
import { execFile } from 'node:child_process'
import { once } from 'node:events'
import { mkdtemp, rm } from 'node:fs/promises'
import { createServer } from 'node:http'
import { connect as connectHttp2 } from 'node:http2'
import type { AddressInfo } from 'node:net'
import { connect } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { text } from 'node:stream/consumers'
import { promisify } from 'node:util'
import type { Test } from 'tap'
import t from 'tap'
import type { Wanted } from '../helpers/e2e/config.ts'
import { yamlOf } from '../helpers/e2e/config.ts'
import { appFile, asProcess, configFile } from '../helpers/e2e/gateway.ts'
import { upstream } from '../helpers/e2e/upstream.ts'
import { freePorts, runToEnd, waitFor } from '../helpers/processes.ts'
import { tool } from '../helpers/tools.ts'

const run = promisify(execFile)

async function gatewayFor(t: Test, drain: { delay: string; timeout: string }, accessLog = false) {
  const { port } = await upstream(t, 'a')
  const services = { orders: { instances: [`http://127.0.0.1:${port}`] } }
  return asProcess(t, { services, listen: { drain }, accessLog })
}

const refused = (url: string) => fetch(url).then(
  () => false,
  (error: Error) => (error.cause as { code?: string })?.code === 'ECONNREFUSED'
) // biome-ignore format: short

async function certificate(t: Test): Promise<{ cert: string; key: string }> {
  const cwd = await mkdtemp(join(tmpdir(), 'jingwei-certificate-'))
  t.teardown(() => rm(cwd, { recursive: true, force: true }))
  const { path, env } = await tool('consul')
  await run(path, ['tls', 'ca', 'create'], { cwd, env })
  await run(path, ['tls', 'cert', 'create', '-server'], { cwd, env })
  const file = (name: string) => join(cwd, `dc1-server-consul-0${name}.pem`)
  return { cert: file(''), key: file('-key') }
}

/** Sends one request on a connection that stays open, and waits for the whole response. */
async function rawClient(t: Test, url: string) {
  const { hostname, port } = new URL(url)
  const socket = connect(Number(port), hostname)
  t.teardown(() => socket.destroy())
  await once(socket, 'connect')
  let text = ''
  socket.on('error', () => {}) // an aborted connection is reset
  socket.setEncoding('utf8').on('data', (chunk: string) => {
    text += chunk
  })
  const closed = new Promise<number>((resolve) => socket.once('close', () => resolve(performance.now())))
  const send = (path: string) => void socket.write(`GET ${path} HTTP/1.1\r\nhost: orders.example\r\n\r\n`)
  return { send, closed, responses: () => text.split(/(?=HTTP\/1\.1 )/).filter(Boolean), socket }
}

t.test(
  'on SIGTERM the gateway is not ready, serves through the delay, completes requests in flight and exits with 0',
  async (t) => {
    const gateway = await gatewayFor(t, { delay: '1500ms', timeout: '10s' })
    const idle = await rawClient(t, gateway.url)
    const busy = await rawClient(t, gateway.url)
    const streaming = await rawClient(t, gateway.url)
    idle.send('/orders')
    await waitFor('a response', () => idle.responses().length === 1)
    t.notMatch(idle.responses()[0], /connection: close/i, 'the connection is kept alive before SIGTERM')
    busy.send('/orders?delay=3000')
    streaming.send('/orders?stream=3000')
    await waitFor('the stream has begun', () => streaming.responses().length === 1)

    const began = performance.now()
    gateway.running.kill('SIGTERM')
    await waitFor('not ready', async () => (await gateway.health()).code === 503, 1000)
    t.equal((await gateway.health()).status, 'draining')
    const late = await gateway.send('/orders')
    t.match(late, { status: 200, headers: { connection: 'close' } }, 'still served, with Connection: close')
    idle.send('/orders')
    await waitFor('a response', () => idle.responses().length === 2)
    t.match(
      idle.responses()[1],
      /^HTTP\/1\.1 200 [\s\S]*connection: close/i,
      'an existing connection gets Connection: close'
    )
    await idle.closed
    t.equal((await gateway.send('/missing')).headers.connection, 'close', 'an error response has Connection: close')

    await waitFor('no new connections', () => refused(`${gateway.url}/orders`), 5000)
    t.ok(performance.now() - began >= 1400, 'the gateway ends after the delay')
    t.equal((await gateway.health()).status, 'draining', 'the health check responds to the end')
    await busy.closed
    t.match(
      busy.responses()[0],
      /^HTTP\/1\.1 200 [\s\S]*connection: close[\s\S]*"instance":"a"/i,
      'the request in flight succeeds'
    )
    await streaming.closed
    t.match(streaming.responses()[0], /end of stream\r\n0\r\n\r\n$|end of stream$/, 'the stream is complete')
    t.strictSame(await gateway.running.exited, { code: 0, signal: null })
    const took = performance.now() - began
    t.comment(`ended after ${took.toFixed(0)} ms`)
    t.ok(took < 7000, 'the shutdown does not wait for idle connections')
    t.ok(gateway.log().some(({ msg }) => msg === 'stopped'))
  }
)

t.test('pipelined responses that are queued when draining begins have Connection: close', async (t) => {
  const gateway = await gatewayFor(t, { delay: '5s', timeout: '10s' })
  const client = await rawClient(t, gateway.url)
  client.send('/orders?stream=1500')
  client.send('/orders')
  client.send('/orders')
  await waitFor('the stream has begun', () => client.responses().length === 1)
  gateway.running.kill('SIGTERM')
  await waitFor('it drains', async () => (await gateway.health()).status === 'draining')
  await client.closed
  const [stream, next, ...more] = client.responses()
  t.notMatch(stream, /connection: close/i, 'an earlier header section has no Connection: close')
  t.match(next, /^HTTP\/1\.1 200 [\s\S]*connection: close/i)
  t.strictSame(more, [], 'no response after Connection: close')
  gateway.running.kill('SIGTERM')
  await gateway.running.exited
})

t.test('HTTP/2 sessions get GOAWAY, and streams in flight complete', async (t) => {
  const { port } = await upstream(t, 'a')
  const services = { orders: { instances: [`http://127.0.0.1:${port}`] } }
  const tls = await certificate(t)
  const gateway = await asProcess(t, { services, listen: { tls, http2: true, drain: { delay: '0s', timeout: '10s' } } })
  const session = connectHttp2(gateway.url, { rejectUnauthorized: false })
  t.teardown(() => session.destroy())
  const stream = session.request({ ':path': '/orders?stream=1500' })
  const [{ ':status': status }] = (await once(stream, 'response')) as [{ ':status'?: number }]
  t.equal(status, 200)
  const goaway = once(session, 'goaway')
  const began = performance.now()
  gateway.running.kill('SIGTERM')
  const [code] = await goaway
  t.equal(code, 0)
  t.equal(await text(stream), 'startend of stream')
  t.strictSame(await gateway.running.exited, { code: 0, signal: null })
  t.ok(performance.now() - began < 5000)
})

t.test('SIGINT stops an idle gateway soon, also with open connections', async (t) => {
  const gateway = await gatewayFor(t, { delay: '0s', timeout: '10s' })
  const idle = await rawClient(t, gateway.url)
  idle.send('/orders')
  await waitFor('a response', () => idle.responses().length === 1)
  const silent = await rawClient(t, gateway.url)
  const began = performance.now()
  gateway.running.kill('SIGINT')
  t.strictSame(await gateway.running.exited, { code: 0, signal: null })
  t.ok(performance.now() - began < 5000)
  await Promise.all([idle.closed, silent.closed])
})

t.test('a request that outlasts the drain timeout is aborted, and the process exits with 1', async (t) => {
  const gateway = await gatewayFor(t, { delay: '0s', timeout: '1s' }, true)
  const stuck = await rawClient(t, gateway.url)
  stuck.send('/orders?stream=20000')
  await waitFor('the stream has begun', () => stuck.responses().length === 1)
  const began = performance.now()
  gateway.running.kill('SIGTERM')
  t.strictSame(await gateway.running.exited, { code: 1, signal: null })
  const took = performance.now() - began
  t.ok(took >= 950 && took < 5000, `the shutdown took ${took.toFixed(0)} ms`)
  t.ok(gateway.log().some(({ level, msg }) => level === 'error' && /drain timeout/.test(msg)))
  t.ok(
    gateway.log().some(({ msg, error, status }) => msg === 'request' && error === 'JW_DRAIN_TIMEOUT' && status === 503),
    'the request has an access log line'
  )
  await stuck.closed
})

t.test('a second signal stops the gateway at once', async (t) => {
  const gateway = await gatewayFor(t, { delay: '20s', timeout: '20s' })
  const began = performance.now()
  gateway.running.kill('SIGTERM')
  await waitFor('it drains', async () => (await gateway.health()).status === 'draining')
  gateway.running.kill('SIGTERM')
  t.strictSame(await gateway.running.exited, { code: 1, signal: null })
  t.ok(performance.now() - began < 5000)
})

async function startFails(t: Test, wanted: Wanted | string) {
  const file = await configFile(t, typeof wanted === 'string' ? wanted : yamlOf(wanted))
  const began = performance.now()
  const { code, stdout, stderr } = await runToEnd(process.execPath, [appFile, '-c', file], { timeout: 15_000 })
  t.equal(code, 1)
  t.ok(performance.now() - began < 10_000, 'the process exits by itself')
  t.notMatch(stderr, /jingwei is up/)
  return { file, stdout, lines: stderr.trim().split('\n'), stderr }
}

async function takenPort(t: Test): Promise<number> {
  const server = createServer().listen(0, '127.0.0.1')
  await once(server, 'listening')
  t.teardown(() => server.close())
  return (server.address() as AddressInfo).port
}

t.test('a port that is in use is reported', async (t) => {
  const port = await takenPort(t)
  const { port: instance, hits } = await upstream(t, 'a')
  // An unavailable Consul: its query loop must end, too.
  const services = { orders: { instances: [`http://127.0.0.1:${instance}`] }, users: {} }
  const wanted = { consul: 'http://127.0.0.1:9', services }
  const edge = await startFails(t, { ...wanted, listen: { port } })
  const faultOf = (file: string, key: string) => [
    `${file}:1: ${key}: cannot listen on 127.0.0.1:${port}: the address is in use (EADDRINUSE); ` +
      'stop the program that listens there, or set another port here',
    `1 fault in ${file}; nothing was started`
  ]
  const withoutColumn = ({ lines }: { lines: string[] }) => lines.map((line) => line.replace(/:1:\d+:/, ':1:'))
  t.strictSame(withoutColumn(edge), faultOf(edge.file, 'listen.port'), 'the fault of the edge port')
  const admin = await startFails(t, { ...wanted, adminPort: port })
  t.strictSame(withoutColumn(admin), faultOf(admin.file, 'admin.port'), 'the fault of the admin port')
  t.equal(hits(), 0)
})

t.test('a failed listen is reported with its key, its position and a remedy', async (t) => {
  const port = await takenPort(t)
  const yaml = (text: string) => startFails(t, `${text}\nadmin: { port: 0 }\n`).then(({ stderr }) => stderr)
  t.match(
    await yaml('# first\nlisten:\n  port: 0\n  host: 192.0.2.1'),
    /:4:9: listen\.host: cannot listen on 192\.0\.2\.1:0: no network interface .* \(EADDRNOTAVAIL\); set another host here\n/
  )
  t.match(
    await yaml('listen: { port: 0, host: none.invalid }'),
    /:1:26: listen\.host: .*none\.invalid:0: the host name /
  )
  t.match(
    await yaml(`listen: { host: 127.0.0.1, port: \${EDGE_PORT:-${port}} }`),
    /:1:34: listen\.port: .* \(EADDRINUSE\); stop the program that listens there, or set EDGE_PORT to another port\n/
  )
})

t.test('with npm start, a port that is in use is reported with the variable that changes it', async (t) => {
  const port = String(await takenPort(t))
  const free = async () => String((await freePorts(1))[0])
  const started = async (taken: object) => {
    const ports = {
      PORT: await free(),
      ADMIN_PORT: await free(),
      ORDERS_PORT: await free(),
      ORDERS_PORT_2: await free()
    }
    const others = { PRODUCTS_PORT: await free(), USERS_PORT: await free() }
    const env = { ...process.env, ...ports, ...others, ...taken }
    const { code, stderr } = await runToEnd(process.execPath, [appFile], { env })
    t.equal(code, 1)
    return stderr
  }
  t.match(await started({ PORT: port }), /: listen\.port: .*; stop the program .* or set PORT to another port\n/)
  t.match(
    await started({ ADMIN_PORT: port }),
    /: admin\.port: .*; stop the program .* or set ADMIN_PORT to another port\n/
  )
  t.match(
    await started({ ORDERS_PORT_2: port }),
    new RegExp(
      `: plugins\\[0\\]: .* the service orders cannot listen on 127\\.0\\.0\\.1:${port} \\(EADDRINUSE\\); ` +
        'name another port in "options" and in services\\.orders\\.instances, or set the variable of both \\(services\\.ts:\\d+:\\d+\\)\n'
    )
  )
})

t.test('all faults of a configuration are reported, and nothing is started', async (t) => {
  const port = await takenPort(t)
  const yaml = [
    'listen: { port: 0, prot: 1 }',
    `admin: { port: ${port} }`,
    'mesh: { timeout: soon }',
    'services: { orders: { instances: ["http://127.0.0.1:1"] } }',
    'routes:',
    '  - { name: orders, match: { path: orders }, service: ordrs }'
  ].join('\n')
  const { lines, stderr, stdout, file } = await startFails(t, yaml)
  t.match(stderr, /prot/)
  t.match(stderr, /timeout/)
  t.match(stderr, /path/)
  t.match(stderr, /ordrs/)
  t.ok(lines.filter((line) => line.includes(`${file}:`)).length >= 4, 'each fault has its position')
  t.equal(stdout, '', 'no log line: nothing was started')
})

t.test('a plugin that fails to load is reported', async (t) => {
  const { lines } = await startFails(t, {
    services: {},
    plugins: [{ path: join(import.meta.dirname, '../../package.json') }]
  })
  t.equal(lines.length, 2)
  t.match(lines[0], /plugins\[0\]: cannot load .*package\.json/)
  t.match(lines[1], /^1 fault in /)
})
