/** Messages of a gateway that closes: each plugin that fails is named, and the configuration is named by its hash. */
import { join } from 'node:path'
import type { FastifyBaseLogger } from 'fastify'
import t from 'tap'
import type { Generation } from '../../plugins/operations/generation.ts'
import { end } from '../../plugins/operations/generation.ts'
import { folder } from '../helpers/plugins.ts'
import { runToEnd, start } from '../helpers/processes.ts'

const app = join(import.meta.dirname, '../../app.ts')

const failing = (name: string) => `export default async function ${name} (fastify) {
  fastify.addHook('onClose', async () => { throw new Error('${name} is gone') })
}`
const files = {
  'gateway.yaml': `listen: { host: 127.0.0.1, port: 0, drain: { delay: 0, timeout: 2s } }
admin: false
plugins:
  - path: database.mjs
  - path: queue.mjs
`,
  'database.mjs': failing('database'),
  'queue.mjs': failing('queue')
}

t.test('check names each plugin whose onClose fails, and says that the configuration is valid', async (t) => {
  const root = await folder(t, files)
  const { code, stdout, stderr } = await runToEnd(process.execPath, [app, 'check', join(root, 'gateway.yaml')])
  t.strictSame([code, stdout], [1, ''])
  t.equal(
    stderr.replaceAll(`${root}/`, ''),
    `gateway.yaml:5:5: plugins[1]: queue failed in onClose: queue is gone
gateway.yaml:4:5: plugins[0]: database failed in onClose: database is gone
gateway.yaml: the configuration itself is valid, 0 routes, 0 services; only closing failed
`
  )
})

t.test('a shutdown logs what it does and for how long, and each plugin whose onClose fails', async (t) => {
  const root = await folder(t, files)
  const running = await start({
    command: process.execPath,
    args: [app, 'start', join(root, 'gateway.yaml')],
    env: { ...process.env, JINGWEI_LOG_LEVEL: 'info' },
    ready: /jingwei is up/
  })
  t.teardown(() => running.stop())
  running.kill('SIGTERM')
  t.match(await running.exited, { code: 1 })
  const lines = running
    .output()
    .split('\n')
    .filter((line) => line.startsWith('{'))
    .map((line) => JSON.parse(line) as Record<string, unknown>)
  t.match(
    lines.find(({ msg }) => String(msg).startsWith('draining')),
    {
      signal: 'SIGTERM',
      delay: 0,
      timeout: 2000,
      msg: 'draining: not ready from now on; refuses connections after 0 s, then waits at most 2 s for requests'
    }
  )
  const failed = lines.filter(({ level }) => level === 'error').map(({ plugin, hook, msg }) => ({ plugin, hook, msg }))
  t.strictSame(failed, [
    { plugin: 'queue', hook: 'onClose', msg: 'plugin queue failed in onClose: queue is gone' },
    { plugin: 'database', hook: 'onClose', msg: 'plugin database failed in onClose: database is gone' }
  ])
})

t.test('a configuration that does not close, or not cleanly, is named by its hash', async (t) => {
  const lines: object[] = []
  const log = { error: (fields: object, msg: string) => void lines.push({ ...fields, msg }) } as FastifyBaseLogger
  const generation = (close: () => Promise<void>) =>
    ({ gateway: { close }, config: { hash: 'abc123' } }) as unknown as Generation
  // The time limit alone does not keep the process running.
  const running = setInterval(() => {}, 1000)
  t.teardown(() => clearInterval(running))
  const limitMs = 10
  await end(
    generation(() => new Promise(() => {})),
    log,
    limitMs
  )
  const err = new Error('no end')
  await end(
    generation(() => Promise.reject(err)),
    log
  )
  t.strictSame(lines, [
    { hash: 'abc123', msg: 'configuration abc123 did not close within 0.01 s; its resources may stay open' },
    { hash: 'abc123', err, msg: 'closing the gateway of configuration abc123 failed; its resources may stay open' }
  ])
})
