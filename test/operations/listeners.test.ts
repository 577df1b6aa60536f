/** Several listeners of one gateway: addresses and Unix sockets, TLS, trust, and limits of each. */
import { once } from 'node:events'
import { existsSync, readdirSync, statSync, writeFileSync } from 'node:fs'
import type http from 'node:http'
import https from 'node:https'
import net from 'node:net'
import { dirname, join } from 'node:path'
import tls from 'node:tls'
import t from 'tap'
import { start } from '../../app.ts'
import { loadConfig } from '../../plugins/config.ts'
import { Listener } from '../../plugins/operations/listener.ts'
import { authority, folderFor } from '../helpers/certificates.ts'
import { startService } from '../helpers/gateway.ts'
import type { ReceivedResponse } from '../helpers/listeners.ts'
import { ask, ask2, clientView, drain, routesTo, running, seen, service, shake } from '../helpers/listeners.ts'

t.setTimeout(60_000)

t.test('trusted peers of one listener are not trusted on another', async (t) => {
  const folder = folderFor(t)
  const ours = authority(folder, 'ours')
  const { certFile: cert, keyFile: key } = ours.issue('localhost', { san: 'DNS:localhost,IP:127.0.0.1' })
  const options = { cert, key }
  const url = await service(t)
  const gateway = await running(t, folder, {
    listen: [
      { name: 'public', host: '127.0.0.1', port: 0, drain },
      { name: 'inner', host: '127.0.0.1', port: 0, trustProxy: ['127.0.0.1', '10.0.0.0/8'] },
      { name: 'other', host: '127.0.0.1', port: 0, trustProxy: ['127.0.0.1', '192.168.0.0/16'] },
      { name: 'partly', host: '127.0.0.1', port: 0, trustProxy: ['127.0.0.1'], trustHeaders: ['x-forwarded-proto'] },
      { name: 'public-tls', host: '127.0.0.1', port: 0, tls: options, http2: true },
      {
        name: 'inner-tls',
        host: '127.0.0.1',
        port: 0,
        tls: options,
        http2: true,
        trustProxy: ['127.0.0.1', '10.0.0.0/8']
      }
    ],
    ...routesTo(url)
  })
  const forwarded = {
    'x-forwarded-for': '203.0.113.9, 192.168.0.5, 10.0.0.7',
    'x-forwarded-proto': 'https',
    'x-forwarded-host': 'forwarded.example'
  }
  const { portOf } = gateway

  const distrusts = (response: ReceivedResponse, listener: string, scheme: string) => {
    const { host: _host, ...rest } = clientView(response)
    t.same(rest, { listener, ip: '127.0.0.1', ips: ['127.0.0.1'], protocol: scheme, trusted: false }, listener)
    t.notMatch(clientView(response).host, 'forwarded.example')
    t.equal(seen(response)['x-forwarded-for'], '127.0.0.1')
    t.equal(seen(response)['x-forwarded-proto'], scheme)
    t.notMatch(seen(response)['x-forwarded-host'], 'forwarded.example')
  }
  const trusts = (response: ReceivedResponse, listener: string, ip: string) => {
    t.match(clientView(response), { listener, ip, host: 'forwarded.example', protocol: 'https', trusted: true })
    t.equal(seen(response)['x-forwarded-for'], `${forwarded['x-forwarded-for']}, 127.0.0.1`)
    t.equal(seen(response)['x-forwarded-host'], 'forwarded.example')
  }

  await t.test('HTTP/1.1', async (t) => {
    distrusts(await ask({ port: portOf('public'), headers: forwarded }), 'public', 'http')
    trusts(await ask({ port: portOf('inner'), headers: forwarded }), 'inner', '192.168.0.5')
    trusts(await ask({ port: portOf('other'), headers: forwarded }), 'other', '10.0.0.7')
    const gap = { 'x-forwarded-for': '203.0.113.8, 203.0.113.9, ,10.0.0.7,' }
    t.equal(
      clientView(await ask({ port: portOf('inner'), headers: gap })).ip,
      '203.0.113.9',
      'empty entries are ignored'
    )
    t.equal(clientView(await ask({ port: portOf('other'), headers: gap })).ip, '10.0.0.7')
    const partly = await ask({ port: portOf('partly'), headers: forwarded })
    t.match(clientView(partly), { ip: '127.0.0.1', protocol: 'https', trusted: true })
    t.notMatch(clientView(partly).host, 'forwarded.example')
    t.equal(seen(partly)['x-forwarded-for'], '127.0.0.1')
    t.end()
  })
  await t.test('HTTPS and HTTP/2', async (t) => {
    const ca = ours.cert
    distrusts(await ask({ port: portOf('public-tls'), headers: forwarded, ca }, https), 'public-tls', 'https')
    distrusts(await ask2(portOf('public-tls'), ca, forwarded), 'public-tls', 'https')
    trusts(await ask({ port: portOf('inner-tls'), headers: forwarded, ca }, https), 'inner-tls', '192.168.0.5')
    trusts(await ask2(portOf('inner-tls'), ca, forwarded), 'inner-tls', '192.168.0.5')
    t.end()
  })
  await t.test('WebSocket', async (t) => {
    const believed = async (name: string) => {
      const headers = await shake(portOf(name), forwarded)
      return (JSON.parse(headers['x-seen'] as string) as http.IncomingHttpHeaders)['x-forwarded-for']
    }
    t.equal(await believed('public'), '127.0.0.1')
    t.equal(await believed('inner'), `${forwarded['x-forwarded-for']}, 127.0.0.1`)
    t.end()
  })
})

t.test('connections and refusals are counted by listener, also after a reload', async (t) => {
  const folder = folderFor(t)
  const url = await service(t)
  const listen = [
    { name: 'one', host: '127.0.0.1', port: 0, drain },
    { name: 'two', host: '127.0.0.1', port: 0 }
  ]
  const gateway = await running(t, folder, { listen, ...routesTo(url) })
  const held: net.Socket[] = []
  t.teardown(() => {
    for (const socket of held) socket.destroy()
  })
  const hold = async (name: string) => {
    const socket = net.connect(gateway.portOf(name), '127.0.0.1')
    held.push(socket)
    socket.write('GET / HTTP/1.1\r\nhost: a\r\n\r\n')
    await once(socket, 'data')
  }
  for (const name of ['one', 'two', 'two']) await hold(name)
  for (const round of ['before', 'after']) {
    const text = await gateway.metrics()
    t.match(text, /^jingwei_edge_connections\{listener="one"\} 1$/m, round)
    t.match(text, /^jingwei_edge_connections\{listener="two"\} 2$/m, round)
    if (round === 'before') t.equal((await gateway.reload({ listen, ...routesTo(url) })).applied, true)
  }
  const bad = net.connect(gateway.portOf('two'), '127.0.0.1').end('GARBAGE\r\n\r\n')
  bad.resume()
  await once(bad, 'close')
  const text = await gateway.metrics()
  t.match(text, /^jingwei_edge_refused_total\{reason="malformed",listener="one"\} 0$/m)
  t.match(text, /^jingwei_edge_refused_total\{reason="malformed",listener="two"\} 1$/m)
  const { status } = await ask({ port: gateway.portOf('one'), path: '/%zz' })
  t.equal(status, 400)
  t.match(await gateway.metrics(), /^jingwei_edge_refused_total\{reason="bad-path",listener="one"\} 1$/m)
})

t.test('limits are per listener', async (t) => {
  const folder = folderFor(t)
  const url = await service(t)
  const short = { name: 'short', host: '127.0.0.1', port: 0, drain, limits: { url: '100b' } }
  const listen = [short, { name: 'long', host: '127.0.0.1', port: 0 }]
  const gateway = await running(t, folder, { listen, ...routesTo(url) })
  const path = `/${'a'.repeat(200)}`
  t.equal((await ask({ port: gateway.portOf('short'), path })).status, 414)
  t.equal((await ask({ port: gateway.portOf('long'), path })).status, 200)
  const { port } = gateway.runtime.admin!.address as net.AddressInfo
  const explained = async (name: string) =>
    (await fetch(`http://127.0.0.1:${port}/admin/explain?listener=${name}&path=${path}`)).json() as Promise<unknown>
  t.match(await explained('short'), { refused: { status: 414 } })
  t.match(await explained('long'), { route: 'all' })
  const changed = { ...short, limits: { url: '1kb' } }
  t.equal((await gateway.reload({ listen: [changed, listen[1]], ...routesTo(url) })).applied, true)
  t.equal((await ask({ port: gateway.portOf('short'), path })).status, 200)
})

t.test('a listener can have a Unix socket', async (t) => {
  const folder = folderFor(t)
  const url = await service(t)
  const socketPath = join(folder, 'gateway.sock')
  const listen = [
    { name: 'public', host: '127.0.0.1', port: 0, drain },
    { name: 'local', path: 'gateway.sock', socketMode: '0600', trustProxy: ['unix'] }
  ]
  // A socket file as a killed process leaves it.
  const dead = await startDead(socketPath)
  t.ok(dead)
  const gateway = await running(t, folder, { listen, ...routesTo(url) })
  t.equal(statSync(socketPath).mode & 0o777, 0o600)
  const headers = { 'x-forwarded-for': '203.0.113.9' }
  const response = await ask({ socketPath, headers })
  t.match(clientView(response), { listener: 'local', ip: '203.0.113.9', trusted: true })
  t.equal(seen(response)['x-forwarded-for'], '203.0.113.9, unknown')
  t.match(clientView(await ask({ port: gateway.portOf('public'), headers })), { ip: '127.0.0.1', trusted: false })

  const second = { listen: { path: 'gateway.sock' }, admin: false, ...routesTo(url) }
  const file = join(folder, 'second.yaml')
  writeFileSync(file, JSON.stringify(second))
  await t.rejects(start(await loadConfig(file)), /listen\.path: cannot listen on .*gateway\.sock: .*EADDRINUSE/)
  t.equal((await ask({ socketPath, headers })).status, 200)
  await gateway.runtime.close()
  t.notOk(existsSync(socketPath))

  writeFileSync(socketPath, 'no socket')
  await t.rejects(start(await loadConfig(file)), /EADDRINUSE/)
  t.ok(existsSync(socketPath))
})

t.test('TLS is per listener, also in a reload, which applies all changes or none', async (t) => {
  const folder = folderFor(t)
  const url = await service(t)
  const ours = authority(folder, 'ours')
  const certificate = (name: string) => {
    const { certFile: cert, keyFile: key } = ours.issue(name, { san: `DNS:${name}` })
    return { cert, key }
  }
  const [a, b, c] = [certificate('a.example'), certificate('b.example'), certificate('c.example')]
  const listen = (one: object, two: object) => [
    { name: 'one', host: '127.0.0.1', port: 0, drain, tls: one },
    { name: 'two', host: '127.0.0.1', port: 0, http2: true, tls: two }
  ]
  const gateway = await running(t, folder, { listen: listen(a, b), ...routesTo(url) })
  const shown = async (name: string) => {
    const socket = tls.connect({ host: '127.0.0.1', port: gateway.portOf(name), rejectUnauthorized: false })
    await once(socket, 'secureConnect')
    const { subjectaltname } = socket.getPeerCertificate()
    socket.destroy()
    return subjectaltname
  }
  const both = async () => [await shown('one'), await shown('two')]
  t.same(await both(), ['DNS:a.example', 'DNS:b.example'])
  const bad = await gateway.reload({ listen: listen(c, { ...c, ca: './none.pem' }), ...routesTo(url) })
  t.match(bad, { applied: false, faults: [{ path: 'listen[1].tls.ca' }] })
  t.same(await both(), ['DNS:a.example', 'DNS:b.example'])
  const asking = { ...c, clientCertificate: { mode: 'require', ca: a.cert } }
  t.equal((await gateway.reload({ listen: listen(asking, c), ...routesTo(url) })).applied, true)
  t.equal(await shown('two'), 'DNS:c.example')
  const ca = ours.cert
  await t.rejects(ask({ port: gateway.portOf('one'), ca, servername: 'c.example' }, https))
  t.equal((await ask({ port: gateway.portOf('two'), ca, servername: 'c.example' }, https)).status, 200)
  const metrics = await gateway.metrics()
  for (const name of ['one', 'two']) {
    t.match(metrics, new RegExp(`^jingwei_edge_certificate_expiry_timestamp_seconds\\{listener="${name}",`, 'm'))
    t.match(metrics, new RegExp(`^jingwei_edge_certificates_unusable\\{listener="${name}"\\} 0$`, 'm'))
  }
  t.match(metrics, /^jingwei_edge_refused_total\{reason="client-certificate",listener="one"\} 1$/m)
  const without = { name: 'one', host: '127.0.0.1', port: 0 }
  const { faults } = await gateway.reload({ listen: [without, listen(c, c)[1]], ...routesTo(url) })
  t.match(faults, [{ path: 'listen[0].tls' }])
})

t.test('without trust, the peers of a Unix socket are one client', async (t) => {
  const folder = folderFor(t)
  const url = await service(t)
  const services = { any: { instances: [url], mesh: { balance: { policy: 'ring-hash', hashOn: 'ip' } } } }
  const edge = { rateLimit: { max: 2, window: '1m' } }
  const listen = { path: 'gateway.sock', drain }
  const gateway = await running(t, folder, { listen, edge, ...routesTo(url), services })
  const socketPath = join(folder, 'gateway.sock')
  const headers = (entry: number) => ({ 'x-forwarded-for': `203.0.113.${entry}` })
  const response = await ask({ socketPath, headers: headers(1) })
  t.match(clientView(response), { listener: 'default', trusted: false })
  t.equal(seen(response)['x-forwarded-for'], 'unknown')
  t.equal((await ask({ socketPath, headers: headers(2) })).status, 200)
  t.equal((await ask({ socketPath, headers: headers(3) })).status, 429)
  t.match(
    await gateway.metrics(),
    /^jingwei_edge_requests_total\{route="all",method="GET",status="429",direction="north-south"\} 1$/m
  )
})

t.test('one of two gateways that find a stale socket file listens', async (t) => {
  const path = join(folderFor(t), 'gateway.sock')
  t.ok(await startDead(path))
  const listeners = [new Listener('one', {}), new Listener('two', {})]
  const ends = await Promise.allSettled(listeners.map((each) => each.listen({ host: '', port: 0, path })))
  t.teardown(() => Promise.all(listeners.map((each) => each.close())))
  t.same(ends.map(({ status }) => status).sort(), ['fulfilled', 'rejected'])
  t.match(
    ends.find(({ status }) => status === 'rejected'),
    { reason: { code: 'EADDRINUSE' } }
  )
  t.same(readdirSync(dirname(path)), ['gateway.sock'])
})

/** Creates the file of a Unix socket without a listener. */
async function startDead(path: string): Promise<boolean> {
  const { execFile } = await import('node:child_process')
  const code = `require('net').createServer().listen(${JSON.stringify(path)}, () => process.kill(process.pid, 'SIGKILL'))`
  const child = execFile(process.execPath, ['-e', code])
  await once(child, 'exit')
  return existsSync(path)
}

t.test('a change that needs a restart is reported with its entry', async (t) => {
  const folder = folderFor(t)
  const url = await service(t)
  const one = { name: 'one', host: '127.0.0.1', port: 0, drain }
  const two = { name: 'two', host: '127.0.0.1', port: 0 }
  const gateway = await running(t, folder, { listen: [one, two], ...routesTo(url) })
  const paths = async (listen: object) =>
    (await gateway.reload({ listen, ...routesTo(url) })).faults.map(({ path }) => path)
  t.same(await paths([one, { ...two, port: 1 }]), ['listen[1].port'])
  t.same(await paths([one, { ...two, name: 'three' }]), ['listen[1]'])
  t.same(await paths([one]), ['listen'])
  t.same(await paths([one, two, { ...two, name: 'three' }]), ['listen[2]'])
  t.same(await paths([{ ...two, trustProxy: ['127.0.0.1'] }, one]), [], 'the order of the listeners does not matter')
  const headers = { 'x-forwarded-for': '203.0.113.9' }
  t.match(clientView(await ask({ port: gateway.portOf('two'), headers })), { listener: 'two', ip: '203.0.113.9' })
  t.match(clientView(await ask({ port: gateway.portOf('one'), headers })), { listener: 'one', ip: '127.0.0.1' })
})

t.test('a start that fails names the entry', async (t) => {
  const folder = folderFor(t)
  const { port, close } = await startService((_request, response) => response.end())
  t.teardown(close)
  const file = join(folder, 'gateway.yaml')
  const listen = [
    { host: '127.0.0.1', port: 0 },
    { name: 'taken', host: '127.0.0.1', port }
  ]
  writeFileSync(file, JSON.stringify({ listen, admin: false, services: {}, routes: [] }))
  await t.rejects(start(await loadConfig(file)), /listen\[1\]\.port: cannot listen on .*EADDRINUSE/)

  writeFileSync(file, JSON.stringify({ listen: { path: 'none/a.sock' }, admin: false, services: {}, routes: [] }))
  await t.rejects(start(await loadConfig(file)), /listen\.path: cannot listen on .*the folder does not exist/)
})
