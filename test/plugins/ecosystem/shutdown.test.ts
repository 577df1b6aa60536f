// slow: installs packages
// fastify-graceful-shutdown listens to the signals of the process, so each side gets a process of its own.
import { mkdtemp, rm, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import type { Test } from 'tap'
import t from 'tap'
import { startService } from '../../helpers/gateway.ts'
import { ecosystemPackages } from '../../helpers/packages.ts'
import { freePort, isListening, start } from '../../helpers/processes.ts'

const control = (origin: string, port: number) => `
  import Fastify from 'fastify'
  import httpProxy from '@fastify/http-proxy'
  import gracefulShutdown from 'fastify-graceful-shutdown'
  const fastify = Fastify()
  await fastify.register(gracefulShutdown)
  await fastify.register(httpProxy, { upstream: '${origin}', prefix: '/api', rewritePrefix: '/api' })
  await fastify.listen({ host: '127.0.0.1', port: ${port} })`

const gateway = (origin: string, port: number) => `
listen: { host: 127.0.0.1, port: ${port}, drain: { delay: 0ms } }
admin: false
services: { api: { instances: ['${origin}'] } }
routes: [{ name: api, match: { path: /api }, service: api }]
plugins:
  - package: fastify-graceful-shutdown
`

async function endsWithItsRequest(t: Test, file: string, source: typeof control, args: string[] = []) {
  const received = Promise.withResolvers<void>()
  const released = Promise.withResolvers<void>()
  const service = await startService((_request, response) => {
    received.resolve()
    void released.promise.then(() => response.end('late'))
  })
  const folder = await mkdtemp(join(await ecosystemPackages(), 'row-'))
  t.teardown(async () => {
    await service.close()
    await rm(folder, { recursive: true, force: true })
  })
  const port = await freePort()
  const path = join(folder, file)
  await writeFile(path, source(service.url, port))
  const env = { ...process.env, NODE_OPTIONS: '' }
  const child = await start({ command: process.execPath, args: [...args, path], env, ready: () => isListening(port) })
  t.teardown(child.stop)
  const response = fetch(`http://127.0.0.1:${port}/api/page`)
  await received.promise
  child.kill('SIGTERM')
  released.resolve()
  t.equal(await (await response).text(), 'late')
  t.equal((await child.exited).code, 0)
}

t.test('fastify-graceful-shutdown: the control serves the request in flight before it exits', (t) =>
  endsWithItsRequest(t, 'control.js', control)
)

t.test('fastify-graceful-shutdown: the gateway serves the request in flight before it exits', (t) =>
  endsWithItsRequest(t, 'gateway.yaml', gateway, [join(import.meta.dirname, '../../../app.ts'), '-c'])
)
