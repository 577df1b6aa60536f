import { checkPem } from '../../../../config/checked.ts'
import type { Checked } from '../../../../config/concern.ts'
import { pointer } from '../../../../config/faults.ts'
import { hostsOverlap, patternKey } from '../../../../config/host-name.ts'
import type { RouteMatch } from '../../../../config/schema.ts'
import { checkServiceHeaders } from '../../bridge/check-auth-server.ts'
import { cookieName } from './cookie-name.ts'
import type { OidcOptions } from './options.ts'

/** Parameters of the authorization request that the gateway sets. */
const ownParams = new Set([
  'response_type', 'response_mode', 'scope', 'redirect_uri', 'state', 'nonce', 'code_challenge', 'code_challenge_method',
  'client_id', 'request', 'request_uri', 'max_age'
]) // biome-ignore format: a list

/** Bytes of a header section besides the session. */
const otherHeaders = 2048

export function checkOidc(options: OidcOptions, at: string, checked: Checked): void {
  const { data, report } = checked
  const { issuer, session, callbackPath, loginPath, logout, authorizationParams = {}, forward = {}, tls } = options
  if (report.usable(`${at}/tls`)) checkPem(`${at}/tls`, 'ca', tls?.ca, checked)
  if (!report.sound(at)) return
  if (/[?#]/.test(issuer)) report.fault(`${at}/issuer`, 'an issuer has no query and no fragment')
  else if (new URL(issuer).username + new URL(issuer).password !== '')
    report.fault(`${at}/issuer`, 'an issuer has no user and password; remove them')
  if (tls?.ca !== undefined && issuer.startsWith('http:'))
    report.warn(`${at}/tls/ca`, 'no effect: the issuer is not https')
  if (session.store === 'redis' && data.redis === undefined) {
    report.fault(`${at}/session/store`, 'needs the top-level "redis", which is not set')
  }
  if (session.store === 'cookie' && report.sound('/listen')) {
    const least = Math.min(...data.listeners.map(({ limits }) => limits.headers))
    if (session.maxSize + otherHeaders > least) {
      const what = `a request with such a session is larger than listen.limits.headers (${least} bytes), and gets 431`
      report.warn(`${at}/session/maxSize`, `${what}; lower it, raise that limit, or use store: redis`)
    }
  }
  if (session.idleTimeout > session.lifetime) {
    report.fault(`${at}/session/idleTimeout`, 'is longer than lifetime, which ends the session first')
  }
  for (const name of Object.keys(authorizationParams)) {
    if (ownParams.has(name))
      report.fault(pointer(at, 'authorizationParams', name), 'the gateway sets this parameter', 'key')
  }
  const paths = [callbackPath, ...(loginPath === undefined ? [] : [loginPath]), ...(logout ? [logout.path] : [])]
  const backchannel = logout ? logout.backchannelPath : undefined
  if (backchannel !== undefined) {
    paths.push(backchannel)
    if (session.store !== 'redis') {
      report.fault(
        `${at}/logout/backchannelPath`,
        'needs session: { store: redis }: a provider cannot delete cookies',
        'key'
      )
    }
  }
  const twice = paths.find((path, index) => paths.indexOf(path) !== index)
  if (twice !== undefined) report.fault(at, `the paths of callback, login and logout must differ: ${twice}`)
  if (options.keepAuthorization && options.forwardAccessToken) {
    report.warn(`${at}/keepAuthorization`, 'has no effect: forwardAccessToken replaces Authorization', 'key')
  }
  if (!session.secure) {
    report.warn(`${at}/session/secure`, 'the cookies are sent over plain HTTP, where anyone on the way can read them')
  }
  checkServiceHeaders(Object.entries(forward), `${at}/forward`, checked)
}

/** Settings that make sessions interchangeable: those of a route are used on all routes with equal ones. */
const textOf = ({ issuer, clientId, clientSecret, session, scopes, userinfo, authorizationParams }: OidcOptions) =>
  JSON.stringify([issuer, clientId, clientSecret, session, scopes, userinfo, authorizationParams])

interface Party {
  readonly text: string
  readonly at: string
}

/** A path that the gateway serves for a client, and the routes whose logins use it. */
interface OwnPath extends Party {
  readonly hosts: readonly string[] | undefined
  readonly listeners: readonly string[] | undefined
}

/** Returns whether one request can reach both routes, apart from their paths. */
const canMeet = (a: OwnPath, b: OwnPath): boolean =>
  haveCommon(a.hosts, b.hosts, (one, other) => hostsOverlap(patternKey(one) ?? one, patternKey(other) ?? other)) &&
  haveCommon(a.listeners, b.listeners, (one, other) => one === other)

const haveCommon = (
  a: readonly string[] | undefined,
  b: readonly string[] | undefined,
  areEqual: (one: string, other: string) => boolean
) => a === undefined || b === undefined || a.some((one) => b.some((other) => areEqual(one, other)))

/** Reports routes of different clients that would overwrite each other's sessions, or get each other's callbacks. */
export function checkParties({ data, report }: Checked): void {
  if (!report.usable('/routes') || !report.usable('/edge')) return
  const cookies = new Map<string, Party>()
  const paths = new Map<string, OwnPath[]>()
  const reported = new Set<string>()
  const look = (oidc: OidcOptions, at: string, { hosts, listeners }: Pick<RouteMatch, 'hosts' | 'listeners'>): void => {
    const text = textOf(oidc)
    const name = cookieName(oidc)
    const other = cookies.get(name)
    if (other === undefined) cookies.set(name, { text, at })
    else if (other.text !== text && !reported.has(at)) {
      reported.add(at)
      const differs = 'with another client, or other settings of "session", scopes, userinfo or authorizationParams'
      const what = `uses the same cookie as ${report.where(other.at)}, ${differs}`
      report.fault(at, `${what}; make them equal, or set session.cookie, callbackPath and logout.path here`)
    }
    const { callbackPath, loginPath, logout } = oidc
    const own = { callbackPath, loginPath, 'logout/path': logout ? logout.path : undefined }
    for (const [key, path] of Object.entries(own)) {
      if (path === undefined) continue
      const before = paths.get(path) ?? []
      paths.set(path, before)
      const party = { text, at, hosts, listeners }
      const taken = before.find((each) => each.text !== text && canMeet(each, party))
      const place = `${at}/${key}`
      if (taken !== undefined && !reported.has(at) && !reported.has(place)) {
        reported.add(place)
        const what = `"${path}" is also a path of another client, ${report.where(taken.at)}, on the same host`
        report.fault(place, `${what}; set another one here`)
      }
      const isKnown = before.some((each) => each.text === text && each.hosts === hosts && each.listeners === listeners)
      if (!isKnown) before.push(party)
    }
  }
  data.routes.forEach((route, index) => {
    const place = pointer('/routes', index)
    if (!report.usable(place) || !report.sound(`${place}/match`)) return
    const own = route.edge?.oidc
    const at = own === undefined ? '/edge/oidc' : `${place}/edge/oidc`
    const oidc = own ?? data.edge.oidc
    if (oidc && report.usable(`${place}/edge`) && report.sound(at)) look(oidc, at, route.match)
  })
}
