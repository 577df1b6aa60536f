/** Routes on which a concern could never decide as meant, because it needs the consumer or the claims of a token; and settings without effect. */
import t from 'tap'
import { ConfigError } from '../../config/load.ts'
import { parseConfig } from '../../plugins/config.ts'

const consumer = { name: 'alice', groups: ['a', 'staff'], keyAuth: { hash: `sha256:${'0'.repeat(64)}` } }
const jwt = { secret: 'a secret that is long enough for this' }
const forwardAuth = { url: 'http://127.0.0.1:1/auth' }
const introspection = { url: 'http://127.0.0.1:1/introspect', clientId: 'gateway', clientSecret: 'secret' }
const rules = (rule: object) => ({ authorization: { rules: [{ action: 'allow', ...rule }] } })
const limit = (by: string | string[]) => ({
  rateLimit: [
    { max: 1, window: '1h' },
    { max: 1, window: '1m', by }
  ]
})

/** Returns the faults and warnings of a route with these concerns, and the top-level `edge`. */
function reported(edge: object, top: object = {}): string[] {
  const warnings: string[] = []
  const written = {
    consumers: 'keyAuth' in edge ? [consumer] : [],
    services: { any: { instances: ['http://127.0.0.1:1'] } },
    edge: top,
    routes: [{ name: 'all', match: { path: '/' }, service: 'any', edge }]
  }
  try {
    parseConfig(JSON.stringify(written), 'gateway.yaml', {}, ({ path, message }) =>
      warnings.push(`${path}: ${message}`)
    )
  } catch (error) {
    if (!(error instanceof ConfigError)) throw error
    return error.faults.map(({ path, message }) => `${path}: ${message}`)
  }
  return warnings
}

const withoutClaims = 'nothing on this route verifies a token with claims; add jwt, introspection, oidc or a plugin'
const withoutConsumer = 'nothing on this route identifies the consumer; add '

t.test('a concern that needs what no concern of the route provides is a fault', async (t) => {
  const faults: readonly (readonly [edge: object, fault: string])[] = [
    [{ forwardAuth, acl: { allow: ['staff'] } }, `acl: consumer: ${withoutConsumer}`],
    [{ forwardAuth, ...rules({ groups: ['staff'] }) }, `authorization.rules: consumer: ${withoutConsumer}`],
    [{ forwardAuth, ...limit('consumer') }, `rateLimit[1].by: consumer: ${withoutConsumer}`],
    [{ keyAuth: {}, acl: { scopes: ['read'] } }, `acl.scopes: claims: ${withoutClaims}`],
    [{ keyAuth: {}, acl: { roles: ['admin'] } }, `acl.roles: claims: ${withoutClaims}`],
    [{ keyAuth: {}, acl: { claims: { tenant: 'a' } } }, `acl.claims: claims: ${withoutClaims}`],
    [{ keyAuth: {}, ...rules({ claims: { tenant: 'a' } }) }, `authorization.rules: claims: ${withoutClaims}`],
    [{ keyAuth: {}, ...rules({ scopes: ['read'] }) }, `authorization.rules: claims: ${withoutClaims}`],
    [{ keyAuth: {}, ...limit(['ip', 'claim:tenant']) }, `rateLimit[1].by: claims: ${withoutClaims}`]
  ]
  for (const [edge, fault] of faults) {
    const found = reported(edge)
    t.equal(found.length, 1, JSON.stringify(edge))
    t.ok(found[0]?.startsWith(`routes[0].edge.${fault}`), fault, { found })
  }
  const [inherited] = reported({ keyAuth: {} }, limit('claim:tenant'))
  t.match(inherited, /^routes\[0\]\.edge\.rateLimit\[1\]\.by: claims \(inherited\): /)
})

t.test('a concern that has what it needs is none', async (t) => {
  const sound = [
    { forwardAuth: { ...forwardAuth, consumer: 'x-user' }, acl: { allow: ['staff'] } },
    { forwardAuth: { ...forwardAuth, consumer: 'x-user' }, ...limit('consumer') },
    { keyAuth: {}, acl: { allow: ['staff'] } },
    { jwt, acl: { scopes: ['read'], roles: ['admin'] } },
    { introspection, ...rules({ claims: { tenant: 'a' } }) },
    { jwt, ...limit(['consumer', 'claim:tenant']) }
  ]
  for (const edge of sound) t.strictSame(reported(edge), [], JSON.stringify(edge))
})

t.test('a setting that has no effect causes a warning', async (t) => {
  const failures = { max: 5 }
  const oidc = { issuer: 'https://id.example.com', clientId: 'gateway', session: { secrets: ['s'.repeat(32)] } }
  const uncounted =
    'has no effect without keyAuth, hmacAuth, messageSignature, basicAuth, jwt, introspection, authorizer: other failures are not counted'
  const methods = 'mtlsAuth, keyAuth, hmacAuth, messageSignature, basicAuth, jwt, introspection, authorizer, oidc'
  const at = 'routes[0].edge'
  t.strictSame(reported({ oidc, authentication: { failures } }), [`${at}.authentication.failures: ${uncounted}`])
  t.strictSame(reported({ oidc }, { authentication: { failures } }), [`edge.authentication.failures: ${uncounted}`])
  t.strictSame(reported({ authentication: { require: 'any' } }), [
    `${at}.authentication.require: has no effect without ${methods}`
  ])
  t.strictSame(reported({ forwardAuth: { ...forwardAuth, maxBodySize: '1mb' } }), [
    `${at}.forwardAuth.maxBodySize: has no effect without forwardBody: true`
  ])
  t.strictSame(reported({ jwt, acl: { allow: ['a'], rolesClaim: 'realm_access.roles' } }), [
    `${at}.acl.rolesClaim: has no effect without "roles"`
  ])
  const effective = [
    { keyAuth: {}, authentication: { failures } },
    { jwt, authentication: { failures: false } },
    { jwt, authentication: { require: 'any' } },
    { forwardAuth: { ...forwardAuth, forwardBody: true, maxBodySize: '1mb' } },
    { jwt, acl: { roles: ['a'], rolesClaim: 'realm_access.roles' } }
  ]
  for (const edge of effective) t.strictSame(reported(edge), [], JSON.stringify(edge))
})
