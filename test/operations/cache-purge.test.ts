// slow: takes about 8 s
// Purges of the response cache by the command line.
import { join } from 'node:path'
import t from 'tap'
import { get, startService } from '../helpers/gateway.ts'
import { runToEnd } from '../helpers/processes.ts'
import { startRedis } from '../helpers/redis.ts'
import { startFrom } from './support.ts'

t.setTimeout(60_000)
const app = join(import.meta.dirname, '../../app.ts')
const run = (...args: string[]) => runToEnd(process.execPath, [app, 'cache', ...args])
const service = await startService((_request, response) =>
  response.writeHead(200, { 'cache-control': 'max-age=60', 'content-length': '1', 'surrogate-key': 'a' }).end('x')
)
t.teardown(service.close)
const services = { any: { instances: [service.url] } }
const routes = [{ name: 'all', match: { path: '/' }, service: 'any' }]
const isHit = async (port: number, path: string) => /hit/.test(String((await get(port, path)).headers['cache-status']))

t.test('from the memory of this node', async (t) => {
  const { runtime, port, adminPort, file } = await startFrom(t, { services, routes, edge: { cache: {} } })
  t.teardown(() => runtime.close())
  for (const path of ['/a', '/b', '/b/c']) await get(port, path)
  t.match(await run('purge', '--prefix', '/b', '--tag', 'a', '--config', file), {
    code: 0,
    stdout: 'removed 2 responses from the memory of this node only: purge each of the other nodes by --admin\n'
  })
  t.ok(await isHit(port, '/a'))
  t.notOk(await isHit(port, '/b'))
  t.match(await run('purge', '--path', '/a', '--admin', `http://127.0.0.1:${adminPort}`), {
    code: 0,
    stdout: /^removed 1 response from/
  })
  t.match(await run('purge', '--all', '--config', file), { code: 0, stdout: /^removed 1 response from/ })
  const wrong: [args: string[], message: RegExp][] = [
    [['--config', file], /cache takes the action "purge"/],
    [['clear', '--all', '--config', file], /not "clear"/],
    [['purge', '--config', file], /takes one or more of --path, --prefix, --tag, --host, --route; --all purges/],
    [['purge', '--all', '--tag', 'a', '--config', file], /--all purges everything, and excludes --tag/],
    [['purge', '--tags', 'a'], /unknown option "--tags"; did you mean "--tag"/],
    [['purge', '--path', `/${'x'.repeat(3000)}`, '--config', file], /responds 400: the criteria have more than 2048/],
    [['purge', '--path', 'cat/a', '--config', file], /cache purge: --path begins with a slash: "\/cat\/a"/],
    [['purge', '--prefix', 'cat', '--config', file], /cache purge: --prefix begins with a slash: "\/cat"/],
    [['purge', '--route', 'al', '--config', file], /responds 404: no route is named "al"; did you mean "all"/],
    [['purge', '--all', '--admin', 'x'], /--admin x: expected a URL/],
    [['purge', '--all', '--admin', `http://127.0.0.1:${port}`], /responds 200|responds 404/],
    [['purge', '--all', '--admin', 'http://127.0.0.1:1'], /no response of the admin port http:\/\/127\.0\.0\.1:1/]
  ]
  for (const [args, message] of wrong) t.match(await run(...args), { code: 1, stderr: message }, args.join(' '))
})

t.test('from Redis, for all nodes', async (t) => {
  const redis = await startRedis()
  t.teardown(() => redis.stop())
  const cache = { store: 'redis' }
  const shared = { services, routes, redis: { url: redis.url, timeout: '2s' }, edge: { cache } }
  const { runtime, file } = await startFrom(t, shared)
  t.teardown(() => runtime.close())
  t.match(await run('purge', '--all', '--config', file), {
    code: 0,
    stdout: 'purged in Redis, for all nodes that share it\n'
  })
  await redis.stop()
  t.match(await run('purge', '--all', '--config', file), {
    code: 1,
    stderr: /responds 503: Redis did not confirm the purge \(.+\): repeat it$/m
  })
})

t.test('without a cache or an admin port', async (t) => {
  const none = await startFrom(t, { services, routes })
  t.teardown(() => none.runtime.close())
  t.match(await run('purge', '--all', '--config', none.file), { code: 0, stdout: /no route has edge\.cache/ })
  const off = await startFrom(t, { services, routes, admin: false })
  t.teardown(() => off.runtime.close())
  t.match(await run('purge', '--all', '--config', off.file), { code: 1, stderr: /the configuration has admin: false/ })
})
