// Jingwei as a subject: its configuration, bare and with everything on.
import { createHmac } from 'node:crypto'
import { mkdirSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import type { Launch, Setup } from './subjects.ts'

export const secret = 'a secret for benchmarks only, long enough'

/** Proxies and nothing else: no log, no metrics, no concern. */
export async function passthrough(setup: Setup): Promise<Launch> {
  const lines = ['admin: false', 'edge: { accessLog: false, bodyLimit: false }', 'mesh: { retry: false }']
  return launch(setup, lines, `{ instances: ${instances(setup, '127.0.0')} }`)
}

/** As `passthrough`, with a plugin that has an `onSend` hook: responses take the reply path. */
export async function replying(setup: Setup): Promise<Launch> {
  mkdirSync(setup.folder, { recursive: true })
  const hook = `(request, reply, payload, done) => { reply.header('x-seen', 'yes'); done(null, payload) }`
  const plugin = `export default async function seen (fastify) { fastify.addHook('onSend', ${hook}) }`
  writeFileSync(join(setup.folder, 'seen.mjs'), `${plugin}\n`)
  const lines = [
    'admin: false',
    'edge: { accessLog: false, bodyLimit: false }',
    'mesh: { retry: false }',
    'plugins: [{ path: ./seen.mjs }]'
  ]
  return launch(setup, lines, `{ instances: ${instances(setup, '127.0.0')} }`)
}

/** The meaning of "everything on": one concern per line. A new concern is added here only. */
const everythingOn = {
  edge: [
    'accessLog: true', // its output goes to a file
    'cors: { origin: [https://app.example.com], credentials: true }',
    'rateLimit: { max: 1000000000, window: 1h }',
    `jwt: { secret: '${secret}', issuer: bench, audience: bench, forward: { sub: x-user-id } }` // of many clients
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
  return {
    ...launch(setup, lines, '{}', ["trustProxy: ['127.0.0.1']"]),
    ...requestsOfMany()
  }
}

/** The requests with which everything is measured: a token each, and the addresses of a proxy's clients. */
export const requestsOfMany = (): Pick<Launch, 'headers' | 'clients'> => ({
  headers: { origin: 'https://app.example.com', ...client(0) },
  clients: Array.from({ length: tokens }, (_, i) => client(i))
})

/** Number of distinct tokens, and of distinct client addresses in X-Forwarded-For. */
export const tokens = 10_000
const addresses = 1000

export function client(number: number): Record<string, string> {
  const address = number % addresses
  return {
    authorization: `Bearer ${tokenOf(`user-${number}`)}`,
    'x-forwarded-for': `10.1.${address >> 8}.${address & 255}`
  }
}

function tokenOf(sub: string): string {
  const now = Math.floor(Date.now() / 1000)
  const claims = { sub, iss: 'bench', aud: 'bench', iat: now, exp: now + 36_000 }
  const text = [{ alg: 'HS256', typ: 'JWT' }, claims]
    .map((part) => Buffer.from(JSON.stringify(part)).toString('base64url'))
    .join('.')
  return `${text}.${createHmac('sha256', secret).update(text).digest('base64url')}`
}

export function launch(
  setup: Setup,
  lines: readonly string[],
  service: string,
  listener: readonly string[] = []
): Launch {
  const { folder, port, checkout } = setup
  mkdirSync(folder, { recursive: true })
  const listen = [
    'host: 127.0.0.1',
    `port: ${port}`,
    'limits: { connections: 20000 }',
    'drain: { delay: 0s, timeout: 1s }',
    ...listener
  ]
  const config = [...section('listen', listen), ...lines, ...services(setup, service), ...routes(setup)]
  writeFileSync(join(folder, 'gateway.yaml'), `${config.join('\n')}\n`)
  // The log goes to a file, so that this process on the other core does not have to read it.
  const program = `exec node '${checkout}/app.ts' -c '${folder}/gateway.yaml' > '${folder}/gateway.log' 2>&1`
  return { command: 'sh', args: ['-c', program], prefix: '/origin' }
}

export const section = (name: string, lines: readonly string[]) => [`${name}:`, ...lines.map((line) => `  ${line}`)]

/** Returns URLs of instances: loopback addresses of the one origin. */
export function instances({ size, originPort }: Setup, net: string): string {
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
