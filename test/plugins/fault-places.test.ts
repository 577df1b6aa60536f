// The message of a plugin that fails names the plugin's own line.
import { mkdirSync, symlinkSync } from 'node:fs'
import { join } from 'node:path'
import type { Test } from 'tap'
import t from 'tap'
import { build } from '../../app.ts'
import { ConfigError } from '../../config/faults.ts'
import { loadConfig } from '../../plugins/config.ts'
import { folder } from '../helpers/plugins.ts'

/** The only fault of a gateway with one plugin, after its position in the file. `plugin`: the start of its entry. */
async function faultOf(t: Test, plugin: string, files: Record<string, string>, more = ''): Promise<string> {
  const root = await folder(t, { 'gateway.yaml': `admin: false\nplugins: [{ ${plugin} }]\n${more}`, ...files })
  const failing = async () => {
    const server = build(await loadConfig(join(root, 'gateway.yaml')), { logger: false, dryRun: true })
    try {
      await server.ready()
    } finally {
      await server.close()
    }
  }
  const error = await failing().catch((error: unknown) => error)
  if (!(error instanceof ConfigError)) throw error
  t.equal(error.faults.length, 1)
  return error.faults[0]!.message.replaceAll(`${root}/`, '')
}

const modules: Record<string, [file: string, text: string, message: string]> = {
  'TypeScript that is not': [
    'bad.ts',
    'export default async function bad() {\n  const x: number = ;\n}\n',
    'cannot load ./bad.ts: Expression expected (bad.ts:2:21)'
  ],
  'an enum': [
    'enum.ts',
    '// kinds\nenum Kind { A }\n',
    'cannot load ./enum.ts: TypeScript enum is not supported in strip-only mode (enum.ts:2:1)'
  ],
  'CommonJS that is not': [
    'bad.cjs',
    'module.exports = async () => {\n  const x = ;\n}\n',
    "cannot load ./bad.cjs: Unexpected token ';' (bad.cjs:2:13)"
  ],
  'an ES module that is not, whose place Node does not give': [
    'bad.mjs',
    'export default async function bad() {\n  const x = ;\n}\n',
    'cannot load ./bad.mjs: Unexpected token \';\' ("node bad.mjs" shows where)'
  ],
  'an import that does not exist': [
    'import.mjs',
    '// names\nimport { nothing } from "node:fs"\n',
    "cannot load ./import.mjs: The requested module 'node:fs' does not provide an export named 'nothing' (import.mjs:2:10)"
  ],
  'a missing module, whose message has the importing file': [
    'missing.mjs',
    'import "./nowhere.mjs"\n',
    "cannot load ./missing.mjs: Cannot find module 'nowhere.mjs' imported from missing.mjs"
  ],
  'a throw while it is loaded': [
    'load.mjs',
    '\nnull.x\n',
    "cannot load ./load.mjs: Cannot read properties of null (reading 'x') (load.mjs:2:6)"
  ],
  'a throw in its function': [
    'start.ts',
    'export default async function start(_: object, { keys }: { keys: object }) {\n  Object.keys(keys)\n}\n',
    'start.ts failed to start: Cannot convert undefined or null to object (start.ts:2:10)'
  ],
  'a throw after a pause': [
    'pause.mjs',
    'export default async () => {\n  await null\n  throw new Error("no luck")\n}\n',
    'pause.mjs failed to start: no luck (pause.mjs:3:9)'
  ],
  'an error with a cause': [
    'cause.mjs',
    'export default async () => {\n  throw Object.assign(new Error("no luck", { cause: new Error("x") }), { stack: 5 })\n}\n',
    'cause.mjs failed to start: no luck (cause.mjs:2:53)'
  ],
  'a wrong call of the gateway': [
    'use.mjs',
    'export default async (fastify) => {\n  fastify.mesh.use({}, { per: "attempt", name: "x" })\n}\n',
    'use.mjs failed to start: mesh.use takes an interceptor, which is a function, and options with "per": "request" or "attempt"; found object and object (use.mjs:2:16)'
  ],
  'a name that is taken': [
    'name.mjs',
    'export default async (fastify) => {\n  fastify.decorate("mesh", 1)\n}\n',
    'name.mjs failed to start: it adds the decorator "mesh" of the server, which the gateway has added already (name.mjs:2:11)'
  ],
  'a throw in onReady': [
    'ready.mjs',
    'export default async (fastify) => {\n  fastify.addHook("onReady", async () => {\n    throw new Error("no luck")\n  })\n}\n',
    'ready.mjs failed to start: no luck (ready.mjs:3:11)'
  ],
  'a text': ['text.mjs', 'export default async () => {\n  throw "no luck"\n}\n', 'text.mjs failed to start: no luck'],
  'no plugin': [
    'none.mjs',
    'export const x = 1',
    'cannot load ./none.mjs: it has no default export that is a Fastify plugin, a concern or a source of instances'
  ]
}

for (const [what, [file, text, message]] of Object.entries(modules)) {
  t.test(what, async (t) => t.equal(await faultOf(t, `path: ./${file}`, { [file]: text }), message))
}

t.test('a module that the plugin imports, and the plugin of a package', async (t) => {
  const files = {
    'plugins/own.mjs': 'import { run } from "./lib/run.mjs"\nexport default async () => run()\n',
    'plugins/lib/run.mjs': 'import { parse } from "parser"\nexport const run = () => parse()\n',
    'node_modules/parser/package.json': '{ "name": "parser", "exports": "./index.mjs" }',
    'node_modules/parser/index.mjs': 'export const parse = () => {\n  throw new TypeError("no luck")\n}\n'
  }
  t.equal(
    await faultOf(t, 'path: ./plugins/own.mjs', files),
    'plugins/own.mjs failed to start: no luck (lib/run.mjs:2:26)'
  )
  const published = {
    ...files,
    'node_modules/@team/own/package.json': '{ "name": "@team/own", "exports": "./main.mjs" }',
    'node_modules/@team/own/main.mjs': 'import { parse } from "parser"\nexport default async () => parse()\n'
  }
  t.equal(
    await faultOf(t, "package: '@team/own'", published),
    '@team/own failed to start: no luck (@team/own/main.mjs:2:28)'
  )
})

t.test('an error without a line of the plugin', async (t) => {
  const files = {
    'own.mjs': 'import { later } from "later"\nexport default (fastify, options, done) => later(done)\n',
    'node_modules/later/package.json': '{ "name": "later", "exports": "./index.mjs" }',
    'node_modules/later/index.mjs': 'export const later = (done) => setImmediate(() => done(new Error("no luck")))\n'
  }
  t.equal(
    await faultOf(t, 'path: own.mjs', files),
    'own.mjs failed to start: no luck (JINGWEI_LOG_LEVEL=debug shows where)'
  )
})

t.test('a plugin by a symbolic link', async (t) => {
  const root = await folder(t, { 'real/own.mjs': 'export default async () => {\n  throw new Error("no luck")\n}\n' })
  mkdirSync(join(root, 'linked'))
  symlinkSync('../real/own.mjs', join(root, 'linked/own.mjs'))
  const path = join(root, 'linked/own.mjs')
  t.equal(
    (await faultOf(t, `path: ${path}`, {})).replaceAll(`${root}/`, ''),
    'linked/own.mjs failed to start: no luck (own.mjs:2:9)'
  )
})

t.test('a check of a concern', async (t) => {
  const concern = (key: string) => `export default {
  name: 'sign',
  options: { type: 'object', properties: { x: { type: 'integer' } }, required: ['x'] },
  plugin: async () => () => null,
  ${key}() { return null.x }
}
`
  const edge = 'edge: { sign: { x: 1 } }\n'
  t.equal(
    await faultOf(t, 'path: sign.mjs', { 'sign.mjs': concern('check') }, edge),
    "the check of concern sign failed: Cannot read properties of null (reading 'x') (sign.mjs:5:25)"
  )
  t.equal(
    await faultOf(t, 'path: sign.mjs', { 'sign.mjs': concern('complete') }, edge),
    '"complete" of concern sign failed: Cannot read properties of null (reading \'x\') (sign.mjs:5:28)'
  )
})
