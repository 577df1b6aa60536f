/** Rules of `credentials` that its schema cannot express. */
import { checkFile, checkPem } from '../../../../config/checked.ts'
import type { Checked, Place } from '../../../../config/concern.ts'
import { pointer } from '../../../../config/faults.ts'
import { hopByHop } from '../../../http-syntax.ts'
import { checkOtherService } from '../../core/check-service.ts'
import type { CredentialsOptions, OAuth2Options } from './options.ts'
import { isFieldValue } from './secret.ts'
import { readSigningKey } from './signing-key.ts'

const kinds = ['oauth2', 'bearer', 'basic', 'header'] as const

/** Headers that frame or route the request. */
const unfit = new Set([...hopByHop, 'host', 'content-length', 'expect'])

/** Parameters of a request for a token, with the option that sets each. */
const ownParameters: Readonly<Record<string, string>> = {
  grant_type: 'it is client_credentials',
  client_id: 'write clientId',
  client_secret: 'write clientSecret',
  client_assertion: 'write privateKeyFile',
  client_assertion_type: 'write privateKeyFile',
  scope: 'write scopes',
  audience: 'write audience'
}

export function checkCredentials(options: CredentialsOptions, at: string, checked: Checked, place: Place): void {
  const { report } = checked
  const given = kinds.filter((kind) => options[kind] !== undefined)
  if (given.length !== 1) {
    const found = given.length === 0 ? 'none of them' : given.join(' and ')
    if (!report.unknownKeyIn(at)) report.fault(at, `needs exactly one of ${kinds.join(', ')}; this has ${found}`)
    return
  }
  const [kind] = given
  const inner = `${at}/${kind}`
  if (!report.usable(inner)) return
  if (kind === 'oauth2') checkOAuth2(options.oauth2!, inner, checked, place)
  else if (kind === 'bearer') checkSecret(options.bearer!, inner, ['token', 'tokenFile'], checked)
  else if (kind === 'basic') checkSecret(options.basic!, inner, ['password', 'passwordFile'], checked)
  else {
    checkSecret(options.header!, inner, ['secret', 'secretFile'], checked)
    const name = `${inner}/name`
    if (report.sound(name) && unfit.has(options.header!.name.toLowerCase())) {
      report.fault(name, `"${options.header!.name}" is set by the gateway itself`)
    }
  }
}

/** Checks that a secret is given once, by its value or a file. */
function checkSecret(options: object, at: string, keys: readonly string[], checked: Checked): void {
  const { report } = checked
  const given = keys.filter((key) => Reflect.get(options, key) !== undefined)
  if (given.length !== 1) {
    const found = given.length === 0 ? 'none' : given.join(' and ')
    if (!report.unknownKeyIn(at) && report.sound(at))
      report.fault(at, `needs exactly one of ${keys.join(', ')}; found ${found}`)
    return
  }
  const [key = ''] = given
  const value: string = Reflect.get(options, key)
  const place = `${at}/${key}`
  if (key === 'privateKeyFile') checkKey(options as OAuth2Options, at, checked)
  else if (key.endsWith('File')) checkFile(place, value, checked)
  else if ((key === 'token' || key === 'secret') && report.sound(place) && !isFieldValue(value)) {
    report.fault(
      place,
      'has characters that a header cannot have: line breaks, control characters, or others than ASCII'
    )
  }
}

function checkKey({ privateKeyFile, algorithm }: OAuth2Options, at: string, checked: Checked): void {
  const place = `${at}/privateKeyFile`
  checkFile(place, privateKeyFile, checked)
  if (!checked.report.sound(place) || !checked.report.sound(`${at}/algorithm`)) return
  try {
    readSigningKey(checked.absolute(privateKeyFile!), algorithm)
  } catch (error) {
    checked.report.fault(place, (error as Error).message)
  }
}

function checkOAuth2(options: OAuth2Options, at: string, checked: Checked, { service: own }: Place): void {
  const { report } = checked
  const { url, service, clientAuth, privateKeyFile, parameters = {} } = options
  checkSecret(options, at, ['clientSecret', 'clientSecretFile', 'privateKeyFile'], checked)
  if (privateKeyFile !== undefined && clientAuth !== undefined) {
    report.fault(`${at}/clientAuth`, 'with privateKeyFile there is no secret to send', 'key')
  }
  if (privateKeyFile === undefined) {
    for (const key of ['keyId', 'algorithm', 'issuer'] as const) {
      if (options[key] !== undefined) report.fault(`${at}/${key}`, 'only with privateKeyFile', 'key')
    }
  }
  if (report.usable(`${at}/parameters`)) {
    for (const name of Object.keys(parameters)) {
      const advice = Object.hasOwn(ownParameters, name) ? ownParameters[name] : undefined
      if (advice !== undefined) report.fault(pointer(at, 'parameters', name), `is set by the gateway: ${advice}`, 'key')
    }
  }
  if (url !== undefined && service !== undefined) report.fault(`${at}/service`, 'set either url or service', 'key')
  else if (service !== undefined) checkTokenService(options, at, own, checked)
  else if (url !== undefined) checkUrl(options, at, checked)
  else if (!report.unknownKeyIn(at)) report.fault(at, 'needs url or service, the token endpoint')
}

function checkUrl({ url, path, ca }: OAuth2Options, at: string, checked: Checked): void {
  const { report } = checked
  if (path !== undefined) report.fault(`${at}/path`, 'belongs to service; write the path in url', 'key')
  checkPem(at, 'ca', ca, checked)
  if (!report.sound(`${at}/url`)) return
  const { protocol, hostname, username, password } = new URL(url!)
  if (username !== '' || password !== '') report.fault(`${at}/url`, 'credentials in this URL are not sent; remove them')
  else if (protocol === 'http:' && !isLocal(hostname)) {
    report.warn(`${at}/url`, 'secrets and tokens are sent without encryption: use https')
  }
}

const isLocal = (host: string) => host === 'localhost' || host === '[::1]' || /^127\./.test(host)

/** Checks a service with a token endpoint, which must need no token itself. */
function checkTokenService(options: OAuth2Options, at: string, own: string | null, checked: Checked): void {
  const { data, report } = checked
  const { ca, privateKeyFile, issuer } = options
  const name = options.service!
  const place = `${at}/service`
  if (privateKeyFile !== undefined && issuer === undefined) {
    report.fault(
      at,
      'with service and privateKeyFile, set issuer: the server does not know the name of the service here'
    )
  }
  if (ca !== undefined)
    report.fault(`${at}/ca`, 'belongs to url; for a service write mesh.tls.ca of the service', 'key')
  if (!report.sound(place)) return
  checkOtherService(place, name, own, checked)
  if (!report.sound(place) || !report.usable(pointer('/services', name, 'mesh'))) return
  const credentials = data.services[name]?.mesh?.credentials
  if (credentials && credentials.oauth2 !== undefined) {
    report.fault(
      place,
      `${name} needs a token itself (services.${name}.mesh.credentials); tokens cannot depend on tokens`
    )
  }
}
