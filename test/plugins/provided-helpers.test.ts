// slow: starts the command seven times
// `jingwei/plugin` beside a checkout: a plugin of a file imports it where the package is not installed, whichever way it does.
import { join } from 'node:path'
import type { Test } from 'tap'
import t from 'tap'
import { build } from '../../app.ts'
import { loadConfig } from '../../plugins/config.ts'
import * as helpers from '../../plugins/plugin-api.ts'
import { folder } from '../helpers/plugins.ts'
import { runToEnd } from '../helpers/processes.ts'

const app = join(import.meta.dirname, '../../app.ts')
/** A Fastify plugin that adds a decorator with the function `mapLines`, which `body` returns. */
const decorating = (name: string, body: string) =>
  `async function ${name}(fastify) { fastify.decorate('${name}', await (async () => { ${body} })()) }`

const files = {
  'imported.ts': `import { mapLines } from 'jingwei/plugin'\nexport default ${decorating('imported', 'return mapLines')}`,
  'required.cjs': `const { mapLines } = require('jingwei/plugin')\nmodule.exports = ${decorating('required', 'return mapLines')}`,
  'late.mjs': `export default ${decorating('late', "return (await import('jingwei/plugin')).mapLines")}`,
  'created.ts': `import { createRequire } from 'node:module'
const require = createRequire(import.meta.url)
export default ${decorating('created', "return require('jingwei/plugin').mapLines")}`,
  'below.mjs': "export { default } from './lib/below.mjs'",
  'lib/below.mjs': `import { mapLines } from 'jingwei/plugin'\nexport default ${decorating('below', 'return mapLines')}`
}
const plugins = Object.keys(files).filter((name) => !name.startsWith('lib/'))
const names = plugins.map((file) => file.replace(/\..*/, ''))

async function gatewayWith(t: Test, order: readonly string[]) {
  const list = order.map((file) => `  - path: ./${file}\n`).join('')
  const root = await folder(t, { ...files, 'gateway.yaml': `admin: false\nplugins:\n${list}` })
  return join(root, 'gateway.yaml')
}

t.test('all get the helpers of this gateway, and not a second copy of them', async (t) => {
  const server = build(await loadConfig(await gatewayWith(t, plugins)), { logger: false })
  t.teardown(() => server.close())
  await server.ready()
  for (const name of names) t.equal(Reflect.get(server, name), helpers.mapLines, name)
})

t.test('in a process without a test runner, alone and in either order', async (t) => {
  // The test runner adds hooks by this variable, which compile a required `.ts` file as JavaScript.
  const command = `unset NODE_OPTIONS; exec "${process.execPath}" "${app}" check`
  for (const order of [...plugins.map((file) => [file]), plugins, plugins.toReversed()]) {
    const file = await gatewayWith(t, order)
    const { code, stdout, stderr } = await runToEnd('bash', ['-c', `${command} "${file}"`])
    t.strictSame({ code, stdout, stderr }, { code: 0, stdout: `${file}: ok, 0 routes, 0 services\n`, stderr: '' })
  }
})

t.test('other entries of the package are not provided', async (t) => {
  const root = await folder(t, {
    'other.mjs': "import 'jingwei/testing'\nexport default async () => {}",
    'gateway.yaml': 'plugins: [{ path: other.mjs }]'
  })
  await t.rejects(loadConfig(join(root, 'gateway.yaml')), /cannot load other\.mjs: Cannot find package 'jingwei'/)
})
