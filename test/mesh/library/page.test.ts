// slow: compiles and starts programs
/** The programs of plugins/mesh/library.md compile under the strictest options, run, and print what the page says. */
import { mkdirSync, readFileSync, symlinkSync, writeFileSync } from 'node:fs'
import { join, resolve } from 'node:path'
import t from 'tap'
import { upstream } from '../../helpers/mesh/servers.ts'
import { runToEnd, start } from '../../helpers/processes.ts'

t.setTimeout(180_000)

const home = resolve(import.meta.dirname, '../../..')
const page = readFileSync(join(home, 'plugins/mesh/library.md'), 'utf8')
/** Programs by the heading above them. */
const programs = new Map<string, string>()
for (const section of page.split(/^## /m).slice(1)) {
  const [block] = /(?<=^```ts\n).*?(?=^```$)/ms.exec(section) ?? []
  if (block !== undefined) programs.set(section.slice(0, section.indexOf('\n')), block)
}
t.equal(programs.size, [...page.matchAll(/^```ts$/gm)].length, 'one program in each section')

const orders = await upstream(t, 'orders', (_request, response) => {
  response.setHeader('content-type', 'application/json')
  response.end('[7]')
})
const folder = t.testdir({})
symlinkSync(join(home, 'node_modules'), join(folder, 'node_modules'))
/** Resolves `jingwei` to the sources: the folder is within the package. */
const checkout = ['--conditions=checkout']
const env = Object.fromEntries(Object.entries(process.env).filter(([name]) => !/^_?TAP|^NODE_OPTIONS$/.test(name)))

/** Writes the program for this machine: the service at its address, servers on free ports. */
function written(name: string): string {
  const file = join(folder, `${name.replaceAll(' ', '-')}.ts`)
  let source = programs.get(name)!.replaceAll('http://127.0.0.1:9101', orders.url)
  source = source.replace(
    "listen(3000, '127.0.0.1')",
    "listen(0, '127.0.0.1', () => console.log('at', server.address()))"
  )
  source = source.replace(
    "await fastify.listen({ host: '127.0.0.1', port: 3000 })",
    '$& \nconsole.log(fastify.addresses())'
  )
  source = source.replace('port: 3000', 'port: 0')
  writeFileSync(file, source)
  return file
}

async function run(name: string, ...options: string[]) {
  const { code, stdout, stderr } = await runToEnd(process.execPath, [...checkout, ...options, written(name)], {
    cwd: folder,
    env
  })
  return { code, stdout, stderr }
}

async function serve(name: string) {
  const program = await start({
    command: process.execPath,
    args: [...checkout, written(name)],
    cwd: folder,
    env,
    ready: /port: \d+/
  })
  t.teardown(program.stop)
  const [, port] = /port: (\d+)/.exec(program.output())!
  return { ...program, url: `http://127.0.0.1:${port}` }
}

t.test('they compile', async (t) => {
  const project = t.testdir({})
  symlinkSync(join(home, 'node_modules'), join(project, 'node_modules'))
  for (const [name, source] of programs) {
    mkdirSync(join(project, name))
    writeFileSync(join(project, name, 'main.ts'), source)
  }
  const { compilerOptions } = JSON.parse(readFileSync(join(home, 'tsconfig.json'), 'utf8')) as {
    compilerOptions: object
  }
  const strict = { exactOptionalPropertyTypes: true, noPropertyAccessFromIndexSignature: true }
  const settings = { compilerOptions: { ...compilerOptions, ...strict }, include: ['*/main.ts'] }
  writeFileSync(join(project, 'tsconfig.json'), JSON.stringify(settings))
  const tsc = join(home, 'node_modules/typescript/bin/tsc')
  const { stdout } = await runToEnd(process.execPath, [tsc, '-p', project], { timeout: 120_000 })
  const own = stdout.split('\n').filter((line) => !line.startsWith('../'))
  t.strictSame(own.join('\n').trim(), '')
})

t.test('A service', async (t) => {
  t.strictSame(await run('A service'), { code: 0, stdout: '200 [ 7 ]\n200 [ 7 ]\n', stderr: '' })
})

t.test('The global fetch', async (t) => {
  t.strictSame(await run('The global fetch'), { code: 0, stdout: '200 [ 7 ]\n', stderr: '' })
  t.match(orders.requests.at(-1), { method: 'POST' })
})

t.test('In Fastify', async (t) => {
  const { url, stop } = await serve('In Fastify')
  const read = async (path: string) => (await fetch(`${url}${path}`, { headers: { 'x-request-id': 'one' } })).json()
  t.strictSame(await read('/overview'), { orders: [7] })
  t.match(orders.requests.at(-1)!.headers, { 'x-request-id': String })
  t.strictSame(await read('/refresh'), { status: 200 })
  await stop()
})

t.test('Errors', async (t) => {
  const [, printed] = /console\.log\(.*\) \/\/ (.*)$/m.exec(programs.get('Errors')!)!
  t.strictSame(await run('Errors'), { code: 0, stdout: `${printed}\n`, stderr: '' })
})

t.test('Metrics', async (t) => {
  const { url, stop } = await serve('Metrics')
  t.equal(await (await fetch(url)).text(), '[7]')
  const text = await (await fetch(`${url}/metrics`)).text()
  t.match(text, /^billing_pages_total 1$/m)
  t.match(text, /^jingwei_mesh_attempts_total\{service="orders",outcome="success"\} 1$/m)
  await stop()
})

t.test('Traces', async (t) => {
  const { url, stop } = await serve('Traces')
  const traceparent = `00-${'a'.repeat(32)}-${'b'.repeat(16)}-01`
  await (await fetch(url, { headers: { traceparent, 'x-request-id': 'one' } })).text()
  t.match(orders.requests.at(-1)!.headers, { traceparent, 'x-request-id': 'one' })
  await (await fetch(url)).text()
  t.notMatch(orders.requests.at(-1)!.headers, { traceparent: String })
  await stop()
})

t.test('Tests', async (t) => {
  const { code, stdout } = await run('Tests', '--test')
  t.equal(code, 0, stdout)
  t.match(stdout, /^. pass 1$/m)
})

t.test('Shutdown', async (t) => {
  const { url, kill, exited } = await serve('Shutdown')
  t.equal(await (await fetch(url, { headers: { connection: 'close' } })).text(), '[7]')
  kill('SIGTERM')
  t.match(await exited, { code: 0 })
})
