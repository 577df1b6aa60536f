/** A removed route: 404 for the next request on every protocol, while exchanges in progress continue. */
import { once } from 'node:events'
import { connect as connectHttp2 } from 'node:http2'
import { buffer } from 'node:stream/consumers'
import type { Test } from 'tap'
import t from 'tap'
import { opcodes, open } from '../../helpers/edge/websocket.ts'
import { eventually } from '../../helpers/eventually.ts'
import { selfSigned } from '../../helpers/self-signed.ts'
import type { Changing } from './gateway.ts'
import { startReloading } from './gateway.ts'
import { bodyOf, eventsOf, startCounting } from './service.ts'

async function scene(t: Test, listen: object = {}) {
  const service = await startCounting(t)
  const configOf = (...names: string[]): Changing => ({
    listen,
    services: { any: { instances: [service.url] } },
    routes: names.map((name) => ({ name, match: { path: `/${name}` }, service: 'any' }))
  })
  const gateway = await startReloading(t, configOf('stays', 'removed'))
  return { gateway, service, configOf }
}

t.test('a removed route over HTTP/1.1 and WebSocket', async (t) => {
  const { gateway, service, configOf } = await scene(t)
  const port = Number(new URL(gateway.url).port)
  const { peer } = await open(port, '/removed')
  t.teardown(() => peer.socket.destroy())
  t.equal((await gateway.get('/removed')).status, 200)
  const stream = gateway.get('/removed?events=40&every=50')
  await eventually(() => service.hits() === 3, 'the stream has begun')
  t.equal((await gateway.get('/stays?n=2')).text, bodyOf(2).toString())

  await gateway.reload(configOf('stays'))
  t.equal((await gateway.get('/removed')).status, 404, 'a request on an existing connection gets 404')
  t.equal((await fetch(`${gateway.url}/removed`)).status, 404, 'a request on a new connection gets 404')
  await t.rejects(open(port, '/removed'), /^HTTP\/1\.1 404 /, 'a handshake gets 404')
  t.equal((await gateway.get('/stays')).status, 200)
  peer.send(opcodes.text, 'still there')
  t.equal((await peer.frame(0)).payload.toString(), 'still there', 'the WebSocket stays open')
  t.equal((await stream).text, eventsOf(40), 'the stream is complete')

  await gateway.reload(configOf('stays', 'removed'))
  t.equal((await gateway.get('/removed')).status, 200)
  peer.send(opcodes.text, 'and after another one')
  t.equal((await peer.frame(1)).payload.toString(), 'and after another one')
})

t.test('a removed route over HTTP/2', async (t) => {
  const { gateway, service, configOf } = await scene(t, { tls: selfSigned(t), http2: true })
  const session = connectHttp2(gateway.url, { rejectUnauthorized: false })
  t.teardown(() => session.destroy())
  await once(session, 'connect')
  const ask = async (path: string) => {
    const stream = session.request({ ':path': path })
    const [[headers], body] = await Promise.all([once(stream, 'response'), buffer(stream)])
    return { status: (headers as { ':status': number })[':status'], body: body.toString() }
  }
  t.equal((await ask('/removed')).status, 200)
  const stream = ask('/removed?events=40&every=50')
  await eventually(() => service.hits() === 2, 'the stream has begun')
  t.equal((await ask('/stays?n=2')).body, bodyOf(2).toString())
  await gateway.reload(configOf('stays'))
  t.equal((await ask('/removed')).status, 404)
  t.equal((await ask('/stays')).status, 200)
  t.equal((await stream).body, eventsOf(40))
  await gateway.reload(configOf('stays', 'removed'))
  t.equal((await ask('/removed')).status, 200)
  t.notOk(session.closed, 'the session stays open')
})
