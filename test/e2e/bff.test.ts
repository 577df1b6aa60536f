// slow: starts HAProxy, Redis and several gateways
// The BFF of config/examples/bff, as processes: central, decentralised, and the migration between them.
import { execFile } from 'node:child_process'
import { once } from 'node:events'
import type { IncomingMessage } from 'node:http'
import http from 'node:http'
import { join } from 'node:path'
import { promisify } from 'node:util'
import t from 'tap'
import type { DeploymentOptions, Model } from '../../config/examples/bff/deployment.ts'
import { Deployment } from '../../config/examples/bff/deployment.ts'
import { migrateUnderLoad } from '../../config/examples/bff/migrate.ts'
import { startRedis } from '../helpers/redis.ts'
import { tool } from '../helpers/tools.ts'

t.setTimeout(300_000)

const home = join(import.meta.dirname, '../..')
const run = promisify(execFile)
const redis = await startRedis()
t.teardown(() => redis.stop())
const haproxy = await tool('haproxy')
const options: DeploymentOptions = {
  redisUrl: redis.url,
  haproxy: haproxy.path,
  gateway: [process.execPath, join(home, 'plugins/bin.ts')],
  // The entries of the package are those of the sources.
  nodeOptions: ['--conditions=checkout'],
  env: { ...(haproxy.env as Record<string, string>), JINGWEI_LOG_LEVEL: 'warn', REDIS_TIMEOUT: '10s' }
}

async function get(url: string, headers: Record<string, string> = {}) {
  const request = http.get(url, { headers, agent: false })
  const [response] = (await once(request, 'response')) as [IncomingMessage]
  let text = ''
  for await (const chunk of response.setEncoding('utf8')) text += chunk
  return { status: response.statusCode, headers: response.headers, text }
}

/** Opens a page in a browser; returns its document once its scripts have ended. */
async function inBrowser(profile: string, url: string): Promise<string> {
  const chromium = await tool('chromium')
  const flags = [
    '--headless',
    '--no-sandbox',
    '--disable-gpu',
    '--virtual-time-budget=10000',
    `--user-data-dir=${profile}`
  ]
  return (await run(chromium.path, [...flags, '--dump-dom', url], { env: chromium.env, timeout: 120_000 })).stdout
}

for (const [database, model] of (['central', 'decentralised'] as const satisfies readonly Model[]).entries()) {
  t.test(`${model}: the edge guards pages and proxied routes, and all instances share its limits`, async (t) => {
    // A database of its own: the models have the same routes, and so the same counters.
    const own = { redisUrl: `${redis.url}/${database + 1}`, env: { ...options.env, LIMIT: '20' } }
    const deployment = await Deployment.start(model, { ...options, ...own })
    t.teardown(() => deployment.stop())
    const page = await get(`${deployment.url}/`)
    t.equal(page.status, 200)
    t.equal(page.headers['content-type'], 'text/html; charset=utf-8')
    t.match(page.text, '<h1>Orders of')
    t.ok(page.headers['x-request-id'], 'as on any route of a gateway')
    t.equal(page.headers['ratelimit-limit'], '20', 'the limit of the gateway applies to the page')

    const shown = await inBrowser(t.testdir({}), `${deployment.url}/?user=amy`)
    t.match(shown, '<h1>Orders of <span id="user">amy</span></h1>')
    t.match(
      shown,
      '<tr><td>1</td><td>tea</td><td>2</td><td>9.00</td></tr><tr><td>2</td><td>ink</td><td>1</td><td>9.00</td></tr>'
    )
    t.match(shown, `Served by the ${model} model, process `)

    const pids = new Set<number>()
    for (let i = 0; i < 6; i++) {
      const { status, text } = await get(`${deployment.url}/home/alice`)
      t.equal(status, 200)
      const { servedBy, ...home } = JSON.parse(text) as { servedBy: { model: Model; pid: number } }
      t.equal(servedBy.model, model)
      pids.add(servedBy.pid)
      t.same(home, {
        user: 'alice',
        orders: [
          { id: 1, product: 'tea', quantity: 2, total: 9 },
          { id: 2, product: 'ink', quantity: 1, total: 9 }
        ]
      })
    }
    t.equal(pids.size, 2, 'two processes')

    const statuses: (number | undefined)[] = []
    for (let i = 0; i < 24; i++) statuses.push((await get(`${deployment.url}/api/orders`)).status)
    t.same(statuses, [...Array(20).fill(200), ...Array(4).fill(429)], 'both gateways together allow 20')
    const refused = await get(`${deployment.url}/api/orders`)
    t.match(JSON.parse(refused.text), { code: 'JW_RATE_LIMITED' })
    t.ok(Number(refused.headers['retry-after']) > 0)
    t.equal((await get(`${deployment.url}/nowhere`)).status, 404)
  })
}

t.test('the migration under load, and back, loses no request', async (t) => {
  const steps: string[] = []
  const report = await migrateUnderLoad({ ...options, log: (line) => steps.push(line) })
  t.strictSame(report.failures, [])
  t.ok(report.models.central > 0 && report.models.decentralised > 0, JSON.stringify(report.models))
  t.ok(report.requests > 100, `${report.requests} requests`)
  t.strictSame(steps, [
    'central: started',
    'decentralised: started',
    'decentralised: in rotation',
    'central: ended',
    'central: started',
    'central: in rotation',
    'decentralised: ended'
  ])
})
