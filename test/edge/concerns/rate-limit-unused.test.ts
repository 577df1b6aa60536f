/** Warnings of rate limits, and of the number of nodes, that have no effect. */
import t from 'tap'
import { parseConfig } from '../../../plugins/config.ts'

const rate = { max: 10, window: '1m' }
const shared = { ...rate, store: 'redis' }

/** Returns the warnings of a configuration. */
function warningsOf(edge: object, route: object = {}, more: object = {}): string[] {
  const warnings: string[] = []
  const config = {
    services: { any: { instances: ['http://127.0.0.1:1'] } },
    routes: [{ name: 'all', match: { path: '/' }, service: 'any', edge: route }],
    redis: { url: 'redis://127.0.0.1:1' },
    edge,
    ...more
  }
  parseConfig(
    JSON.stringify(config),
    'gateway.yaml',
    {},
    ({ path, message }) => void warnings.push(`${path}: ${message}`)
  )
  return warnings.filter((text) => !text.startsWith('redis'))
}

t.test('edge.gatewayNodes that no limit uses', async (t) => {
  const nodes = { gatewayNodes: 3 }
  const unused = /^edge\.gatewayNodes: has no effect: no rateLimit has share: true, nor store: redis/
  t.match(warningsOf(nodes), [unused])
  t.match(warningsOf({ ...nodes, rateLimit: rate }, { rateLimit: { ...shared, onFailure: 'open' } }), [unused])
  t.match(warningsOf({ ...nodes, rateLimit: false }), [unused])
  for (const limit of [
    { ...rate, share: true },
    { maxConcurrent: 9, share: true },
    shared,
    { ...shared, onFailure: 'share' },
    [{ ...rate, by: 'route' }, shared]
  ]) {
    t.strictSame(warningsOf({ ...nodes, rateLimit: limit }), [])
    t.strictSame(warningsOf(nodes, { rateLimit: limit }), [])
  }
  const jwt = { jwt: { jwks: 'https://id.example/jwks.json', issuer: 'https://id.example', audience: 'api' } }
  const consumers = [{ name: 'amy', jwt: { sub: '1' }, edge: { rateLimit: shared } }]
  t.strictSame(warningsOf({ ...nodes, ...jwt, rateLimit: rate }, {}, { consumers }), [])
})

t.test('settings of limits without effect', async (t) => {
  for (const [limit, expected] of [
    [{ ...rate, by: ['ip', 'route'] }, 'by: all requests have "route" in common; remove it from the list'],
    [{ ...rate, by: ['ip', 'ip'] }, 'by: a source is listed twice'],
    [
      { ...rate, by: 'route', ipv6Prefix: 56 },
      'ipv6Prefix: has no effect with by: route, which counts all addresses together'
    ],
    [
      { maxConcurrent: 3, by: 'route', ipv6Prefix: 56 },
      'ipv6Prefix: has no effect with by: route, which counts all addresses together'
    ],
    [{ ...shared, lease: 1 }, 'lease: has no effect: each request takes 1'],
    [{ ...shared, lease: 5, cost: 5 }, 'lease: has no effect: each request takes 5'],
    [
      { ...rate, headers: 'ietf', mode: 'shadow' },
      'headers: has no effect with mode: shadow, in which responses do not show the limit'
    ]
  ] as const) {
    t.strictSame(warningsOf({ rateLimit: limit }), [`edge.rateLimit.${expected}`])
  }
  t.strictSame(warningsOf({ gatewayNodes: 1, rateLimit: { ...rate, share: true } }), [
    'edge.rateLimit.share: has no effect with edge.gatewayNodes: 1'
  ])
  for (const limit of [
    { ...rate, by: 'ip', ipv6Prefix: 56 },
    { ...rate, by: ['ip', 'header:x-key'], maxPerAddress: 100 },
    { ...shared, lease: 2 },
    { ...rate, headers: 'ietf' }
  ]) {
    t.strictSame(warningsOf({ rateLimit: limit }), [])
  }
})

t.test('limits of a list that never refuse', async (t) => {
  const never = 'edge.rateLimit[0].max: never refuses: number 2 of the list allows at most 100 in a longer window'
  const second = { max: 200, window: '1s' }
  const minute = { max: 100, window: '1m' }
  t.strictSame(warningsOf({ rateLimit: [second, minute] }), [never])
  for (const limits of [
    [{ ...second, max: 199 }, minute],
    [second, { ...minute, by: 'route' }],
    [second, { ...minute, cost: 2 }],
    [second, { ...minute, mode: 'shadow' }],
    [second, { ...minute, algorithm: 'token-bucket' }],
    [{ ...second, max: 10 }, minute]
  ]) {
    t.strictSame(warningsOf({ rateLimit: limits }), [])
  }
})

t.test('by of a consumer', async (t) => {
  const jwt = { jwt: { jwks: 'https://id.example/jwks.json', issuer: 'https://id.example', audience: 'api' } }
  const warned = (limit: object) =>
    warningsOf(
      { ...jwt, rateLimit: rate },
      {},
      { consumers: [{ name: 'amy', jwt: { sub: '1' }, edge: { rateLimit: limit } }] }
    )
  t.strictSame(warned(rate), [])
  t.strictSame(warned({ ...rate, by: 'consumer' }), [])
  t.match(warned({ ...rate, by: 'ip' }), [
    /rateLimit\.by: has no effect here: all requests of the consumer are counted together$/
  ])
})
