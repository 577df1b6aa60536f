/** Routes that ask for a listener. */
import https from 'node:https'
import type { AddressInfo } from 'node:net'
import t from 'tap'
import { authority, folderFor } from '../helpers/certificates.ts'
import { configOf } from '../helpers/gateway.ts'
import type { ReceivedResponse } from '../helpers/listeners.ts'
import { ask, ask2, drain, running, service } from '../helpers/listeners.ts'

t.setTimeout(60_000)

const route = (name: string, path: string, listeners?: string[], more: object = {}) => ({
  name,
  match: { path, ...(listeners && { listeners }) },
  service: 'any',
  ...more
})

t.test('routes of one listener are 404 on others, over HTTP/1.1, TLS and HTTP/2', async (t) => {
  const folder = folderFor(t)
  const ours = authority(folder, 'ours')
  const { certFile: cert, keyFile: key } = ours.issue('localhost', { san: 'DNS:localhost,IP:127.0.0.1' })
  const listen = [
    { name: 'public', host: '127.0.0.1', port: 0, drain },
    { name: 'internal', host: '127.0.0.1', port: 0 },
    { name: 'secure', host: '127.0.0.1', port: 0, tls: { cert, key }, http2: true }
  ]
  const services = { any: { instances: [await service(t)] } }
  const routes = [
    route('all', '/all'),
    route('inner', '/inner', ['internal']),
    route('both', '/both', ['internal', 'secure']),
    route('here', '/same', ['public']),
    route('there', '/same', ['internal'], { edge: { cors: { origin: ['https://a.example'] } } }),
    route('cased', '/INNER', ['public'])
  ]
  const { portOf, reload, metrics, runtime } = await running(t, folder, { listen, services, routes })
  const statuses = async (get: (path: string) => Promise<ReceivedResponse>) => {
    const found: Record<string, number> = {}
    for (const path of ['/all', '/inner', '/both', '/same']) found[path] = (await get(path)).status
    return found
  }
  const ca = ours.cert
  const on = (name: string) => (path: string) => ask({ port: portOf(name), path })
  t.same(await statuses(on('public')), { '/all': 200, '/inner': 404, '/both': 404, '/same': 200 })
  t.same(await statuses(on('internal')), { '/all': 200, '/inner': 200, '/both': 200, '/same': 200 })
  const secure = { '/all': 200, '/inner': 404, '/both': 200, '/same': 404 }
  t.same(await statuses((path) => ask({ port: portOf('secure'), path, ca }, https)), secure)
  t.same(await statuses((path) => ask2(portOf('secure'), ca, { ':path': path })), secure)
  t.equal(
    (await ask({ port: portOf('public'), path: '/both', method: 'PROPFIND' })).status,
    404,
    '404 for other methods, too'
  )
  t.equal((await ask({ port: portOf('internal'), path: '/both', method: 'PROPFIND' })).status, 405)
  t.match(
    await metrics(),
    /jingwei_edge_requests_total\{route="there",method="GET",status="200",direction="north-south"\} 1/
  )

  const preflight = { origin: 'https://a.example', 'access-control-request-method': 'GET' }
  const allowed = async (name: string) =>
    (await ask({ port: portOf(name), path: '/same', method: 'OPTIONS', headers: preflight })).headers[
      'access-control-allow-origin'
    ]
  t.same([await allowed('public'), await allowed('internal')], [undefined, 'https://a.example'])

  const { port } = runtime.admin!.address as AddressInfo
  const admin = async (path: string) => (await fetch(`http://127.0.0.1:${port}${path}`)).json() as Promise<unknown>
  t.match(await admin('/admin/routes'), [{}, { match: { path: '/inner', listeners: ['internal'] } }])
  t.match(await admin('/admin/explain?path=/inner'), { route: null, refused: { status: 404 } })
  t.match(await admin('/admin/explain?path=/inner&listener=internal'), {
    request: { listener: 'internal' },
    route: 'inner'
  })
  t.match(await admin('/admin/explain?path=/inner&listener=none'), {
    refused: { message: /there are public, internal/ }
  })

  const changed = routes.map((each) => (each.name === 'inner' ? route('inner', '/inner') : each))
  t.equal((await reload({ listen, services, routes: changed })).applied, true)
  t.equal((await on('public')('/inner')).status, 200)
})

t.test('faults of match.listeners are reported', async (t) => {
  const faultsOf = (routes: object[]) => {
    const listen = [{ name: 'public', port: 1 }, { name: 'internal', port: 2 }] // biome-ignore format: a list
    try {
      configOf({ listen, services: { any: { instances: ['http://a'] } }, routes })
    } catch (error) {
      return (error as { faults: { path: string; message: string }[] }).faults.map(
        (each) => `${each.path}: ${each.message}`
      )
    }
    return []
  }
  t.same(faultsOf([route('a', '/', ['interna'])]), [
    'routes[0].match.listeners[0]: no listener is named "interna"; did you mean "internal"?'
  ])
  t.same(faultsOf([route('a', '/', ['public']), route('b', '/', ['internal'])]), [])
  t.match(faultsOf([route('a', '/', ['public']), route('b', '/', ['internal', 'public'])]), [
    /^routes\[1\]\.match: routes "a" \(on line 1\) and "b" match the same requests/
  ])
  t.match(faultsOf([route('a', '/'), route('b', '/', ['internal'])]), [/^routes\[1\]\.match: routes "a" .* and "b"/])
})
