// Other gateways, each configured as its manual describes a plain keep-alive proxy, on one core.
import { mkdirSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import type { ToolName } from '../helpers/tools.ts'
import { tool } from '../helpers/tools.ts'
import { nginxConfig } from './origin.ts'
import type { Launch, Setup } from './subjects.ts'

type Launcher = (setup: Setup) => Promise<Launch>

/** Launches a Node script of the subjects folder, which gets port, origin and packages by environment variables. */
export function script(file: string, packages?: () => Promise<string>): Launcher {
  return async ({ port, originPort }) => {
    const env = { ...process.env, PORT: String(port), ORIGIN: `http://127.0.0.1:${originPort}` }
    if (packages !== undefined) Object.assign(env, { PACKAGES: await packages() })
    return { command: 'node', args: [join(import.meta.dirname, 'subjects', file)], env }
  }
}

function native(name: ToolName, config: (setup: Setup) => string, args: (file: string, folder: string) => string[]) {
  const launch: Launcher = async (setup) => {
    const { path, env } = await tool(name)
    mkdirSync(setup.folder, { recursive: true })
    const file = join(setup.folder, `${name}.conf`)
    writeFileSync(file, config(setup))
    return { command: path, args: args(file, setup.folder), env: { ...env, HOME: setup.folder } }
  }
  return launch
}

export const nginx = native(
  'nginx',
  ({ folder, port, originPort }) =>
    nginxConfig(
      folder,
      `upstream origin { server 127.0.0.1:${originPort}; keepalive 128; }
       server {
         listen 127.0.0.1:${port} backlog=4096;
         location / {
           proxy_pass http://origin; proxy_http_version 1.1; proxy_set_header Connection '';
           proxy_request_buffering off;
         }
       }`
    ),
  (file, folder) => ['-c', file, '-p', folder]
)

export const haproxy = native(
  'haproxy',
  ({ port, originPort }) => `
global
  nbthread 1
  maxconn 8000
defaults
  mode http
  timeout connect 5s
  timeout client 120s
  timeout server 120s
  timeout http-keep-alive 120s
  http-reuse always
frontend in
  bind 127.0.0.1:${port}
  default_backend origin
backend origin
  server origin 127.0.0.1:${originPort}
`,
  (file) => ['-db', '-f', file]
)

export const caddy = native(
  'caddy',
  ({ port, originPort }) => `
{
  admin off
  auto_https off
}
http://:${port} {
  bind 127.0.0.1
  reverse_proxy 127.0.0.1:${originPort} {
    transport http {
      keepalive 2m
      keepalive_idle_conns_per_host 128
    }
  }
}
`,
  (file) => ['run', '--adapter', 'caddyfile', '--config', file]
)
