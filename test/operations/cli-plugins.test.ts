// The commands and plugins: `check` loads them, and what fails is told with its line.
import { join } from 'node:path'
import type { Test } from 'tap'
import t from 'tap'
import { runToEnd } from '../helpers/processes.ts'
import { folder } from '../plugins/support.ts'

const app = join(import.meta.dirname, '../../app.ts')

async function run(t: Test, command: string[], files: Record<string, string>, env: NodeJS.ProcessEnv = {}) {
  const root = await folder(t, files)
  const args = command.map((word) => (word === 'FILE' ? join(root, 'gateway.yaml') : word))
  const ended = await runToEnd(process.execPath, [app, ...args], {
    env: { ...process.env, JINGWEI_LOG_LEVEL: 'silent', ...env }
  })
  return { ...ended, stdout: ended.stdout.replaceAll(`${root}/`, ''), stderr: ended.stderr.replaceAll(`${root}/`, '') }
}

const yaml = `listen: { port: 0 }
admin: false
plugins:
  - path: a.mjs
  - path: b.mjs
    options: {}
  - path: c.mjs
`
const good = 'export default async function good () {}'

t.test('check tells every plugin that cannot be loaded', async (t) => {
  const files = {
    'gateway.yaml': yaml,
    'a.mjs': 'import "no-such-package-at-all"',
    'b.mjs': good,
    'c.mjs': 'export const plugin = 1'
  }
  const { code, stdout, stderr } = await run(t, ['check', 'FILE'], files)
  t.equal(code, 1)
  t.equal(stdout, '')
  const [first, second, sum] = stderr.split('\n')
  t.match(first, /^gateway\.yaml:4:5: plugins\[0\]: cannot load a\.mjs: Cannot find package 'no-such-package-at-all'/)
  t.equal(second, 'gateway.yaml:7:5: plugins[2]: cannot load c.mjs: it has no default export that is a Fastify plugin')
  t.equal(sum, '2 faults in gateway.yaml; nothing was started')
})

t.test('check tells a plugin that cannot start', async (t) => {
  const files = {
    'gateway.yaml': yaml,
    'a.mjs': good,
    'b.mjs': `export default async function bad (fastify) {
      fastify.register((below, options, done) => done(new Error('no luck')))
    }`,
    'c.mjs': good
  }
  const { code, stderr } = await run(t, ['check', 'FILE'], files)
  t.equal(code, 1)
  t.equal(
    stderr,
    'gateway.yaml:5:5: plugins[1]: b.mjs failed to start: no luck\n1 fault in gateway.yaml; nothing was started\n'
  )
  const debug = await run(t, ['check', 'FILE'], files, { JINGWEI_LOG_LEVEL: 'debug' })
  t.match(debug.stderr, /Error: no luck\n +at .*b\.mjs/, 'where it was thrown, for its author')
  const fine = await run(t, ['check', 'FILE'], { ...files, 'b.mjs': good })
  t.strictSame([fine.code, fine.stdout], [0, 'gateway.yaml: ok, 0 routes, 0 services\n'])
})
