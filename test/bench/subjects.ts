// What is measured: this gateway in two states of dress, and what a user would run instead.
import { writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { runToEnd } from '../helpers/processes.ts'
import type { ToolName } from '../helpers/tools.ts'
import { tool } from '../helpers/tools.ts'
import { nginxConfig } from './load.ts'
import type { Scenario } from './scenarios.ts'

export interface Setup {
  readonly port: number
  readonly originPort: number
  readonly consulUrl: string
  readonly folder: string
  readonly scenario: Scenario
}

export interface Launch {
  readonly command: string
  readonly args: readonly string[]
  readonly env?: NodeJS.ProcessEnv
  /** Path under which the origin is reached, and what the client must send. */
  readonly prefix?: string
  readonly headers?: Readonly<Record<string, string>>
}

export interface Subject {
  readonly name: string
  /** How to start it, or null where it does not take part in the scenario. */
  launch(setup: Setup): Promise<Launch | null>
}

const home = join(import.meta.dirname, '../..')
const secret = 'a secret for benchmarks only, long enough'

function services({ originPort, scenario }: Setup, own: string): string {
  const many = scenario.services ?? 1
  const lines = []
  for (let i = 1; i < many; i++) {
    const addresses = Array.from(
      { length: 10 },
      (_, k) => `http://127.${1 + (i >> 8)}.${i & 255}.${k + 1}:${originPort}`
    )
    lines.push(`  s${i}: { instances: [${addresses.map((url) => `'${url}'`).join(', ')}] }`)
  }
  return `services:\n${lines.join('\n')}\n  origin: ${own}\n`
}

function routes({ scenario }: Setup): string {
  const many = Math.max(scenario.routes ?? 1, scenario.services ?? 1)
  const lines = []
  for (let i = 1; i < many; i++) {
    const service = (scenario.services ?? 1) > 1 ? `s${i}` : 'origin'
    lines.push(`  - { name: r${i}, match: { path: /r${i}/things }, service: ${service} }`)
  }
  return `routes:\n${lines.join('\n')}\n  - { name: origin, match: { path: /origin }, service: origin, path: { strip: /origin } }\n`
}

function gateway(name: string, setup: Setup, config: string): Launch {
  const file = join(setup.folder, `${name}.yaml`)
  writeFileSync(file, config)
  const log = join(setup.folder, `${name}.log`)
  return {
    command: 'sh',
    args: ['-c', `exec node ${join(home, 'app.ts')} -c ${file} > ${log} 2>&1`],
    prefix: '/origin'
  }
}

const listen = (port: number) => `listen: { host: 127.0.0.1, port: ${port}, drain: { delay: 0s, timeout: 1s } }\n`

/** Proxies and nothing else: no log, no metrics, no concern. */
const passthrough: Subject = {
  name: 'jingwei passthrough',
  async launch(setup) {
    const own = `{ instances: ['http://127.0.0.1:${setup.originPort}'] }`
    return gateway(
      'passthrough',
      setup,
      `${listen(setup.port)}admin: false\nedge: { accessLog: false, bodyLimit: false }\nmesh: { retry: false }\n${services(setup, own)}${routes(setup)}`
    )
  }
}

/** JWT, CORS, rate limit, metrics, access log, instances from Consul, P2C, retry. */
const everything: Subject = {
  name: 'jingwei everything on',
  async launch(setup) {
    const launch = gateway(
      'everything',
      setup,
      `${listen(setup.port)}admin: { port: 0 }
discovery: { consul: { url: '${setup.consulUrl}' } }
edge:
  cors: { origin: [https://app.example.com], credentials: true }
  rateLimit: { max: 1000000000, window: 1h }
  jwt: { secret: '${secret}', issuer: bench, audience: bench, forward: { sub: x-user-id } }
mesh: { retry: { on: [connect-failure, reset, gateway-error] } }
${services(setup, '{}')}${routes(setup)}`
    )
    const { stdout } = await runToEnd('node', [
      join(home, 'app.ts'),
      '-c',
      join(setup.folder, 'everything.yaml'),
      'token',
      'origin',
      '--ttl',
      '10h'
    ])
    return { ...launch, headers: { authorization: `Bearer ${stdout.trim()}`, origin: 'https://app.example.com' } }
  }
}

/** A node script of the subjects folder; it takes its port and the origin's from the environment. */
function script(name: string, file: string): Subject {
  return {
    name,
    async launch({ port, originPort }) {
      const env = { ...process.env, PORT: String(port), ORIGIN: `http://127.0.0.1:${originPort}` }
      return { command: 'node', args: [join(import.meta.dirname, 'subjects', file)], env }
    }
  }
}

function native(
  name: ToolName,
  config: (setup: Setup) => string,
  args: (file: string, setup: Setup) => string[]
): Subject {
  return {
    name,
    async launch(setup) {
      const { path, env } = await tool(name)
      const file = join(setup.folder, `${name}.conf`)
      writeFileSync(file, config(setup))
      return { command: path, args: args(file, setup), env }
    }
  }
}

const nginx = native(
  'nginx',
  ({ folder, port, originPort }) =>
    nginxConfig(
      folder,
      `upstream origin { server 127.0.0.1:${originPort}; keepalive 128; }
       server { listen 127.0.0.1:${port} backlog=4096;
         location / { proxy_pass http://origin; proxy_http_version 1.1; proxy_set_header Connection ''; proxy_request_buffering off; } }`
    ),
  (file, { folder }) => ['-c', file, '-p', folder]
)

const haproxy = native(
  'haproxy',
  ({ port, originPort }) => `
global
  nbthread 1
  maxconn 8000
defaults
  mode http
  timeout connect 5s
  timeout client 60s
  timeout server 60s
  http-reuse always
frontend in
  bind 127.0.0.1:${port}
  default_backend origin
backend origin
  server origin 127.0.0.1:${originPort}
`,
  (file) => ['-db', '-f', file]
)

export const baseline = '@fastify/http-proxy'
export const subjects: readonly Subject[] = [
  passthrough,
  everything,
  script(baseline, 'fastify-http-proxy.ts'),
  nginx,
  haproxy
]
