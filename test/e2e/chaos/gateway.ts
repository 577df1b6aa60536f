// The gateway under test, in its own process, and its admin port's view of instances and attempts.
import type { Test } from 'tap'
import { yamlOf } from '../../helpers/e2e/config.ts'
import { appFile, configFile } from '../../helpers/e2e/gateway.ts'
import { start, waitFor } from '../../helpers/processes.ts'

/** Health of an instance as the gateway sees it. Only instances that Consul lists are included. */
export interface SeenInstance {
  name: string
  available: boolean
  obstacles: Record<string, string>
}

/** Counts of calls, attempts and retries of a service so far. */
export interface Cost {
  calls: number
  attempts: number
  /** Retries by reason. */
  retries: Record<string, number>
  hedges: number
  overflows: number
}

export interface Gateway {
  url: string
  instances(service: string): Promise<SeenInstance[]>
  cost(service: string): Promise<Cost>
  log(): string
}

export async function startGateway(
  t: Test,
  wanted: { consul: string; mesh: object; services: Record<string, object>; zone: string }
): Promise<Gateway> {
  const { zone, ...rest } = wanted
  const config = JSON.parse(yamlOf(rest)) as { discovery: object }
  config.discovery = { ...config.discovery, locality: { zone } }
  const running = await start({
    command: process.execPath,
    args: [appFile, '-c', await configFile(t, JSON.stringify(config))],
    name: 'gateway',
    ready: /health +http\S+/
  })
  t.teardown(running.stop)
  const [, url] = /edge +(http\S+)/.exec(running.output())!
  const [, adminUrl] = /health +(http:\/\/[^/]+)/.exec(running.output())!
  await waitFor('the gateway is ready', async () => (await fetch(`${adminUrl}/health/ready`)).status === 200)
  return {
    url: url!,
    log: running.output,
    async instances(service) {
      const status = (await (await fetch(`${adminUrl}/admin/services/${service}`)).json()) as {
        instances: { id: string; available: boolean; obstacles: Record<string, string> }[]
      }
      return status.instances.map(({ id, ...seen }) => ({ name: id.slice(id.indexOf('/') + 1), ...seen }))
    },
    async cost(service) {
      const text = await (await fetch(`${adminUrl}/metrics`)).text()
      const series = text.split('\n').filter((line) => line.includes(`service="${service}"`))
      const values = (metric: string, label: string) =>
        series
          .filter((line) => line.startsWith(`${metric}{`))
          .map(
            (line) => [new RegExp(`${label}="([^"]*)"`).exec(line)?.[1] ?? '', Number(line.split(' ').at(-1))] as const
          )
      const sum = (metric: string) => values(metric, 'service').reduce((total, [, value]) => total + value, 0)
      return {
        calls: sum('jingwei_mesh_request_duration_seconds_count'),
        attempts: sum('jingwei_mesh_attempts_total'),
        retries: Object.fromEntries(values('jingwei_mesh_retries_total', 'reason').filter(([, value]) => value > 0)),
        hedges: sum('jingwei_mesh_hedges_total'),
        overflows: sum('jingwei_mesh_retry_overflows_total')
      }
    }
  }
}
