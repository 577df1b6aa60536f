// The mesh without the gateway: the example program calls services through a real Consul, and loads no Fastify.
import { mkdtemp, readFile, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join, resolve } from 'node:path'
import { pathToFileURL } from 'node:url'
import t from 'tap'
import { startConsul } from '../helpers/consul.ts'
import { appFile } from '../helpers/e2e/gateway.ts'
import { upstream } from '../helpers/e2e/upstream.ts'
import { freePort, runToEnd } from '../helpers/processes.ts'

const example = resolve(import.meta.dirname, '../../config/examples/mesh-client.ts')
const recorder = pathToFileURL(join(import.meta.dirname, '../helpers/e2e/loaded-modules.ts')).href

t.test('the example of a mesh client calls services without Fastify', async (t) => {
  const folder = await mkdtemp(join(tmpdir(), 'jingwei-mesh-client-'))
  t.teardown(() => rm(folder, { recursive: true, force: true }))
  const LOADED_MODULES = join(folder, 'loaded')
  const run = async (args: string[], env: NodeJS.ProcessEnv = {}) => {
    const began = performance.now()
    const options = { env: { ...process.env, ...env, LOADED_MODULES }, timeout: 30_000 }
    const { code, stdout, stderr } = await runToEnd(
      process.execPath,
      ['--conditions=checkout', '--import', recorder, ...args],
      options
    )
    const loaded = (await readFile(LOADED_MODULES, 'utf8')).split('\n')
    return { code, stderr, lines: stdout.trim().split('\n'), loaded, took: performance.now() - began }
  }
  const isFastify = (url: string) => /\/(@fastify|fastify|fastify-plugin|avvio)\//.test(url)

  const consul = await startConsul()
  t.teardown(consul.stop)
  const [a, b] = [await upstream(t, 'a'), await upstream(t, 'b')]
  await consul.register({ id: 'orders-a', name: 'orders', port: a.port })
  await consul.register({ id: 'orders-b', name: 'orders', port: b.port })
  await consul.register({ id: 'orders-gone', name: 'orders', port: await freePort() })

  const { code, stderr, lines, loaded, took } = await run([example, '/orders?x=1', '9'], { CONSUL_URL: consul.url })
  t.equal(stderr, '')
  t.equal(code, 0)
  t.ok(took < 15_000, 'the program exits by itself, also during a blocking query')
  t.equal(lines.length, 9)
  for (const line of lines) t.match(line, /^200 \{"instance":"[ab]","method":"GET","path":"\/orders\?x=1"/)
  t.ok(
    a.hits() > 0 && b.hits() > 0 && a.hits() + b.hits() === 9,
    'calls are spread over the instances; the missing instance fails no call'
  )

  const names = (part: string) => loaded.filter((url) => url.includes(part)).length
  t.ok(names('/plugins/mesh/mesh.ts') && names('/undici/') && names('/consul/'), 'the loaded modules are recorded')
  t.strictSame(loaded.filter(isFastify), [], 'Fastify is not loaded')
  t.strictSame(
    loaded.filter((url) => /\/plugins\/(edge|operations)\//.test(url)),
    []
  )

  const gateway = await run([appFile, '--version'])
  t.equal(gateway.code, 0)
  t.ok(gateway.loaded.some(isFastify), 'the gateway loads Fastify, so the recording works')

  const absent = await run([example], { CONSUL_URL: 'http://127.0.0.1:9' })
  t.equal(absent.code, 1, 'without Consul the program exits with an error')
  t.match(absent.stderr, /JW_NOT_READY/)
})
