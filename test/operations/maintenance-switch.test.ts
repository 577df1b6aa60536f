// slow: takes about 8 s
// Maintenance mode that is switched at run time: across reloads, and by the command line.
import { join } from 'node:path'
import t from 'tap'
import { get, startEcho } from '../helpers/gateway.ts'
import { runToEnd } from '../helpers/processes.ts'
import { startFrom } from './support.ts'

t.setTimeout(60_000)
const echo = await startEcho()
t.teardown(echo.close)
const routes = [
  { name: 'cart', group: 'shop', match: { path: '/cart' } },
  { name: 'list', group: 'shop', match: { path: '/list' } },
  { name: 'blog', match: { path: '/blog' }, service: 'any' },
  { name: 'fixed', match: { path: '/fixed' }, response: { body: 'fixed' } },
  { name: 'none', match: { path: '/none' }, service: 'any', edge: { maintenance: false } }
]
const sections = {
  services: { any: { instances: [echo.url] } },
  groups: { shop: { service: 'any' } },
  routes,
  edge: { maintenance: { enabled: false } }
}

t.test('a reload keeps the switches; a route that is gone loses its own', async (t) => {
  const { runtime, port, adminPort, write } = await startFrom(t, sections)
  t.teardown(() => runtime.close())
  const post = async (path: string) => {
    const response = await fetch(`http://127.0.0.1:${adminPort}/admin/${path}`, { method: 'POST' })
    return response.status
  }
  const reload = async (sections: object) => {
    write(sections)
    return post('reload')
  }
  const status = async (path: string) => (await get(port, path)).status
  await post('maintenance/on?route=cart')
  await post('maintenance/on?route=blog')
  const [cart, ...others] = routes
  t.equal(await reload({ ...sections, routes: [cart, { ...routes[2], name: 'blogs' }] }), 200)
  t.equal(await status('/cart'), 503)
  t.equal(await status('/blog'), 200)
  t.equal(await reload({ ...sections, routes: [cart, { ...routes[2], edge: { bodyLimit: 'x' } }] }), 422)
  t.equal(await reload({ ...sections, routes: [cart, ...others] }), 200)
  t.equal(await status('/cart'), 503)
  t.equal(await status('/blog'), 200)
  await post('maintenance/on?all=true')
  t.equal(
    await reload({ ...sections, routes: [...routes, { name: 'new', match: { path: '/new' }, service: 'any' }] }),
    200
  )
  t.equal(await status('/new'), 503, 'a new route is in the scope of all')
  await post('maintenance/reset?all=true')
  t.equal(await status('/cart'), 200)
  t.equal(await status('/new'), 200)
})

t.test('by the command line', async (t) => {
  const { runtime, port, adminPort, file } = await startFrom(t, sections)
  t.teardown(() => runtime.close())
  const app = join(import.meta.dirname, '../../app.ts')
  const run = (...args: string[]) => runToEnd(process.execPath, [app, 'maintenance', ...args])
  t.match(await run('on', '--route', 'cart', '--config', file), {
    code: 0,
    stdout: 'cart: on (switched on, configured: off, group shop)\n'
  })
  t.equal((await get(port, '/cart')).status, 503)
  t.match(await run('--admin', `http://127.0.0.1:${adminPort}`), {
    code: 0,
    stdout:
      /^cart: on \(switched on.*\nlist: off \(configured: off, group shop\)\nblog: off \(configured: off\)\nfixed: off/
  })
  t.match(await run('off', '--all', '--config', file), { code: 0, stdout: /without edge\.maintenance: none\n$/ })
  t.equal((await get(port, '/cart')).status, 200)
  const wrong: [args: string[], message: RegExp][] = [
    [['on', '--config', file], /give one of --route NAME, --group NAME and --all/],
    [['on', '--route', 'a', '--all', '--config', file], /give one of/],
    [['up', '--all', '--config', file], /maintenance up: expected on, off or reset/],
    [['--all', '--config', file], /say on, off or reset/],
    [['on', '--route', 'crt', '--config', file], /responds 404: no route is named "crt"; did you mean "cart"/],
    [['--admin', 'x'], /--admin x: expected a URL/],
    [['--admin', 'http://127.0.0.1:1'], /no response of the admin port http:\/\/127\.0\.0\.1:1/]
  ]
  for (const [args, message] of wrong) t.match(await run(...args), { code: 1, stderr: message }, args.join(' '))
})
