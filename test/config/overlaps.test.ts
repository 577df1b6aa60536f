/** Warnings about routes that take requests of other routes by their conditions or their priority. */
import t from 'tap'
import { parseConfig } from '../../plugins/config.ts'

const jwt = { secret: 'x'.repeat(32) }

function warningsOf(routes: object[], more: object = {}): string[] {
  const services = { a: { instances: ['http://h'] }, b: { instances: ['http://i'] } }
  const config = { services, routes: routes.map((route) => ({ service: 'a', ...route })), ...more }
  const warnings: string[] = []
  parseConfig(JSON.stringify(config), 'gateway.yaml', {}, ({ path, message }) => warnings.push(`${path}: ${message}`))
  return warnings.filter((text) => !text.includes('.json"'))
}

const open = (match: object, more: object = {}) => ({ name: 'open', match: { path: '/api', ...match }, ...more })
const safe = (match: object, more: object = {}) => ({
  name: 'safe',
  match: { path: '/api', ...match },
  edge: { jwt },
  ...more
})

const kinds = [
  ['headers', { x: '1' }],
  ['headers', { x: { present: true } }],
  ['headers', { x: { present: false } }],
  ['headers', { x: { regex: '^1$' } }],
  ['query', { x: '1' }],
  ['cookies', { x: { regex: '^.*$' } }]
] as const

t.test('a condition by which clients reach a protected service without its protection is warned of', async (t) => {
  for (const [kind, wanted] of kinds) {
    const condition = { [kind]: wanted }
    const warning = `routes[0].match.${kind}: with this condition, clients reach the service of route "safe" under its path without jwt; add jwt here, or change the service`
    t.strictSame(warningsOf([open(condition), safe({})]), [warning], JSON.stringify(condition))
    t.strictSame(warningsOf([open({ ...condition, path: ['/z', '/api'] }), safe({})]), [warning], 'of several paths')
    t.strictSame(warningsOf([open({ ...condition, path: '/' }, { priority: 1 }), safe({})]), [warning], 'by priority')
    t.strictSame(warningsOf([open(condition, { edge: { jwt } }), safe({})]), [])
    t.strictSame(warningsOf([open(condition, { service: 'b' }), safe({})]), [])
    t.strictSame(warningsOf([open({ ...condition, methods: ['PUT'] }), safe({ methods: ['GET'] })]), [])
    t.strictSame(warningsOf([open({ ...condition, path: '/other' }), safe({})]), [])
    t.strictSame(
      warningsOf([open({ ...condition, addresses: ['10.0.0.0/8'] }), safe({})]),
      [],
      'a client does not choose its address'
    )
  }
  t.match(warningsOf([open({ query: { x: '1' }, methods: ['DELETE'] }), safe({})]), [/^routes\[0\]\.match\.query: /])
  t.match(warningsOf([open({ path: '/api/*', query: { x: '1' } }, { priority: 1 }), safe({})]), [
    /^routes\[0\]\.match\.query: /
  ])
  const listeners = (name: string) => ({ listeners: [name] })
  const listen = [
    { name: 'one', port: 1 },
    { name: 'two', port: 2 }
  ]
  const apart = [open({ query: { x: '1' }, ...listeners('one') }), safe(listeners('two'))]
  t.strictSame(
    warningsOf(apart, { listen }).filter((text) => text.includes('.query')),
    []
  )
})

t.test('a protected route whose condition need not be met is warned of', async (t) => {
  for (const [kind, wanted] of kinds) {
    const condition = { [kind]: wanted }
    const warning = `routes[0].match.${kind}: requests that do not meet this condition reach the same service by route "open" without jwt; add jwt to "open", or change its service`
    t.strictSame(warningsOf([safe(condition), open({})]), [warning], JSON.stringify(condition))
    t.strictSame(warningsOf([safe(condition), open({ path: '/' })]), [warning])
    t.strictSame(warningsOf([safe(condition), open({}, { edge: { jwt } })]), [])
    t.strictSame(warningsOf([safe(condition), open({}, { service: 'b' })]), [])
  }
  t.strictSame(warningsOf([safe({ addresses: ['10.0.0.0/8'] }), open({})]), [])
})

t.test('a route that never matches because of a priority is warned of', async (t) => {
  const first = (match: object, priority = 1) => open(match, { priority })
  const second = (match: object) => ({ name: 'second', match: { path: '/api', ...match } })
  const never = [
    'routes[1].match: no request reaches this route: route "open" (on line 1) has a higher priority and matches all of its requests'
  ]
  const covered: [object, object][] = [
    [{}, {}],
    [{ path: '/' }, {}],
    [{ path: '/:any' }, { path: { exact: '/api' } }],
    [{ path: '/*' }, { path: '/api/v*' }],
    [{ path: '/a*' }, { path: ['/api', '/apis'] }],
    [{}, { path: '/api/:id(^[0-9]+$)/x' }],
    [{ hosts: ['*.example.com'] }, { hosts: ['a.example.com', '*.b.example.com'] }],
    [{}, { query: { a: '1' } }],
    [{ query: { a: { present: true } } }, { query: { a: { regex: '^1$' } } }],
    [{ headers: { 'X-A': '1' } }, { headers: { 'x-a': '1', b: '2' } }],
    [{ methods: ['GET', 'PUT'] }, { methods: ['HEAD'] }]
  ]
  for (const [one, other] of covered) {
    const about = JSON.stringify([one, other])
    const isSampled = !about.includes('[0-9]')
    t.strictSame(warningsOf([first(one), second(other)]), isSampled ? never : [], about)
  }
  const reached: [object, object][] = [
    [{ path: '/api/x' }, {}],
    [{ path: { exact: '/api' } }, {}],
    [{ path: '/api/*' }, {}],
    [{ path: '/a*' }, { path: ['/api', '/b'] }],
    [{ hosts: ['a.example.com'] }, {}],
    [{ hosts: ['*.example.com'] }, { hosts: ['example.com'] }],
    [{ query: { a: '1' } }, {}],
    [{ query: { a: '1' } }, { query: { a: '2' } }],
    [{ query: { a: '1' } }, { cookies: { a: '1' } }],
    [{ headers: { a: { present: true } } }, { headers: { a: { present: false } } }],
    [{ methods: ['GET'] }, { methods: ['HEAD', 'PUT'] }]
  ]
  for (const [one, other] of reached)
    t.strictSame(warningsOf([first(one), second(other)]), [], JSON.stringify([one, other]))
})

t.test('conditions for forwarding headers, which any client can send, are warned of', async (t) => {
  t.strictSame(warningsOf([open({ headers: { 'X-Forwarded-Proto': 'https' } })]), [
    'routes[0].match.headers.X-Forwarded-Proto: any client can send this header: routes are matched before the gateway removes it'
  ])
})
