/**
 * Login of users in browsers by OpenID Connect, with sessions in cookies or Redis. A page load without a session is redirected
 * to the provider; any other request gets 401. Sets `request.user` (the claims) and `request.consumer`.
 */
import { orOff } from '../../../../config/schema/kit.ts'
import type { EdgePolicy } from '../../../../config/schema.ts'
import { moduleOnFirstUse } from '../../../on-first-use.ts'
import { attach, edgeRouteOf } from '../../attach.ts'
import { decorateUpstreamHeaders } from '../../bridge/upstream-headers.ts'
import { edgeConcern } from '../../concern.ts'
import { checkSubjects, idOf } from '../../consumers/issuers.ts'
import { checkOidc, checkParties } from './check.ts'
import { checkGoodbyes } from './goodbye.ts'
import type { OidcOptions } from './options.ts'
import { Oidc, Subject } from './options.ts'
import type { Logins } from './route.ts'

// Loaded by the first route with a login.
const login = moduleOnFirstUse<typeof import('./login.mts')>('plugins/edge/concerns/oidc/login.mts')

/** Returns the paths that the gateway serves itself. */
function ownPathsOf({ callbackPath, loginPath, logout }: OidcOptions): string[] {
  const paths = logout ? [callbackPath, loginPath, logout.path, logout.backchannelPath] : [callbackPath, loginPath]
  return paths.filter((path) => path !== undefined)
}

export default edgeConcern({
  name: 'oidc',
  options: orOff(Oidc),
  apiFacts: () => ({
    security: {
      login: {
        type: 'openIdConnect',
        openIdConnectUrl: '/.well-known/openid-configuration',
        description: 'A login in the browser, kept in a cookie.'
      }
    },
    responses: { 302: 'A page is redirected to the login.', 401: 'There is no session.' }
  }),
  provides: ['consumer', 'claims'],
  hasNoGroups: true,
  authenticates: { counts: null },
  aliases: {
    'openidConnect|oauth2': 'write edge.oidc',
    // Keys of the configuration of oauth2-proxy.
    oidcIssuerUrl: 'write edge.oidc.issuer',
    clientId: 'write edge.oidc.clientId',
    'clientSecret|clientSecretFile': 'write edge.oidc.clientSecret, with the name of an environment variable',
    cookieSecret: 'write edge: { oidc: { session: { secrets: […] } } }',
    cookieName: 'write edge.oidc.session.cookie',
    cookieExpire: 'write edge.oidc.session.lifetime',
    cookieRefresh: 'write edge: { oidc: { refresh: { before: … } } }',
    cookieSecure: 'write edge.oidc.session.secure',
    sessionStoreType: 'write edge.oidc.session.store',
    'redirectUrl|proxyPrefix': 'write edge.oidc.callbackPath',
    emailDomains: 'write edge.acl: { claims: … }, such as { hd: example.com } with Google',
    authenticatedEmailsFile: 'write edge.acl: { claims: { email: […] } }',
    'allowedGroups|allowedRoles|oidcGroupsClaim': 'write edge.acl: { roles: […], rolesClaim: groups }',
    userIdClaim: 'write edge.oidc.consumer',
    'passUserHeaders|setXauthrequest|injectRequestHeaders': 'write edge.oidc.forward: { email: x-forwarded-email }',
    'passAccessToken|passAuthorizationHeader': 'write edge.oidc.forwardAccessToken',
    'skipAuthRoutes|skipAuthRegex': 'write a route for these paths with edge: { oidc: false }',
    'skipJwtBearerTokens|extraJwtIssuers': 'write edge.jwt, and authentication: { require: any }',
    skipProviderButton: 'remove it: page loads are redirected at once'
  },
  innerAliases: {
    ca: 'write tls: { ca: FILE }',
    discovery: 'write issuer, without /.well-known/openid-configuration',
    'provider|oidcIssuerUrl|issuerUrl': 'write issuer',
    'redirectUri|redirectUrl|redirectPath|proxyPrefix': 'write callbackPath',
    logoutPath: 'write logout: { path }',
    'scope|oidcScope': 'write scopes',
    cookieSecret: 'write session: { secrets: [SECRET] }',
    cookieName: 'write session: { cookie: NAME }',
    cookieExpire: 'write session: { lifetime: 12h }',
    cookieRefresh: 'write refresh: { before: 1m }',
    cookieSecure: 'write session: { secure: … }',
    sessionStoreType: 'write session: { store: redis }, and redis: { url: … } at the top level',
    'emailDomains|authenticatedEmailsFile': 'write acl: { claims: … } beside it',
    'allowedGroups|allowedRoles|oidcGroupsClaim': 'write acl: { roles: […], rolesClaim: groups } beside it',
    userIdClaim: 'write consumer',
    'passUserHeaders|setXauthrequest|injectRequestHeaders': 'write forward: { email: x-forwarded-email }',
    'passAccessToken|passAuthorizationHeader': 'write forwardAccessToken',
    'skipAuthRoutes|skipAuthRegex': 'write a route for these paths with edge: { oidc: false }',
    upstreams: 'write services, and the service of a route'
  },
  check: checkOidc,
  complete(options, absolute) {
    const ca = options.tls?.ca
    return ca === undefined ? options : { ...options, tls: { ca: absolute(ca) } }
  },
  checkAll(checked) {
    checkParties(checked)
    checkGoodbyes(checked)
    checkSubjects('oidc', checked)
  },
  credentials: { schema: Subject, ids: (value) => [[idOf(value), '']] },
  // The provider is another program.
  isolate: () => false,
  ownPaths: ownPathsOf,
  explain: (options, { target }) =>
    ownPathsOf(options).includes(target.split('?', 1)[0]!)
      ? 'the gateway serves this path itself'
      : `page loads without a session are redirected to ${options.issuer} and return to ${options.callbackPath}; other requests get 401`,
  async plugin(fastify, context) {
    const { config } = context
    decorateUpstreamHeaders(fastify)
    let made: Logins | null = null
    const logins = (): Logins => {
      made ??= new (login().Logins)(fastify, context)
      return made
    }
    fastify.addHook('onReady', async () => made?.connect())
    const uses = ({ oidc }: EdgePolicy) => Boolean(oidc)
    if (uses(config.edge) || config.routes.some(({ edge }) => uses(edge))) {
      const { removeCookies } = logins()
      // Browsers send the cookies to all routes of the host, and a service could use them at another route.
      fastify.addHook('onRoute', (routeOptions) => {
        const route = edgeRouteOf(routeOptions.config)
        if (route !== undefined && !uses(route.edge)) attach(routeOptions, 'onRequest', removeCookies)
      })
    }
    return (options, routeOptions, shadow, refused) => logins().hooksOf(options, routeOptions, shadow, refused)
  }
})
