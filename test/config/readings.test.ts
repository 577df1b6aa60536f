/** Warnings about a less protected route behind a protected one, in the reading of a common server. */
import t from 'tap'
import { parseConfig } from '../../plugins/config.ts'

const jwt = { secret: 'x'.repeat(32) }

function warningsOf(routes: object[], more: object = {}): string[] {
  const services = { a: { instances: ['http://h'] }, b: { instances: ['http://h'] } }
  const config = { services, routes: routes.map((route) => ({ service: 'a', ...route })), ...more }
  const warnings: string[] = []
  parseConfig(JSON.stringify(config), 'gateway.yaml', {}, ({ path, message }) => warnings.push(`${path}: ${message}`))
  return warnings
}

const open = { name: 'open', match: { path: '/' } }
const users = { name: 'users', match: { path: '/api/users' }, edge: { jwt } }

t.test('a distinct reading that reaches a less protected route is warned of', async (t) => {
  const elsewhere = { ...open, service: 'b' }
  t.strictSame(warningsOf([users, elsewhere]), [], 'the default, guard, needs no warning')
  const distinct = (key: string) => ({ listen: { paths: { [key]: 'distinct' } } })
  t.strictSame(warningsOf([users, elsewhere], distinct('case')), [
    'routes[0].match.path: services that ignore case read "/API/USERS" as this path, but the gateway sends it to the route "open" without jwt; listen.paths.case: guard would refuse it'
  ])
  t.strictSame(warningsOf([users, elsewhere], distinct('trailingDot')), [
    'routes[0].match.path: services on Windows read "/api/users." as this path, but the gateway sends it to the route "open" without jwt; listen.paths.trailingDot: guard would refuse it'
  ])
  t.strictSame(
    warningsOf([users, elsewhere], distinct('trailingSlash')),
    [],
    'a prefix matches with a trailing slash, too'
  )
  const exact = { ...users, match: { path: { exact: '/api/users' } } }
  t.match(warningsOf([exact, elsewhere], distinct('trailingSlash')), [
    /ignore a slash at the end read "\/api\/users\/"/
  ])
  const whole = { edge: { jwt }, ...distinct('case') }
  t.strictSame(warningsOf([users, elsewhere], whole), [], 'routes with the same protection need no warning')
  t.strictSame(warningsOf([users], distinct('case')), [], 'a single route needs no warning')
})

t.test('a path with a suffix is warned of if one service has both routes', async (t) => {
  t.strictSame(warningsOf([users, open]), [
    'routes[0].match.path: Spring before 5.3 and Struts read "/api/users.json" as this path, but the gateway sends it to the route "open" without jwt; if a service does this, add jwt to "open"'
  ])
  t.strictSame(warningsOf([users, { ...open, match: { path: '/', hosts: ['www.example.com'] } }]), [])
})

t.test('paths that differ only in case, with different protection, are warned of', async (t) => {
  const upper = { name: 'upper', match: { path: '/api/Users' }, service: 'b' }
  t.strictSame(warningsOf([users, upper]), [
    'routes[1].match.path: some services do not distinguish this path from that of route "users", and only one of the two has jwt'
  ])
  t.strictSame(warningsOf([users, { ...upper, edge: { jwt } }]), [])
  const plugins = { plugins: [{ package: 'fastify', name: 'auth', scope: 'routes' }] }
  t.strictSame(warningsOf([{ ...users, edge: {}, plugins: ['auth'] }, upper], plugins), [
    'routes[1].match.path: some services do not distinguish this path from that of route "users", and only one of the two has plugins.auth'
  ])
})

t.test('a path that another listener forwards without its protection is warned of', async (t) => {
  const listen = (more: object = {}) => ({
    listen: [
      { name: 'inner', port: 1 },
      { name: 'public', port: 2, ...more }
    ]
  })
  const warned = (routes: object[], more?: object) =>
    warningsOf(routes, listen(more)).filter((text) => text.includes('match.listeners'))
  const inner = { ...users, match: { path: '/api/users', listeners: ['inner'] } }
  t.strictSame(warned([inner, open]), [
    'routes[0].match.listeners: on the listener "public" the route "open" forwards this path to the same service without jwt; restrict "open" by match.listeners, or change its service'
  ])
  t.strictSame(warned([inner, { ...open, service: 'b' }]), [], 'another service needs no warning')
  t.strictSame(warned([inner, { ...open, edge: { jwt } }]), [], 'the same protection needs no warning')
  t.strictSame(
    warned([inner, { ...open, match: { path: '/', listeners: ['inner'] } }]),
    [],
    'a route that the other listener does not have needs no warning'
  )
  t.strictSame(warned([inner, { ...open, match: { path: '/other' } }]), [], 'another path needs no warning')
  t.strictSame(
    warned([{ ...users, match: { path: '/api/users' } }, open]),
    [],
    'a protected route of all listeners needs no warning'
  )
  t.strictSame(
    warned([inner, open], { redirect: { to: 'https', port: 443 } }),
    [],
    'a listener that redirects needs no warning'
  )
})
