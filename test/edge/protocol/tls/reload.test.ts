// slow: takes about 4 s
/** Changes of `listen.tls` by a reload: the listener applies them without a restart. */
import { writeFileSync } from 'node:fs'
import type { AddressInfo } from 'node:net'
import type { Test } from 'tap'
import t from 'tap'
import { start } from '../../../../app.ts'
import { loadConfig } from '../../../../plugins/config.ts'
import { authority } from '../../../helpers/certificates.ts'
import { startEcho } from '../../../helpers/gateway.ts'
import type { Scene } from './support.ts'
import { askOver, lay, scene, sessionTo, shake } from './support.ts'

/** A gateway with this `listen.tls`, and the function that changes it. */
async function running(t: Test, { path }: Scene, tls: object) {
  const echo = await startEcho()
  t.teardown(echo.close)
  const file = path('gateway.yaml')
  const write = (listen: object) => {
    const services = { any: { instances: [echo.url] } }
    const routes = [{ name: 'all', match: { path: '/' }, service: 'any' }]
    const drain = { delay: 0, timeout: '1s' }
    const all = { listen: { host: '127.0.0.1', port: 0, http2: true, drain, ...listen }, admin: { port: 0 } }
    writeFileSync(file, JSON.stringify({ ...all, edge: { accessLog: false }, services, routes }))
  }
  write({ tls })
  const runtime = await start(await loadConfig(file))
  t.teardown(() => runtime.close())
  const reload = async (listen: object) => {
    write(listen)
    return runtime.reload('test')
  }
  const certificates = () => runtime.gateway!.certificates()
  return { port: (runtime.listeners[0]!.address as AddressInfo).port, reload, certificates }
}

t.test('certificates and client certificates change, and connections continue', async (t) => {
  const all = scene(t)
  const one = authority(all.folder, 'one')
  const [main, second] = [all.issue('main', ['*.example']), all.issue('second', ['second.example'])]
  const { cert, key } = one.issue('alice')
  const first = { cert: main.certFile, key: main.keyFile }
  const { port, reload, certificates } = await running(t, all, first)
  const session = await sessionTo(t, port, { servername: 'www.example' })
  t.match(await askOver(session, 'admin.example'), { status: 200 })
  t.match(await shake(port, { servername: 'second.example' }), { shown: 'main', status: 200 })

  const more = [{ cert: second.certFile, key: second.keyFile }]
  const hosts = [{ names: ['admin.example'], clientCertificate: { ca: one.file } }]
  t.match(await reload({ tls: { ...first, certificates: more, hosts } }), { applied: true, faults: [] })
  t.match(await shake(port, { servername: 'second.example' }), { shown: 'second', status: 200 })
  t.match(await askOver(session, 'www.example'), { status: 200 })
  t.match(await askOver(session, 'admin.example'), { status: 421 })
  t.match(await shake(port, { servername: 'admin.example' }, 'admin.example'), { status: 0 })
  t.match(await shake(port, { servername: 'admin.example', cert, key }, 'admin.example'), { status: 200 })
  t.same(
    certificates().map(({ use }) => use),
    ['server', 'server', 'clients']
  )

  t.match(await reload({ tls: first }), { applied: true })
  t.match(await askOver(session, 'admin.example'), { status: 200 })
  t.match(await shake(port, { servername: 'second.example' }), { shown: 'main', status: 200 })
})

t.test('invalid certificates reject the reload, and change nothing', async (t) => {
  const all = scene(t)
  const main = all.issue('main')
  const first = { cert: main.certFile, key: main.keyFile }
  const { port, reload } = await running(t, all, first)
  lay(main, all.path('bad'))
  writeFileSync(all.path('bad/tls.key'), 'no key')
  const bad = { cert: all.path('bad/tls.crt'), key: all.path('bad/tls.key') }
  t.match(await reload({ tls: { certificates: [bad] } }), {
    applied: false,
    faults: [{ path: 'listen.tls.certificates[0].key', message: /tls\.key contains no private key$/ }]
  })
  t.match(await shake(port), { shown: 'main', status: 200 })
})

t.test('a listener keeps TLS on until a restart', async (t) => {
  const all = scene(t)
  const main = all.issue('main')
  const { port, reload } = await running(t, all, { cert: main.certFile, key: main.keyFile })
  t.match(await reload({ http2: false }), { applied: false })
  t.match(await shake(port), { shown: 'main', status: 200 })
})
