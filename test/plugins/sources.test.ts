/** Sources of instances that users' modules define: loaded, validated, shown, guarded, kept over a reload. */
import { writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import type { Test } from 'tap'
import t from 'tap'
import { build } from '../../app.ts'
import { loadConfig, schemaOf } from '../../plugins/config.ts'
import { eventually } from '../helpers/eventually.ts'
import { get, startService } from '../helpers/gateway.ts'
import { freePort, start } from '../helpers/processes.ts'

const module = (watch: string) => `
export default {
  name: 'phonebook',
  options: { type: 'object', additionalProperties: false, required: ['file'], properties: { file: { type: 'string' } } },
  service: { type: 'object', additionalProperties: false, properties: { entry: { type: 'string', description: 'Its entry.' } } },
  needsOptions: true,
  findsByName: () => true,
  every: 20,
  complete: (options, absolute) => ({ ...options, file: absolute(options.file) }),
  checkService(service, at, { report }) {
    if (service.entry === 'nobody') report.fault(at + '/entry', 'nobody has no entry')
  },
  create({ file }) {
    return { source: ({ name, options }) => ({ async watch({ publish, fail, signal }) { ${watch} } }) }
  }
}
`
const reads = `
  const { readFile } = await import('node:fs/promises')
  publish(JSON.parse(await readFile(file, 'utf8'))[options.entry ?? name])
`

let folders = 0

async function serviceOf(t: Test, name: string): Promise<string> {
  const service = await startService((_request, response) => void response.end(name))
  t.teardown(() => service.close())
  return service.url
}

async function folderOf(t: Test, watch: string, yaml: string, book: object): Promise<string> {
  const name = `${folders++}`
  const files = { 'phonebook.mjs': module(watch), 'gateway.yaml': yaml, 'book.json': JSON.stringify(book) }
  return join(t.testdir({ [name]: files }), name, 'gateway.yaml')
}

const yaml = `
listen: { host: 127.0.0.1, port: 0, drain: { delay: 0s } }
admin: { host: 127.0.0.1, port: 0 }
plugins: [{ path: ./phonebook.mjs }]
discovery: { phonebook: { file: ./book.json } }
services: { orders: {}, users: { phonebook: { entry: people } } }
routes:
  - { name: orders, match: { path: /orders }, service: orders }
  - { name: users, match: { path: /users }, service: users }
`

t.test('a gateway finds instances by the source of a plugin', async (t) => {
  const [one, two] = [await serviceOf(t, 'one'), await serviceOf(t, 'two')]
  const file = await folderOf(t, reads, yaml, { orders: [one], people: [two] })
  const config = await loadConfig(file)
  t.match(config.services.users, { phonebook: { entry: 'people' } })
  t.strictSame(config.backends, { orders: ['phonebook orders'], users: ['phonebook {"entry":"people"}'] })
  const server = build(config, { logger: false })
  t.teardown(() => server.close())
  await server.listen({ host: '127.0.0.1', port: 0 })
  await server.mesh.ready()
  t.match(await server.inject('/orders'), { statusCode: 200, body: 'one' })
  t.match(await server.inject('/users'), { statusCode: 200, body: 'two' })
  t.match(server.mesh.service('users').status(), { source: { kind: 'phonebook' }, instances: [{ origin: two }] })
  await writeFile(join(file, '../book.json'), JSON.stringify({ orders: [two], people: [two] }))
  await eventually(async () => (await server.inject('/orders')).body === 'two', 'the change')
  const schema = JSON.stringify(await schemaOf(file))
  t.match(schema, /"phonebook":\{.*Its entry\./)
})

t.test('faults of the file have their position', async (t) => {
  const fault = async (change: (text: string) => string) => {
    const file = await folderOf(t, reads, change(yaml), {})
    return loadConfig(file).then(
      () => '',
      (error: Error) => error.message
    )
  }
  t.equal(await fault((text) => text), '')
  t.match(
    await fault((text) => text.replace('entry: people', 'entyr: people')),
    /gateway\.yaml:6:\d+: services\.users\.phonebook\.entyr: unknown key; did you mean "entry"/
  )
  t.match(
    await fault((text) => text.replace('entry: people', 'entry: nobody')),
    /gateway\.yaml:6:\d+: services\.users\.phonebook\.entry: nobody has no entry/
  )
  t.match(
    await fault((text) => text.replace('{ file: ./book.json }', '{}')),
    /discovery\.phonebook: missing key "file"/
  )
  t.match(
    await fault((text) => text.replace('discovery: { phonebook: { file: ./book.json } }', '')),
    /services\.users\.phonebook: needs discovery\.phonebook/
  )
  const twice = await fault((text) =>
    text.replace(
      '[{ path: ./phonebook.mjs }]',
      '[{ path: ./phonebook.mjs, name: a }, { path: ./phonebook.mjs, name: b }]'
    )
  )
  t.match(twice, /plugins\[1\]: duplicate source of instances phonebook: its name is already in use/)
  t.notMatch(twice, /unknown key/)
})

t.test('keys of a plugin that have no effect on a source', async (t) => {
  const file = await folderOf(t, reads, yaml.replace('./phonebook.mjs }', './phonebook.mjs, options: { a: 1 } }'), {})
  const server = build(await loadConfig(file), { logger: false })
  t.teardown(() => server.close())
  await t.rejects(
    async () => server.ready(),
    /"options" has no effect on a source of instances: its options are set by discovery\.phonebook/
  )
})

t.test('an error at the start has the position of its entry', async (t) => {
  const file = await folderOf(t, reads, yaml, {})
  await writeFile(join(file, '../phonebook.mjs'), module(reads).replace('watch(', 'wach('))
  const server = build(await loadConfig(file), { logger: false })
  t.teardown(() => server.close())
  await t.rejects(
    async () => server.ready(),
    /gateway\.yaml:\d+:\d+: plugins\[0\]: source of instances phonebook: source returned no object with a function "watch"/
  )
})

t.test('errors of its timers and promises do not end the process', async (t) => {
  const one = await serviceOf(t, 'one')
  const stray = `
    publish(['${one}'])
    setTimeout(() => { throw new Error('from a timer') }, 20)
    setTimeout(() => { Promise.reject(new Error('from a promise')) }, 40)
    setTimeout(() => { globalThis.process.stdout.write('STRAY\\\\n') }, 80)
    await new Promise((resolve) => signal.addEventListener('abort', resolve))
  `
  const port = await freePort()
  const file = await folderOf(t, stray, yaml.replace('port: 0, drain', `port: ${port}, drain`), {})
  const gateway = await start({
    command: process.execPath,
    args: [join(import.meta.dirname, '../../app.ts'), '-c', file],
    ready: /jingwei is up/
  })
  t.teardown(() => gateway.stop())
  await eventually(() => gateway.output().includes('STRAY'), 'the errors')
  t.match(gateway.output(), /source of instances phonebook unavailable; service orders keeps the instances last known/)
  t.match(gateway.output(), /from a timer/)
  const { status, body } = await get(port, '/orders')
  t.equal(`${status} ${body}`, '200 one', 'the gateway goes on')
})
