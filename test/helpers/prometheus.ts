// A real Prometheus on loopback, and promtool.
import { mkdtemp, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { freePort, runToEnd, start } from './processes.ts'
import { tool } from './tools.ts'

export interface Prometheus {
  url: string
  port: number
  /** The result of an instant query. */
  query(promql: string): Promise<Sample[]>
  stop(): Promise<void>
}

export interface Sample {
  metric: Record<string, string>
  value: [time: number, value: string]
}

export interface PrometheusOptions {
  configFile?: string
  /** Text of a configuration instead of a file. */
  config?: string
  port?: number
}

export async function startPrometheus(options: PrometheusOptions = {}): Promise<Prometheus> {
  const { path, env } = await tool('prometheus')
  const port = options.port ?? (await freePort())
  const url = `http://127.0.0.1:${port}`
  const folder = await mkdtemp(join(tmpdir(), 'jingwei-prometheus-'))
  const configFile = options.configFile ?? join(folder, 'prometheus.yml')
  if (!options.configFile) await writeFile(configFile, options.config ?? 'scrape_configs: []\n')
  const clean = () => rm(folder, { recursive: true, force: true })
  const running = await start({
    command: path,
    args: [
      `--config.file=${configFile}`,
      `--storage.tsdb.path=${join(folder, 'data')}`,
      `--web.listen-address=127.0.0.1:${port}`
    ],
    env,
    name: 'prometheus',
    timeout: 30_000,
    ready: async () => (await fetch(`${url}/-/ready`, { signal: AbortSignal.timeout(2000) })).ok
  }).catch(async (error) => {
    await clean()
    throw error
  })
  return {
    url,
    port,
    async query(promql) {
      const response = await fetch(`${url}/api/v1/query?${new URLSearchParams({ query: promql })}`)
      const result = (await response.json()) as { data?: { result: Sample[] }; error?: string }
      if (!result.data) throw new Error(`Prometheus: ${result.error}`)
      return result.data.result
    },
    async stop() {
      await running.stop()
      await clean()
    }
  }
}

export async function promtool(args: string[], stdin?: string) {
  const { path, env } = await tool('promtool')
  return runToEnd(path, args, { env, ...(stdin === undefined ? {} : { stdin }) })
}
