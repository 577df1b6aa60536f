// slow: takes about 6 s
/** The mesh without the gateway: no Fastify, and no handle that keeps a process alive. */
import { execFile } from 'node:child_process'
import { join } from 'node:path'
import { promisify } from 'node:util'
import t from 'tap'
import { service } from '../helpers/mesh/mesh.ts'
import { refused, silent, upstream } from '../helpers/mesh/servers.ts'

const entry = JSON.stringify(join(import.meta.dirname, '../../plugins/mesh/mesh.ts'))

/** Returns the output of a program that creates a mesh and then has no more work. */
async function run(services: object[], body: string): Promise<string> {
  const program = `
    import { registerHooks } from 'node:module'
    registerHooks({
      resolve(specifier, context, next) {
        if (/^(@fastify\\/|fastify)/.test(specifier)) throw new Error('the mesh asked for ' + specifier)
        return next(specifier, context)
      }
    })
    const { Mesh } = await import(${entry})
    const mesh = new Mesh({ services: ${JSON.stringify(Object.fromEntries(services.map((item) => [(item as { name: string }).name, item])))} }).start()
    const get = { origin: 'http://orders.mesh', path: '/', method: 'GET' }
    ${body}`
  const clean = Object.entries(process.env).filter(([key]) => !/^_?TAP|^NODE_OPTIONS$/.test(key))
  const { stdout } = await promisify(execFile)(process.execPath, ['--input-type=module', '-e', program], {
    env: Object.fromEntries(clean),
    timeout: 30_000
  })
  return stdout.trim()
}

t.test('a bare program calls a service and ends by itself after close()', async (t) => {
  const { url } = await upstream(t, 'orders')
  const said = await run(
    [service('orders', [await refused(), url])],
    `const said = []
     for (let i = 0; i < 4; i++) said.push(await mesh.request(get).then(({ body }) => body.text(), ({ code }) => code))
     await mesh.close()
     console.log(said.sort().join())`
  )
  t.equal(said, 'JW_UPSTREAM_REFUSED,JW_UPSTREAM_REFUSED,orders,orders')
})

t.test('a bare program ends by itself without close(), since idle connections are unref’d', async (t) => {
  const { url } = await upstream(t, 'orders')
  const said = await run([service('orders', [url])], 'console.log(await (await mesh.request(get)).body.text())')
  t.equal(said, 'orders')
})

t.test('destroy() aborts calls that hang', async (t) => {
  const { url } = await silent(t)
  const policy = { timeout: 600_000, attemptTimeout: 600_000, connectTimeout: 600_000 }
  const services = [service('orders', [url], policy), service('tls', [url.replace('http:', 'https:')], policy)]
  const said = await run(
    services,
    `const calls = ['orders', 'tls'].map((name) => mesh.request({ ...get, origin: 'http://' + name + '.mesh' }))
     const ends = Promise.allSettled(calls)
     await new Promise((resolve) => setTimeout(resolve, 100))
     await mesh.destroy()
     console.log((await ends).map(({ reason }) => reason.code).join())`
  )
  t.equal(said, 'JW_MESH_CLOSED,JW_MESH_CLOSED')
})
