import { checkPem } from '../../../../config/checked.ts'
import type { Checked } from '../../../../config/concern.ts'
import { pointer } from '../../../../config/faults.ts'
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
  if (!session.secure) {
    report.warn(`${at}/session/secure`, 'the cookies are sent over plain HTTP, where anyone on the way can read them')
  }
  checkServiceHeaders(Object.entries(forward), `${at}/forward`, checked)
}

/** Reports routes that would overwrite each other's sessions, as they share a cookie but not its secrets or its client. */
export function checkParties({ data, report }: Checked): void {
  if (!report.usable('/routes') || !report.usable('/edge')) return
  const seen = new Map<string, { readonly text: string; readonly at: string }>()
  const look = (oidc: OidcOptions | false | undefined, at: string): void => {
    if (!oidc || !report.sound(at)) return
    const { issuer, clientId, clientSecret, session } = oidc
    const text = JSON.stringify([issuer, clientId, clientSecret, session])
    const name = cookieName(oidc)
    const other = seen.get(name)
    if (other === undefined) seen.set(name, { text, at })
    else if (other.text !== text) {
      const what = `uses the same cookie as ${report.where(other.at)}, with another client or other settings of "session"`
      report.fault(at, `${what}; make them equal, or set session.cookie here`)
    }
  }
  look(data.edge.oidc, '/edge/oidc')
  data.routes.forEach((route, index) => {
    if (report.usable(pointer('/routes', index))) look(route?.edge?.oidc, `${pointer('/routes', index)}/edge/oidc`)
  })
}
