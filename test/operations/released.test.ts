/** Memory: a replaced configuration is garbage-collected, except state that the next one claims. */
import { writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import { setFlagsFromString } from 'node:v8'
import { runInNewContext } from 'node:vm'
import t from 'tap'
import { start } from '../../app.ts'
import { loadConfig } from '../../plugins/config.ts'
import { keys } from '../helpers/edge/tokens.ts'
import { startService } from '../helpers/gateway.ts'
import { freePort } from '../helpers/processes.ts'

setFlagsFromString('--expose-gc')
const collect = runInNewContext('gc') as () => void

t.test('the gateway of a replaced configuration is garbage-collected', async (t) => {
  const service = await startService((request, response) => {
    if (request.url === '/jwks')
      response.end(JSON.stringify({ keys: [{ ...keys.rsa.publicKey.export({ format: 'jwk' }), kid: 'a' }] }))
    else response.end('ok')
  })
  t.teardown(service.close)
  const [port, adminPort] = [await freePort(), await freePort()]
  const folder = t.testdir({
    'plugin.mjs': `export default async function plugin(fastify) {
      fastify.addHook('onRequest', async () => {})
      fastify.mesh.use((dispatch) => (opts, handler) => dispatch(opts, handler), { per: 'request' })
      fastify.meter.gauge({ name: 'plugin_gauge', help: 'x', collect: (set) => set({}, 1) })
      fastify.get('/own', async () => 'own')
    }`
  })
  const file = join(folder, 'gateway.yaml')
  const mesh = {
    retry: { attempts: 1 },
    hedge: { after: '1s' },
    circuitBreaker: {},
    outlierDetection: {},
    healthCheck: { path: '/', interval: '1m' },
    adaptiveConcurrency: {},
    limit: { rate: 1000, per: '1s' },
    collapse: true,
    fallback: [{ on: ['5xx'], stale: {} }, { service: 'shadow' }],
    fault: { delay: { for: '1ms', percent: '1%' } }
  }
  writeFileSync(
    file,
    JSON.stringify({
      listen: { host: '127.0.0.1', port },
      admin: { port: adminPort },
      tracing: { otlp: { http: { endpoint: `${service.url}/v1/traces` } }, queue: { delay: '50ms' } },
      edge: { rateLimit: { max: 1000, window: '1m' }, cors: { origin: ['https://a.example'] } },
      services: {
        a: { instances: [service.url], mesh: { ...mesh, mirror: { service: 'shadow' } } },
        shadow: { instances: [service.url], mesh: { retry: false } }
      },
      routes: [
        { name: 'open', match: { path: '/open' }, service: 'a' },
        { name: 'closed', match: { path: '/closed' }, service: 'a', edge: { jwt: { jwks: `${service.url}/jwks` } } },
        { name: 'via', match: { path: '/via' }, service: 'a', via: 'http-proxy', edge: { websocket: false } }
      ],
      plugins: [{ path: './plugin.mjs' }]
    })
  )
  const runtime = await start(await loadConfig(file))
  t.teardown(() => runtime.close())
  const use = async () => {
    for (const path of ['open', 'closed', 'via', 'own']) await (await fetch(`http://127.0.0.1:${port}/${path}`)).text()
    await (await fetch(`http://127.0.0.1:${adminPort}/metrics`)).text()
    await (await fetch(`http://127.0.0.1:${adminPort}/admin/explain?path=/open`)).text()
  }
  const gateways: WeakRef<object>[] = []
  for (let i = 0; i < 4; i++) {
    await use()
    gateways.push(new WeakRef(runtime.gateway!))
    t.ok((await runtime.reload('test')).applied)
  }
  const left = () => gateways.filter((ref) => ref.deref() !== undefined).length
  for (let i = 0; i < 200 && left() > 0; i++) {
    await use()
    collect()
    await sleep(20)
  }
  t.equal(left(), 0)
})
