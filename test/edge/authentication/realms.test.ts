/** The realm of a route: every challenge has that of its method, whichever concern refuses the request. */
import t from 'tap'
import { anyClient, listenFor, protocols } from '../../helpers/edge/asking-client.ts'
import { claims, secret, token } from '../../helpers/edge/tokens.ts'
import { startEcho, startGateway, startService } from '../../helpers/gateway.ts'

for (const protocol of protocols) {
  t.test(`over ${protocol}, refusals by any concern have the realm of the route's method`, async (t) => {
    const service = await startEcho()
    t.teardown(service.close)
    const issuer = await startService((request, response) => {
      const isUma = request.url === '/uma'
      response.writeHead(isUma ? 403 : 200, { 'content-type': 'application/json' })
      response.end(isUma ? '{"error":"access_denied"}' : '{"active":true,"sub":"ann"}')
    })
    t.teardown(issuer.close)
    const realm = 'api'
    const jwt = { secret, realm }
    const introspection = { url: `${issuer.url}/introspect`, clientId: 'gateway', clientSecret: 'secret', realm }
    const oidc = { issuer: issuer.url, clientId: 'gateway', session: { secrets: ['s'.repeat(32)] }, realm }
    const keyAuth = { header: 'x-key', realm: 'keys' }
    const denied = [{ action: 'allow', scopes: ['admin'] }]
    const anonymous = { require: 'any', anonymous: 'guest' }
    const edges: Readonly<Record<string, object>> = {
      acl: { jwt, acl: { scopes: ['admin'] } },
      'acl-role': { introspection, acl: { roles: ['admin'] } },
      'acl-of-two': { keyAuth, jwt, authentication: { require: 'any' }, acl: { scopes: ['admin'] } },
      authorization: { jwt, authorization: { rules: denied } },
      uma: { jwt, uma: { url: `${issuer.url}/uma`, audience: 'a', permissions: ['a'] } },
      introspection: { introspection: { ...introspection, scopes: ['admin'] } },
      oidc: { oidc },
      usual: {
        introspection: { ...introspection, realm: undefined },
        acl: { scopes: ['admin'] },
        authentication: anonymous
      }
    }
    const gateway = await startGateway({
      listen: listenFor(t, protocol),
      consumers: [{ name: 'guest', groups: [] }],
      services: { any: { instances: [service.url] } },
      routes: Object.entries(edges).map(([name, edge]) => ({ name, match: { path: `/${name}` }, service: 'any', edge }))
    })
    t.teardown(gateway.close)
    const { ask } = anyClient(t, protocol, gateway.port)
    const authorization = `Bearer ${token(claims())}`
    const challengeOf = async (path: string, headers: Record<string, string> = { authorization }) =>
      (await ask(path, { headers })).headers['www-authenticate']
    const insufficient = 'Bearer realm="api", error="insufficient_scope"'
    t.equal(await challengeOf('/acl', {}), 'Bearer realm="api"')
    t.equal(await challengeOf('/acl'), `${insufficient}, scope="admin"`)
    t.equal(await challengeOf('/acl-role'), insufficient)
    t.equal(await challengeOf('/acl-of-two'), `${insufficient}, scope="admin"`)
    t.equal(await challengeOf('/authorization'), `${insufficient}, scope="admin"`)
    t.equal(await challengeOf('/uma'), insufficient)
    t.match(await challengeOf('/introspection', {}), /^Bearer realm="api"$/)
    t.match(await challengeOf('/introspection'), /^Bearer realm="api", error="insufficient_scope".* scope="admin"$/)
    t.match(await challengeOf('/oidc', {}), /^Cookie realm="api"/)
    t.equal(await challengeOf('/usual'), 'Bearer realm="jingwei", error="insufficient_scope", scope="admin"')
  })
}
