/** The log of reloads that a plugin has stopped: the stack of its failure. */
import { readFileSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import t from 'tap'
import { eventually } from '../helpers/eventually.ts'
import { folder } from '../helpers/plugins.ts'
import { freePort, start } from '../helpers/processes.ts'

t.setTimeout(100_000)

interface Line {
  readonly msg: string
  readonly path: string
  readonly err?: { readonly type: string; readonly message: string; readonly stack: string }
}

t.test('a plugin that fails a reload is logged with its stack, a fault of the file without one', async (t) => {
  const root = await folder(t, {
    'fails.ts': `export default async function fails(fastify: object, options: { inner?: { header: string } }) {
  options.inner!.header.trim()
}
`,
    'syntax.ts': 'export default async function syntax() {\n  const a = 1\n  return a a\n}\n',
    'ready.mjs': `export default async function ready(fastify) {
  fastify.addHook('onReady', async function notReady() { throw new Error('no database') })
}
`
  })
  const file = join(root, 'gateway.yaml')
  const [port, adminPort] = [await freePort(), await freePort()]
  const write = (more: object) =>
    writeFileSync(
      file,
      JSON.stringify({ listen: { host: '127.0.0.1', port, drain: { delay: 0 } }, admin: { port: adminPort }, ...more })
    )
  write({})
  const gateway = await start({
    command: process.execPath,
    args: [join(import.meta.dirname, '../../app.ts'), '--config', file],
    env: { ...process.env, JINGWEI_LOG_LEVEL: 'info' },
    ready: /jingwei is up/
  })
  t.teardown(() => gateway.stop())
  const refused = async (more: object): Promise<Line[]> => {
    write(more)
    const before = gateway.output().length
    const { status } = await fetch(`http://127.0.0.1:${adminPort}/admin/reload`, { method: 'POST' })
    t.equal(status, 422)
    let lines: string[] = []
    await eventually(() => {
      lines = gateway.output().slice(before).split('\n').slice(0, -1)
      return lines.some((line) => line.includes('configuration not reloaded'))
    }, 'the line of the failed reload')
    return lines.filter((line) => line.includes('not reloaded')).map((line) => JSON.parse(line) as Line)
  }

  t.match(await refused({ plugins: [{ path: './fails.ts' }] }), [
    { path: 'plugins[0]', err: { type: 'TypeError', message: /reading 'header'/, stack: /at fails \(.*fails\.ts:2:/ } }
  ])
  t.match(await refused({ plugins: [{ path: './ready.mjs' }] }), [
    { path: 'plugins[0]', err: { type: 'Error', message: 'no database', stack: /at .*notReady .*ready\.mjs:2:/ } }
  ])
  const mended = readFileSync(join(root, 'fails.ts'), 'utf8').replace('inner!', 'inner?')
  writeFileSync(join(root, 'fails.ts'), mended)
  t.match(await refused({ plugins: [{ path: './fails.ts' }] }), [{ path: 'plugins[0]', err: { type: 'TypeError' } }])
  t.match(
    gateway.output(),
    /"level":"warn".*its file has changed since its code was loaded; restart the gateway to load the new code/
  )

  t.match(await refused({ plugins: [{ path: './syntax.ts' }] }), [
    { path: 'plugins[0]', err: { type: 'SyntaxError', stack: /syntax\.ts:3/ } }
  ])
  writeFileSync(join(root, 'syntax.ts'), 'export default async function syntax() {}\n')
  write({ plugins: [{ path: './syntax.ts' }] })
  const reload = async () =>
    (await fetch(`http://127.0.0.1:${adminPort}/admin/reload`, { method: 'POST' })).json() as Promise<
      Record<string, unknown>
    >
  t.strictSame((await reload()).warnings, [], 'new code, as there was none before')
  writeFileSync(join(root, 'syntax.ts'), 'export default async function other() {}\n')
  t.match(await reload(), { hash: String, warnings: [{ path: 'plugins[0]', message: /restart the gateway/ }] })
  const [unknown] = await refused({ nothing: 1 })
  t.match(unknown, { path: 'nothing', err: undefined })
  t.notOk('err' in unknown!)
})
