// This gateway as a subject: its configuration, bare and with everything on.
import { mkdirSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { runToEnd } from '../helpers/processes.ts'
import type { Launch, Setup } from './subjects.ts'

const secret = 'a secret for benchmarks only, long enough'

/** Proxies and nothing else: no log, no metrics, no concern. */
export async function passthrough(setup: Setup): Promise<Launch> {
  const lines = ['admin: false', 'edge: { accessLog: false, bodyLimit: false }', 'mesh: { retry: false }']
  return launch(setup, lines, `{ instances: ${instances(setup, '127.0.0')} }`)
}

/** What "everything on" is: a concern a line. A new one, once the gateway has it, is added here and nowhere else. */
const everythingOn = {
  edge: [
    'accessLog: true', // its output goes to a file
    'cors: { origin: [https://app.example.com], credentials: true }',
    'rateLimit: { max: 1000000000, window: 1h }',
    `jwt: { secret: '${secret}', issuer: bench, audience: bench, forward: { sub: x-user-id } }`
    // tracing
  ],
  mesh: [
    'balance: least-request',
    'retry: { on: [connect-failure, reset, gateway-error] }',
    'circuitBreaker: { maxConnections: 10000, perInstance: { maxConnections: 10000 } }',
    'outlierDetection: {}'
  ]
}

/** With metrics on the admin port, and the instances from Consul. */
export async function everything(setup: Setup): Promise<Launch> {
  const lines = [
    'admin: { port: 0 }',
    `discovery: { consul: { url: '${setup.consulUrl}' } }`,
    ...section('edge', everythingOn.edge),
    ...section('mesh', everythingOn.mesh)
  ]
  const started = launch(setup, lines, '{}')
  const token = ['-c', join(setup.folder, 'gateway.yaml'), 'token', 'origin', '--ttl', '10h']
  const { code, stdout, stderr } = await runToEnd('node', [join(setup.checkout, 'app.ts'), ...token])
  if (code !== 0) throw new Error(`no token: ${stdout}${stderr}`)
  return { ...started, headers: { authorization: `Bearer ${stdout.trim()}`, origin: 'https://app.example.com' } }
}

function launch(setup: Setup, lines: readonly string[], service: string): Launch {
  const { folder, port, checkout } = setup
  mkdirSync(folder, { recursive: true })
  const listen = [
    'host: 127.0.0.1',
    `port: ${port}`,
    'limits: { connections: 20000 }',
    'drain: { delay: 0s, timeout: 1s }'
  ]
  const config = [...section('listen', listen), ...lines, ...services(setup, service), ...routes(setup)]
  writeFileSync(join(folder, 'gateway.yaml'), `${config.join('\n')}\n`)
  // Its log must not pass through this process, on the other core.
  const program = `exec node '${checkout}/app.ts' -c '${folder}/gateway.yaml' > '${folder}/gateway.log' 2>&1`
  return { command: 'sh', args: ['-c', program], prefix: '/origin' }
}

const section = (name: string, lines: readonly string[]) => [`${name}:`, ...lines.map((line) => `  ${line}`)]

/** All are the one origin, by another of its addresses. */
function instances({ size, originPort }: Setup, net: string): string {
  const urls = Array.from({ length: size.instances }, (_, i) => `'http://${net}.${i + 1}:${originPort}'`)
  return `[${urls.join(', ')}]`
}

function services(setup: Setup, last: string): string[] {
  const lines = []
  for (let i = 1; i < setup.size.services; i++) {
    lines.push(`s${i}: { instances: ${instances(setup, `127.${1 + (i >> 8)}.${i & 255}`)} }`)
  }
  return section('services', [...lines, `origin: ${last}`])
}

function routes({ size }: Setup): string[] {
  const lines = []
  for (let i = 1; i < size.routes; i++) {
    const service = size.services > 1 ? `s${i}` : 'origin'
    lines.push(`- { name: r${i}, match: { path: /r${i}/things }, service: ${service} }`)
  }
  const last = '- { name: origin, match: { path: /origin }, service: origin, path: { strip: /origin } }'
  return section('routes', [...lines, last])
}
