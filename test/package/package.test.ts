// slow: installs packages
// The package, from its tarball: the command, plugins of a team, and each entry of `exports` in a program of its own.
import { readFileSync } from 'node:fs'
import { mkdir, writeFile } from 'node:fs/promises'
import { createServer } from 'node:http'
import type { AddressInfo } from 'node:net'
import { join } from 'node:path'
import t from 'tap'
import { freePorts, start } from '../helpers/processes.ts'
import { bare, compile, install } from './installed.ts'

t.setTimeout(600_000)

const team = join(import.meta.dirname, 'team')
const installed = await install(t, team)
const { folder, run } = installed

const origin = createServer((request, response) => {
  const { 'x-common': common, 'x-secret': secret, 'x-attempt': attempt } = request.headers
  response.setHeader('content-type', 'application/json')
  response.end(JSON.stringify({ url: request.url, common, secret, attempt }))
})
await new Promise<void>((resolve) => origin.listen(0, '127.0.0.1', resolve))
t.teardown(() => origin.close())
process.env.ORDERS_URL = `http://127.0.0.1:${(origin.address() as AddressInfo).port}`

const bin = join(folder, 'node_modules/.bin/jingwei')
/** Code after the README's example of embedding the gateway. */
const ended = `
const response = await server.inject({ url: '/orders', headers: { 'x-key': 'amy' } })
console.log(response.statusCode, response.headers['x-audit'])
await server.close()
`
const home = join(import.meta.dirname, '../..')
const program = (source: string) => run(process.execPath, '--input-type=module', '--eval', source)

t.test('the tarball is small, and has the files that run', async (t) => {
  t.ok(installed.size <= 700_000, `${installed.size} bytes`)
  const others = installed.files.filter((file) => !file.startsWith('dist/'))
  t.strictSame(others.sort(), ['LICENSE', 'README.md', 'package.json'])
  const sources = installed.files.filter((file) => /(?<!\.d)\.m?ts$|\.map$/.test(file) && !file.includes('/starter/'))
  t.strictSame(sources, [])
})

t.test('an uncaught error prints a short line, and a stack with the names of functions', async (t) => {
  const built = join(folder, 'node_modules/jingwei/dist')
  const files = installed.files.filter((file) => file.endsWith('.js') && !/\/starter\//.test(file))
  const code = files.map((file) => readFileSync(join(built, '..', file), 'utf8')).join('\n')
  t.match(code, /function loadConfig\(/)
  const thrown = await program("import { gateway } from 'jingwei'; await gateway({}, {})")
  t.match(thrown.stderr, /^ +at (?:async )?gateway \(file:/m)
  const logged = await program("import { NotReadyError } from 'jingwei/mesh'; console.log(NotReadyError.name)")
  t.equal(logged.stdout, 'NotReadyError\n', 'classes, by which errors are logged, keep their names')
  for (const line of thrown.stderr.split('\n')) t.ok(line.length < 2500, `${line.length} characters`)
})

t.test('npx jingwei prints help, checks, and runs the example', async (t) => {
  const help = await run('npx', 'jingwei', '--help')
  t.match(help, { code: 0, stdout: /^ {2}npx jingwei check \[FILE\] {2,}/m })
  t.notMatch(help.stdout, 'app.ts')
  t.match(await run(bin, '--help'), { stdout: /^ {2}jingwei check \[FILE\] {2,}/m })
  const columns = (text: string) => [...text.matchAll(/^ {2}(?:j.*?)? {2,}(?=\S)/gm)].map(([start]) => start.length)
  t.strictSame(new Set(columns((await run(bin, '--help')).stdout)), new Set([30]), 'the descriptions are aligned')
  t.match(await run(bin, '--version'), { code: 0, stdout: /^\d+\.\d+\.\d+\n$/ })

  const own = `${join(folder, 'gateway.yaml')}: ok, 1 route, 1 service\n`
  t.match(
    await run('npx', 'jingwei', 'check'),
    { code: 0, stdout: own, stderr: '' },
    'the default file is gateway.yaml of this folder'
  )
  t.match(await run(bin, 'check', 'nowhere.yaml'), { code: 1, stderr: /nowhere\.yaml: no such file/ })
  await mkdir(join(folder, 'empty'))
  const example = join(folder, 'node_modules/jingwei/dist/config/gateway.yaml')
  const inEmpty = await run('/bin/sh', '-c', 'cd empty && ../node_modules/.bin/jingwei check')
  t.match(inEmpty, { code: 0, stdout: `${example}: ok, 3 routes, 3 services\n` })
})

t.test('a large configuration is parsed in a thread', async (t) => {
  const comments = `# ${'-'.repeat(96)}\n`.repeat(4000)
  await writeFile(join(folder, 'large.yaml'), comments + readFileSync(join(folder, 'gateway.yaml'), 'utf8'))
  t.match(await run(bin, 'check', 'large.yaml'), { code: 0, stdout: /ok, 1 route/ })
})

t.test('npx jingwei start FILE starts the gateway', async (t) => {
  const [port] = await freePorts(1)
  // npx passes no signal on to the gateway; `timeout` sends it to its whole process group.
  const gateway = await start({
    command: '/bin/sh',
    args: bare('timeout', '60', 'npx', 'jingwei', 'start', 'gateway.yaml'),
    cwd: folder,
    env: { ...process.env, PORT: `${port}` },
    ready: /jingwei \S+ is up/
  })
  t.teardown(gateway.stop)
  t.equal((await fetch(`http://127.0.0.1:${port}/orders`)).status, 200)
  await gateway.stop()
  t.match(gateway.output(), /"msg":"stopped"/)
})

t.test('plugins of a team: TypeScript, JavaScript modules, CommonJS; and no inspector', async (t) => {
  const [port] = await freePorts(1)
  const gateway = await start({
    command: '/bin/sh',
    args: bare(bin),
    cwd: folder,
    env: { ...process.env, PORT: `${port}` },
    ready: /jingwei \S+ is up/
  })
  t.teardown(gateway.stop)
  const response = await fetch(`http://127.0.0.1:${port}/orders`, { headers: { 'x-key': 'amy', 'x-secret': '1' } })
  t.strictSame(await response.json(), { url: '/orders', common: 'yes', attempt: '1' })
  const header = (name: string) => response.headers.get(name)
  t.strictSame([header('x-audit'), header('x-module'), header('x-tenant')], ['default', 'yes', 'none'])

  gateway.kill('SIGUSR1')
  t.equal((await fetch(`http://127.0.0.1:${port}/orders`)).status, 200)
  gateway.kill('SIGTERM')
  t.match(await gateway.exited, { code: 0 })
  t.match(gateway.output(), /"signal":"SIGUSR1"/)
  t.notMatch(gateway.output(), /Debugger listening/)
})

/** Returns the comments of all interfaces and classes of a name, in one line each; those of private members have no types. */
function commentsOf(source: string, name: string): string[] {
  const declaration = new RegExp(`^(?:export )?(?:declare )?(?:interface|class) ${name}\\b.*?^\\}`, 'gms')
  const comments = [...source.matchAll(declaration)].flatMap(([text]) => [
    ...text.matchAll(/\/\*\*((?:(?!\*\/).)*)\*\/(?!\s*(?:\w+ )*#)/gs)
  ])
  return comments.map(([, text]) => text!.replaceAll(/\s*\n\s*\* ?|\s+/g, ' ').trim())
}

t.test('types explain what authors of concerns and plugins write', async (t) => {
  const built = join(folder, 'node_modules/jingwei/dist')
  const types = ['app', 'plugins/plugin-api', 'plugins/testing/index', 'types/augmentations', 'types/mesh-api']
    .map((file) => readFileSync(join(built, `${file}.d.ts`), 'utf8'))
    .join('\n')
  const explained = {
    'config/concern': ['Key', 'Place', 'Checked'],
    'plugins/edge/concern': ['EdgeDefinition', 'ConcernContext'],
    'plugins/edge/concern-commands': ['EdgeCommand', 'Started'],
    'plugins/edge/api-facts': ['ApiFacts'],
    'plugins/mesh/concern': ['MeshConcern'],
    'plugins/mesh/core/layer': ['LayerContext'],
    'plugins/mesh/core/service': ['Service'],
    'plugins/mesh/core/types': ['MeshDeps'],
    'plugins/mesh/interceptors': ['UseOptions'],
    'plugins/seam': ['CallRecord'],
    'plugins/for-plugins': ['UserEdgeConcern', 'UserMeshConcern'],
    'plugins/testing/index': ['TestGatewayOptions', 'TestGateway']
  }
  for (const [file, names] of Object.entries(explained)) {
    const source = readFileSync(join(home, `${file}.ts`), 'utf8')
    for (const name of names) {
      const written = commentsOf(source, name)
      t.ok(written.length > 0, name)
      const read = new Set(commentsOf(types, name))
      t.strictSame(
        written.filter((comment) => !read.has(comment)),
        [],
        name
      )
    }
  }
  t.match(types, /^ \* Converts headers from any shape that undici accepts/m)
})

const [, snippet = ''] =
  /^```ts\n(.*?register\(fp\(gateway.*?)^```$/ms.exec(readFileSync(join(home, 'README.md'), 'utf8')) ?? []
await writeFile(join(folder, 'snippet.ts'), snippet.replace('8080', '0') + ended)

t.test('types are complete: nothing to report under the strictest options', async (t) => {
  t.match(await compile(installed), { code: 0, stdout: '' })
})

t.test('fetch(url, { dispatcher: mesh }) compiles, with the types of browsers and of Node', async (t) => {
  const project = join(folder, 'dispatcher')
  await mkdir(project)
  const source = `import { createMesh } from 'jingwei/mesh'
const mesh = createMesh({ services: {} })
const init: RequestInit = { dispatcher: mesh }
export default [fetch('http://orders.mesh/', { dispatcher: mesh }), fetch('http://orders.mesh/', init)]
`
  await writeFile(join(project, 'main.ts'), source)
  const compiled = async (options: object) => {
    const settings = { extends: '../tsconfig.json', compilerOptions: options, include: ['main.ts'] }
    await writeFile(join(project, 'tsconfig.json'), JSON.stringify(settings))
    const tsc = join(import.meta.dirname, '../../node_modules/typescript/bin/tsc')
    return run(process.execPath, tsc, '-p', project)
  }
  t.match(await compiled({ lib: ['esnext', 'dom'], skipLibCheck: true }), { code: 0, stdout: '' })
  // The types of undici and of @types/node do not agree with each other under this option.
  t.match(await compiled({ exactOptionalPropertyTypes: false }), { code: 0, stdout: '' })
})

t.test('each TypeScript block of the guide to plugins compiles as the only file of a project', async (t) => {
  const guide = readFileSync(join(import.meta.dirname, '../../plugins/README.md'), 'utf8')
  const blocks = [...guide.matchAll(/^```ts\n(.*?)^```$/gms)].map(([, block]) => block!)
  // The others are single statements, in which `fastify` is that of the reader's plugin.
  const whole = blocks.filter((block) => /^(?:import|export) /m.test(block))
  t.ok(whole.length >= 10)
  for (const [index, block] of whole.entries()) {
    const project = join(folder, `snippet-${index}`)
    await mkdir(project)
    await writeFile(join(project, 'snippet.ts'), block)
    const settings = { extends: '../tsconfig.json', include: ['snippet.ts'] }
    await writeFile(join(project, 'tsconfig.json'), JSON.stringify(settings))
    const tsc = join(import.meta.dirname, '../../node_modules/typescript/bin/tsc')
    t.match(await run(process.execPath, tsc, '-p', project), { code: 0, stdout: '' }, block.slice(0, 200))
  }
})

const idle = `
const signals = ['SIGTERM', 'SIGINT', 'SIGHUP', 'SIGUSR1', 'SIGUSR2', 'uncaughtException', 'exit']
console.log(signals.flatMap((name) => process.listeners(name)).length, process.getActiveResourcesInfo().filter((name) => name !== 'PipeWrap').join())`

t.test('importing jingwei does nothing, and ends', async (t) => {
  const names = /build,.*gateway,.*loadConfig,.*loadWithoutPlugins,.*parseConfig,.*start/
  const imported = await program(`console.log(Object.keys(await import('jingwei')).sort().join());${idle}`)
  t.match(imported, { code: 0, stderr: '' })
  t.match(imported.stdout, names)
  t.match(imported.stdout, /^0 \w*$/m, 'no listeners, timers or sockets')
  const required = `console.log(Object.keys(require('jingwei')).sort().join(), typeof require('jingwei/plugin').withHeaders)`
  const { code, stdout } = await run(process.execPath, '--input-type=commonjs', '--eval', required)
  t.equal(code, 0)
  t.match(stdout, names)
  t.match(stdout, / function$/m)
})

t.test('the gateway as a plugin of a Fastify server', async (t) => {
  t.match(await run(process.execPath, 'embedded.ts'), { code: 0, stdout: '200 {"url":"/api/orders"}\ntrue\n' })
  t.match(
    await run(process.execPath, 'snippet.ts'),
    { code: 0, stdout: /^200 default$/m },
    'the example of README.md runs'
  )
})

/** Records the packages, other than jingwei, whose files are loaded. */
const recorder = `
import { registerHooks } from 'node:module'
const packages = new Set()
registerHooks({
  resolve(specifier, context, next) {
    const found = next(specifier, context)
    const [, name] = /.*\\/node_modules\\/((?:@[^/]+\\/)?[^/]+)/.exec(found.url) ?? []
    if (name !== undefined && name !== 'jingwei') packages.add(name)
    return found
  }
})
process.on('exit', () => console.log([...packages].sort().join()))`

t.test('jingwei/mesh exports what a program can use', async (t) => {
  const { stdout } = await program(`console.log(Object.keys(await import('jingwei/mesh')).sort().join())`)
  t.equal(stdout, 'ConfigError,NotReadyError,createMesh,installFetch\n')
})

t.test('the mesh without a gateway loads nothing of a gateway', async (t) => {
  await writeFile(join(folder, 'recorder.mjs'), recorder)
  const stdout = `${'200 {"url":"/orders"}\n'.repeat(3)}undici\n`
  t.match(await run(process.execPath, '--import', './recorder.mjs', 'client.ts'), { code: 0, stdout })
})

t.test('the mesh in a Fastify server loads nothing of a gateway', async (t) => {
  const printed = '{"url":"/mine","status":200}\n'
  const { code, stdout } = await run(process.execPath, '--import', './recorder.mjs', 'service.ts')
  t.equal(code, 0)
  t.ok(stdout.startsWith(printed), stdout)
  const loaded = stdout.slice(printed.length).trim().split(',')
  t.ok(['fastify', 'fastify-plugin', 'undici'].every((name) => loaded.includes(name)))
  const ofGateway = ['@fastify/http-proxy', '@fastify/jwt', 'prom-client', 'ioredis', 'js-yaml', 'consul']
  t.strictSame(
    loaded.filter((name) => ofGateway.includes(name)),
    []
  )
})

t.test('a gateway under test', async (t) => {
  t.match(await run(process.execPath, 'tested.ts'), { code: 0, stdout: '[7]\n' })
})
