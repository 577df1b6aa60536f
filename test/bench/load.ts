// The load generator (wrk) and the origin (nginx), both on the core that the subject does not use.
import { mkdirSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { freePort, runToEnd, start } from '../helpers/processes.ts'
import { tool } from '../helpers/tools.ts'
import type { Scenario } from './scenarios.ts'

export interface LoadResult {
  readonly requests: number
  readonly perSecond: number
  readonly p50Ms: number
  readonly p99Ms: number
  /** Connection errors and answers other than 2xx. */
  readonly failures: number
}

/** wrk runs the script once per thread; `done` sees the sum. */
const report = `
done = function(summary, latency, requests)
  local e = summary.errors
  io.write(string.format('RESULT %d %d %f %f %d\\n', summary.requests, summary.duration,
    latency:percentile(50), latency:percentile(99), e.connect + e.read + e.write + e.status + e.timeout))
end
`

export async function load(
  url: string,
  scenario: Scenario,
  headers: Readonly<Record<string, string>>,
  seconds: number,
  folder: string
): Promise<LoadResult> {
  const script = join(folder, 'load.lua')
  const { method = 'GET', bodyBytes = 0 } = scenario
  writeFileSync(
    script,
    `wrk.method = '${method}'\nwrk.body = ${bodyBytes ? `string.rep('x', ${bodyBytes})` : 'nil'}\n${report}`
  )
  const wrk = await tool('wrk')
  const args = ['-c', '1', wrk.path, '-t1', `-c${scenario.connections}`, `-d${seconds}s`, '-s', script]
  for (const [name, value] of Object.entries(headers)) args.push('-H', `${name}: ${value}`)
  const { stdout, stderr } = await runToEnd('taskset', [...args, url], { env: wrk.env, timeout: (seconds + 30) * 1000 })
  const found = /RESULT (\d+) (\d+) (\S+) (\S+) (\d+)/.exec(stdout)
  if (found === null) throw new Error(`wrk said nothing of use: ${stdout}${stderr}`)
  const [requests, durationUs, p50, p99, failures] = found.slice(1).map(Number) as [
    number,
    number,
    number,
    number,
    number
  ]
  return { requests, perSecond: (requests / durationUs) * 1e6, p50Ms: p50 / 1000, p99Ms: p99 / 1000, failures }
}

/** nginx with an answer of each size; listens on one port on any loopback address. */
export async function startOrigin(folder: string) {
  const port = await freePort()
  const root = join(folder, 'origin')
  mkdirSync(root, { recursive: true })
  writeFileSync(join(root, '64kb'), 'x'.repeat(64 * 1024))
  writeFileSync(join(root, '1mb'), 'x'.repeat(1024 * 1024))
  const config = nginxConfig(
    folder,
    `
    server {
      listen ${port} backlog=4096;
      root ${root};
      location = /small { default_type application/json; return 200 '{"hello":"world"}'; }
    }`
  )
  const file = join(folder, 'origin.conf')
  writeFileSync(file, config)
  const nginx = await tool('nginx')
  const running = await start({
    command: 'taskset',
    args: ['-c', '1', nginx.path, '-c', file, '-p', folder],
    env: nginx.env,
    name: 'origin',
    ready: async () => (await fetch(`http://127.0.0.1:${port}/small`)).ok
  })
  return { port, stop: () => running.stop() }
}

/** What nginx needs around a server block to run as a child in the foreground, one worker. */
export function nginxConfig(folder: string, http: string): string {
  return `
daemon off; master_process off; worker_processes 1; pid ${folder}/nginx-${Math.random().toString(36).slice(2)}.pid;
error_log stderr error;
events { worker_connections 16384; }
http {
  access_log off; keepalive_timeout 120s; keepalive_requests 100000000; sendfile on; tcp_nopush on;
  client_body_temp_path ${folder}/body; proxy_temp_path ${folder}/proxy; fastcgi_temp_path ${folder}/fcgi;
  uwsgi_temp_path ${folder}/uwsgi; scgi_temp_path ${folder}/scgi; client_max_body_size 0;
  ${http}
}
`
}
