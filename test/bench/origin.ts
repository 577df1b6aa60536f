// The service behind all subjects: nginx, one worker, with a response of each size.
import { mkdirSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { freePort, start } from '../helpers/processes.ts'
import { tool } from '../helpers/tools.ts'

export interface Origin {
  readonly port: number
  /** Returns the number of requests so far, without those of this function. */
  requests(): Promise<number>
  stop(): Promise<void>
}

/** Starts nginx on one port of all loopback addresses, so that it stands for many instances. */
export async function startOrigin(folder: string): Promise<Origin> {
  const port = await freePort()
  const root = join(folder, 'origin')
  mkdirSync(root, { recursive: true })
  writeFileSync(join(root, '64kb'), 'x'.repeat(64 * 1024))
  writeFileSync(join(root, '1mb'), 'x'.repeat(1024 * 1024))
  const server = `
    server {
      listen ${port} backlog=4096;
      root ${root};
      location = /small { default_type application/json; return 200 '{"hello":"world"}'; }
      location = /active { default_type application/json; return 200 '{"active":true,"sub":"bench"}'; }
      location = /status { stub_status; }
    }`
  const file = join(folder, 'origin.conf')
  writeFileSync(file, nginxConfig(folder, server))
  const { path, env } = await tool('nginx')
  const url = `http://127.0.0.1:${port}/status`
  const running = await start({
    command: path,
    args: ['-c', file, '-p', folder],
    env,
    name: 'origin',
    ready: async () => (await fetch(url)).ok
  })
  let own = 0
  return {
    port,
    async requests() {
      const text = await (await fetch(url)).text()
      // accepts, handled, requests
      return Number(/^\s*\d+ \d+ (\d+)/m.exec(text)![1]) - ++own
    },
    stop: () => running.stop()
  }
}

/** Returns an nginx configuration around a server block: a child in the foreground, with one worker. */
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
