/** Files of a folder in which others may write, errors in place of files, and files that not everybody may see. */
import { execFileSync } from 'node:child_process'
import { renameSync, symlinkSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import t from 'tap'
import { startRoutes } from '../../helpers/edge/direct-clients.ts'
import { get, startService } from '../../helpers/gateway.ts'

const root = t.testdir({
  'a.js': 'hello',
  'link.js': t.fixture('symlink', '../outside.js'),
  'b.js': 'b',
  'b.js.br': t.fixture('symlink', '../outside.js')
})
writeFileSync(join(root, '../outside.js'), 'secret')
execFileSync('mkfifo', [join(root, 'a.js.gz')])

const files = { root, maxAge: '365d', immutable: true }
const forever = /max-age/

t.test('a pipe in place of a compressed file is not opened: its end would never come', async (t) => {
  const { port } = await startRoutes(t, [{ name: 'site', match: { path: '/' }, files }])
  const response = await get(port, '/a.js', ['Accept-Encoding: gzip'])
  t.equal(response.status, 404)
  t.equal((await get(port, '/a.js')).body, 'hello')
})

t.test('no cache keeps an error for the time of a file', async (t) => {
  const { port } = await startRoutes(t, [{ name: 'site', match: { path: '/' }, files }])
  t.match((await get(port, '/a.js')).headers['cache-control'], forever)
  t.match((await get(port, '/a.js', ['Range: bytes=1-2'])).headers['cache-control'], forever)
  const cases: [path: string, field: string, status: number][] = [
    ['/a.js', 'Range: bytes=99-', 416],
    ['/a.js', 'If-Match: "other"', 412],
    ['/link.js', 'Accept: */*', 404],
    ['/b.js', 'Accept-Encoding: br', 404],
    ['/none.js', 'Accept: */*', 404]
  ]
  for (const [path, field, status] of cases) {
    const response = await get(port, path, [field])
    t.equal(response.status, status, `${path} ${field}`)
    t.equal(response.headers['cache-control'], undefined, `${path} ${field}`)
  }
})

t.test('shared caches keep no file of a route whose concerns decide by a cookie or a certificate', async (t) => {
  const decider = await startService(({ headers }, response) => {
    response.statusCode = headers.cookie === 'session=1' ? 200 : 401
    response.end()
  })
  t.teardown(decider.close)
  const edge = { forwardAuth: { url: `${decider.url}/auth` } }
  const { port } = await startRoutes(t, [
    { name: 'open', match: { path: '/' }, files },
    { name: 'closed', match: { path: '/closed' }, path: { strip: true }, files, edge }
  ])
  t.equal((await get(port, '/closed/a.js')).status, 401)
  const response = await get(port, '/closed/a.js', ['Cookie: session=1'])
  t.match(response, { status: 200, headers: { 'cache-control': /^private, max-age/ } })
  t.match((await get(port, '/a.js', ['Cookie: session=1'])).headers['cache-control'], /^public, max-age/)
})

t.test('a folder behind a symbolic link may be replaced while the gateway runs', async (t) => {
  const releases = t.testdir({ one: { 'a.js': 'one' }, two: { 'a.js': 'two' } })
  const current = join(releases, 'current')
  symlinkSync('one', current)
  const { port } = await startRoutes(t, [{ name: 'site', match: { path: '/' }, files: { root: current } }])
  t.equal((await get(port, '/a.js')).body, 'one')
  symlinkSync('two', join(releases, 'next'))
  renameSync(join(releases, 'next'), current)
  t.match(await get(port, '/a.js'), { status: 200, body: 'two' })
})
