/**
 * Migrates the example from the central to the decentralised model and back, under load, and counts the requests that failed.
 * Needs HAProxy and a Redis.
 *
 *   REDIS_URL=redis://127.0.0.1:6379 node config/examples/bff/migrate.ts
 */
import type { DeploymentOptions, Model } from './deployment.ts'
import { Deployment } from './deployment.ts'

export interface Report {
  requests: number
  /** Requests by the model that served them. */
  readonly models: Record<Model, number>
  /** A text for each request that failed, at most 20. */
  readonly failures: string[]
}

/** Sends requests until the signal aborts: pages, data of the page, and orders by GET and POST. */
async function load(url: string, signal: AbortSignal, report: Report): Promise<void> {
  const kinds: [path: string, init?: RequestInit][] = [
    ['/'],
    ['/home/alice'],
    ['/api/orders'],
    ['/api/orders', { method: 'POST', body: '{"product":"tea"}', headers: { 'content-type': 'application/json' } }]
  ]
  for (let index = 0; !signal.aborted; index++) {
    const [path, init] = kinds[index % kinds.length]!
    report.requests++
    try {
      const response = await fetch(`${url}${path}`, { ...init, signal: AbortSignal.timeout(10_000) })
      const text = await response.text()
      if (response.status !== 200) throw new Error(`status ${response.status}: ${text}`)
      if (path === '/home/alice') {
        const { orders, servedBy } = JSON.parse(text) as { orders: unknown[]; servedBy: { model: Model } }
        if (orders.length !== 2) throw new Error(`incomplete: ${text}`)
        report.models[servedBy.model]++
      }
    } catch (error) {
      if (report.failures.length < 20) report.failures.push(`${init?.method ?? 'GET'} ${path}: ${error}`)
    }
  }
}

/** Migrates to the decentralised model and back. Resolves to what the clients saw. */
export async function migrateUnderLoad(options: DeploymentOptions, clients = 4): Promise<Report> {
  // The limit of the example would refuse the load.
  const deployment = await Deployment.start('central', { ...options, env: { ...options.env, LIMIT: '1000000' } })
  const report: Report = { requests: 0, models: { central: 0, decentralised: 0 }, failures: [] }
  const end = new AbortController()
  const loads = Array.from({ length: clients }, () => load(deployment.url, end.signal, report))
  try {
    await deployment.migrate('decentralised')
    await deployment.migrate('central')
  } finally {
    end.abort()
    await Promise.all(loads)
    await deployment.stop()
  }
  return report
}

if (import.meta.main) {
  const { REDIS_URL = 'redis://127.0.0.1:6379', HAPROXY = 'haproxy' } = process.env
  const report = await migrateUnderLoad({ redisUrl: REDIS_URL, haproxy: HAPROXY, log: console.log })
  const { requests, models, failures } = report
  const served = `central ${models.central}, decentralised ${models.decentralised}`
  console.log(`${requests} requests, ${failures.length} failed; pages by model: ${served}`)
  for (const failure of failures) console.error(failure)
  if (failures.length > 0) process.exitCode = 1
}
