// Jingwei with one concern at a time, to see what each adds to proxying.
import { createHash } from 'node:crypto'
import { client, instances, launch, secret, section, tokens } from './gateway.ts'
import type { Launch, Setup, Subject } from './subjects.ts'

/** A concern: keys of the configuration, and the clients' headers. */
interface Concern {
  readonly edge?: readonly string[]
  readonly mesh?: readonly string[]
  readonly listen?: readonly string[]
  /** Other lines of the configuration. */
  readonly more?: (setup: Setup) => readonly string[]
  readonly clients?: () => readonly Readonly<Record<string, string>>[]
}

const callers = 1000
const keyOf = (number: number) => `key-of-client-${number}`
const hashed = (key: string) => `sha256:${createHash('sha256').update(key).digest('hex')}`

const consumers = () =>
  section(
    'consumers',
    Array.from(
      { length: callers },
      (_, i) => `- { name: c${i}, groups: [gold], keyAuth: [{ hash: '${hashed(keyOf(i))}' }] }`
    )
  )
const keys = () => Array.from({ length: callers }, (_, i) => ({ 'x-api-key': keyOf(i) }))
/** Clients with addresses of their own, behind a trusted proxy. */
const byAddress = {
  listen: ["trustProxy: ['127.0.0.1']"],
  clients: () => Array.from({ length: callers }, (_, i) => address(i))
}
const address = (number: number) => ({ 'x-forwarded-for': `10.1.${number >> 8}.${number & 255}` })
const byKey = { more: consumers, clients: keys }
const redis = ({ redisUrl }: Setup) => [`redis: { url: '${redisUrl}' }`]
const networks = Array.from({ length: callers }, (_, i) => `172.16.${i >> 8}.${i & 255}`).join(', ')
const jwt = `jwt: { secret: '${secret}', issuer: bench, audience: bench, forward: { sub: x-user-id } }`

/** One entry per concern. The names have no commas. `bearer tokens` shows what the longer requests alone cost. */
const concerns: Readonly<Record<string, Concern>> = {
  'access log': { edge: ['accessLog: true'] },
  metrics: { more: () => ['admin: { port: 0 }'] },
  'body limit': { edge: ['bodyLimit: 1mb'] },
  overload: { edge: ['overload: { requests: 10000, memory: 90% }'] },
  cors: {
    edge: ['cors: { origin: [https://app.example.com], credentials: true }'],
    clients: () => [{ origin: 'https://app.example.com' }]
  },
  'forwarded addresses': byAddress,
  'IP filter (1000 networks)': { ...byAddress, edge: [`ipFilter: { deny: [${networks}] }`] },
  'rate limit': { ...byAddress, edge: ['rateLimit: { max: 1000000000, window: 1h }'] },
  'rate limit (three windows)': {
    ...byAddress,
    edge: [
      'rateLimit: [{ max: 1000000, window: 1s }, { max: 1000000000, window: 1h }, { max: 1000000000, window: 1d }]'
    ]
  },
  'rate limit (Redis)': {
    ...byAddress,
    edge: ['rateLimit: { max: 1000000000, window: 1h, store: redis }'],
    more: redis
  },
  'rate limit (Redis with lease)': {
    ...byAddress,
    edge: ['rateLimit: { max: 1000000000, window: 1h, store: redis, lease: 1000 }'],
    more: redis
  },
  'bearer tokens': { edge: [], clients: () => Array.from({ length: tokens }, (_, i) => client(i)) },
  'JWT (10000 tokens)': { edge: [jwt], clients: () => Array.from({ length: tokens }, (_, i) => client(i)) },
  'API keys (1000 consumers)': { ...byKey, edge: ['keyAuth: {}'] },
  'API keys and ACL': { ...byKey, edge: ['keyAuth: {}', 'acl: { allow: [gold] }'] },
  authorization: {
    edge: [
      "authorization: { default: allow, rules: [{ action: deny, methods: [DELETE] }, { action: deny, addresses: ['192.0.2.0/24'] }] }"
    ]
  },
  'least request': { mesh: ['balance: least-request'] },
  retries: { mesh: ['retry: { on: [connect-failure, reset, gateway-error] }'] },
  'circuit breaker': { mesh: ['circuitBreaker: { maxConnections: 10000, perInstance: { maxConnections: 10000 } }'] },
  'outlier detection': { mesh: ['outlierDetection: {}'] }
}

/** Returns the function that starts the gateway with nothing but one concern. */
function only({ edge = [], mesh = [], listen = [], more = () => [], clients = () => [] }: Concern) {
  return async (setup: Setup): Promise<Launch> => {
    const off = (name: string, lines: readonly string[], line: string) =>
      lines.some((each) => each.startsWith(`${name}:`)) ? [] : [line]
    const extra = more(setup)
    const lines = [
      ...off('admin', extra, 'admin: false'),
      ...section('edge', [
        ...edge,
        ...off('accessLog', edge, 'accessLog: false'),
        ...off('bodyLimit', edge, 'bodyLimit: false')
      ]),
      ...section('mesh', [...mesh, ...off('retry', mesh, 'retry: false')]),
      ...extra
    ]
    return {
      ...launch(setup, lines, `{ instances: ${instances(setup, '127.0.0')} }`, listen),
      clients: clients()
    }
  }
}

export const alone: readonly Subject[] = Object.entries(concerns).map(([name, concern]) => ({
  name: `jingwei with ${name}`,
  launch: only(concern)
}))
