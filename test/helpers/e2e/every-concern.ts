// A gateway with every optional concern of the mesh, each on a service of its own so that none hides another, and
// requests that make all of them act.
import { createHash } from 'node:crypto'
import { writeFile } from 'node:fs/promises'
import type { RequestListener } from 'node:http'
import type { Test } from 'tap'
import { intentionTiming } from '../../../plugins/mesh/connect/identity/intention-query.ts'
import { filesTiming } from '../../../plugins/mesh/connect/tls-files.ts'
import { authority, folderFor } from '../certificates.ts'
import type { Consul } from '../consul.ts'
import { intend } from '../mesh/connect.ts'
import { refused, upstream } from '../mesh/servers.ts'
import type { Client } from './gateway.ts'
import { inProcess } from './gateway.ts'

const respondWith =
  (status: number, delayMs = 0): RequestListener =>
  (request, response) => {
    const { searchParams } = new URL(request.url!, 'http://any')
    response.statusCode = Number(searchParams.get('status') ?? status)
    setTimeout(() => response.end('answer'), Number(searchParams.get('delay') ?? delayMs))
  }

/** Requests of one round, in flight together, as `path × times`. */
const round: [path: string, times: number][] = [
  ['/breaking?status=500', 3],
  ['/routed?status=500', 3],
  ['/tokenless', 1],
  ['/capped?delay=100', 4],
  ['/adaptive?delay=100', 3],
  ['/limited', 3],
  ['/sick', 3],
  ['/retried?status=500', 4],
  ['/hedged', 2],
  ['/collapsed?delay=50', 3],
  ['/fallen', 1],
  ['/mirrored', 1],
  ['/faulty', 1],
  ['/shadowing', 3],
  ['/denied', 1],
  ['/keys?key=wrong', 3],
  ['/tried', 1],
  ['/asked', 1],
  ['/login', 1]
]

/** Queries that must have a result above 0 once all concerns have acted; rates are over the last minute. */
export const effects = [
  'jingwei_mesh_ejections_active',
  'max_over_time(jingwei_mesh_circuit_state[1m]) == 2',
  'max_over_time(jingwei_mesh_route_circuit_state[1m]) == 2',
  'rate(jingwei_mesh_credentials_missing_total[1m])',
  'jingwei_mesh_panic',
  ...[
    'ejections_total', 'circuit_refusals_total', 'overflows_total{cap="maxPendingRequests"}',
    'overflows_total{cap="adaptive"}', 'limited_total{outcome="queued"}', 'limited_total{outcome="refused"}',
    'retries_total{service="retried"}', 'retry_overflows_total', 'hedges_total{outcome="won"}',
    'hedges_total{outcome="lost"}', 'collapsed_total', 'fallbacks_total{kind="static"}',
    'mirrored_total{outcome="sent"}', 'faults_total{kind="abort"}', 'shadowed_total',
    'certificate_reloads_total{outcome="failure"}', 'intention_denials_total'
  ].map((metric) => `rate(jingwei_mesh_${metric.replace(/(\{.*\})?$/, '$1[1m]')})`), // biome-ignore format: a table
  'rate(jingwei_edge_refusals_total{code="JW_AUTH_LIMITED"}[1m])',
  'rate(jingwei_edge_refusals_total{code="JW_AUTH_UNAVAILABLE"}[1m])',
  'rate(jingwei_edge_shadow_refusals_total[1m])',
  'rate(jingwei_edge_forward_auth_requests_total{result="failed"}[1m])',
  'rate(jingwei_edge_oidc_logins_total{result="failed"}[1m])'
]

export interface Everything extends Client {
  /** Sends all requests of one round. */
  act(): Promise<void>
}

export async function everyConcern(t: Test, consul: Consul): Promise<Everything> {
  intentionTiming.every = 100
  filesTiming.interval = 100
  const serve = async (listener: RequestListener) => (await upstream(t, 'any', listener)).url
  const [good, bad, worse] = [
    await serve(respondWith(200)),
    await serve(respondWith(503)),
    await serve(respondWith(503))
  ]
  const [slow, slower] = [await serve(respondWith(200, 400)), await serve(respondWith(200, 500))]
  await intend(consul, 'gateway', 'orders', 'deny')
  const issuer = authority(folderFor(t), 'issuer')
  const { certFile: cert, keyFile: key } = issuer.issue('gateway', { days: 0 }) // no longer good

  const only = (mesh: object, ...instances: string[]) => ({
    instances: instances.length > 0 ? instances : [good],
    mesh
  })
  const capsAlone = { errorRatio: false, slowRatio: false }
  const hash = `sha256:${createHash('sha256').update('a key').digest('hex')}`
  const route = (name: string, edge: object) => ({ name, match: { path: `/${name}` }, service: 'fallen', edge })
  const breaking = (name: string, circuitBreaker: object) => ({
    name,
    match: { path: `/${name}` },
    service: 'faulty',
    mesh: { circuitBreaker }
  })
  const client = await inProcess(t, {
    consul: consul.url,
    consumers: [{ name: 'alice', keyAuth: { hash } }],
    edge: { metrics: { consumers: 1 }, gatewayNodes: 3 },
    mesh: { retry: false, balance: 'round-robin', identity: { service: 'gateway' } },
    services: {
      breaking: only({ circuitBreaker: { minRequests: 2 } }),
      capped: only({ circuitBreaker: { maxConnections: 1, maxPendingRequests: 1, ...capsAlone } }),
      adaptive: only({ adaptiveConcurrency: { initialLimit: 1, minLimit: 1, maxLimit: 1 } }),
      limited: only({ limit: { rate: 1, queue: 1 } }),
      sick: only({ outlierDetection: { consecutiveGatewayFailures: 1, maxEjectionPercent: '100%' } }, good, bad, worse),
      retried: only({ retry: { attempts: 1, on: ['5xx'] }, circuitBreaker: { maxRetries: 1, ...capsAlone } }),
      hedged: only({ hedge: { after: '50ms' } }, slow, slower, good),
      collapsed: only({ collapse: true }),
      fallen: only({ fallback: [{ status: 200, body: 'instead' }] }, await refused()),
      mirrored: only({ mirror: { service: 'collapsed' } }),
      faulty: only({ fault: { abort: { status: 503 } } }),
      shadowing: only({ limit: { mode: 'shadow', rate: 1 }, circuitBreaker: { mode: 'shadow' } }),
      secret: only({ tls: { ca: issuer.file, cert, key } }, good.replace('http', 'https')),
      tokenless: only({
        credentials: { oauth2: { url: await refused(), clientId: 'gateway', clientSecret: 'secret' } }
      }),
      denied: { consul: { service: 'orders' }, mesh: { intentions: {} } }
    },
    // A key set whose server is unavailable.
    routes: [
      breaking('routed', { consecutiveFailures: 2 }),
      breaking('shy', { mode: 'shadow' }),
      route('keyed', { jwt: { jwks: `${await refused()}/keys` } }),
      route('keys', { keyAuth: { query: 'key' }, authentication: { failures: { max: 1 } } }),
      route('tried', { ipFilter: { allow: ['192.0.2.1'], mode: 'shadow' } }),
      route('shared', { rateLimit: { max: 9, window: '1m', share: true } }),
      route('asked', { forwardAuth: { url: await refused() } }),
      route('logged-in', {
        oidc: {
          issuer: await refused(),
          clientId: 'gateway',
          loginPath: '/login',
          session: { secrets: ['a secret of a test, which is long enough'] }
        }
      }),
      route('tokens', { introspection: { url: await refused(), clientId: 'gateway', clientSecret: 'secret' } })
    ]
  })
  const paths = round.flatMap(([path, times]) => Array<string>(times).fill(path))
  let rounds = 0
  const act = async () => {
    await writeFile(key, `no key, for the ${++rounds}th time`)
    await Promise.all(paths.map((path) => client.send(path)))
  }
  return { ...client, act }
}
