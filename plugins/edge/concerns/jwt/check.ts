/** The checks of `edge.jwt`. */
import type { KeyObject } from 'node:crypto'
import { createPublicKey } from 'node:crypto'
import { readFileSync } from 'node:fs'
import { checkUserinfo } from '../../../../config/checked.ts'
import type { Checked } from '../../../../config/concern.ts'
import { perRequestHeaders } from '../../../../config/declared.ts'
import { pointer } from '../../../../config/faults.ts'
import { canonicalName, isConnectionHeader, isGatewayHeader } from '../../../../config/header-names.ts'
import { publishedSecret } from '../../../../config/published-secret.ts'
import { checkSubjects } from '../../consumers/issuers.ts'
import { canShowCertificates } from '../../protocol/tls/client-rules.ts'
import { algorithmsOf, asymmetric, inWords, supportedKeys, symmetric } from './algorithms.ts'
import { isMetadataUrl, metadataAsKeySet } from './discovery.ts'
import type { JwtOptions, TokenSource } from './options.ts'
import { readsAuthorization } from './places.ts'

/** Returns whether a `publicKey` is the key itself rather than the name of its file. */
export const isPem = (text: string) => text.includes('-----BEGIN')

/** Checks the options with the routes on which they are in force. */
export function checkRoutes(checked: Checked): void {
  checkSubjects('jwt', checked)
  checkBinding(checked)
}

/** Reports routes that require bound tokens, but on which no listener can get a client certificate. */
function checkBinding({ data, report }: Checked): void {
  if (!report.usable('/routes') || !report.usable('/edge') || !report.sound('/listen')) return
  const listeners = data.listeners.filter(({ enabled }) => enabled)
  const reported = new Set<string>()
  data.routes.forEach((route, index) => {
    const at = pointer('/routes', index, 'edge')
    if (!report.usable(at) || !report.sound(pointer('/routes', index, 'match'))) return
    const place = `${route.edge?.jwt === undefined ? '/edge' : at}/jwt/boundTokens`
    const jwt = (route.edge?.jwt ?? data.edge.jwt) || null
    if (jwt?.boundTokens !== 'require' || reported.has(place) || !report.sound(place)) return
    if (canShowCertificates(route, listeners)) return
    reported.add(place)
    const what = `no listener requests client certificates for route ${route.name}, so all of its requests are refused`
    report.fault(place, `${what}; set clientCertificate: { mode: request, ca: FILE } under listen.tls`)
  })
}

/** Reports headers for the service that the gateway sets itself, or that occur twice. */
function checkForward(at: string, { forward = {}, forwardClaims }: JwtOptions, { data, keys, report }: Checked): void {
  const claims = new Map<string, string>()
  const taken = perRequestHeaders(
    keys.edge.filter(({ name }) => report.sound(`/edge/${name}`)),
    data.edge
  ).map(canonicalName)
  const places = report.usable(`${at}/forward`)
    ? Object.entries(forward).flatMap(([claim, headers]) =>
        !report.usable(pointer(at, 'forward', claim))
          ? []
          : typeof headers === 'string'
            ? [[claim, headers, pointer(at, 'forward', claim)] as const]
            : [...headers.entries()].map(
                ([index, header]) => [claim, header, pointer(at, 'forward', claim, index)] as const
              )
      )
    : []
  const all = `${at}/forwardClaims/header`
  if (forwardClaims !== undefined && report.usable(all)) places.push(['claims', forwardClaims.header, all])
  for (const [claim, header, place] of places) {
    if (!report.usable(place)) continue
    const name = canonicalName(header)
    const before = claims.get(name)
    if (isGatewayHeader(header)) {
      report.fault(
        place,
        `"${header}" is set by the gateway itself; choose another name, such as x-${claimName(claim)}`
      )
    } else if (taken.includes(name)) {
      report.fault(
        place,
        `"${header}" is set by the gateway for each request; choose another name, such as x-${claimName(claim)}`
      )
    } else if (before !== undefined) {
      report.fault(place, `"${header}" already carries the claim "${before}"`)
    } else claims.set(name, claim)
  }
}

function checkFrom(at: string, { header, query, cookie }: JwtOptions['from'], report: Checked['report']): void {
  if (header === false && query === undefined && cookie === undefined) {
    report.fault(at, 'has no place for the token: set header, query or cookie')
  } else if (header !== false && (isConnectionHeader(header) || /^cookie$/i.test(header))) {
    report.fault(`${at}/header`, `"${header}" has another meaning; choose another header, such as x-token`)
  }
}

const claimName = (claim: string) =>
  claim
    .toLowerCase()
    .replace(/[^a-z0-9]+/g, '-')
    .replace(/^-|-$/g, '')

export function checkJwt(jwt: JwtOptions, at: string, checked: Checked): void {
  const { report } = checked
  checkForward(at, jwt, checked)
  if (report.sound(`${at}/from`)) {
    checkFrom(`${at}/from`, jwt.from, report)
    if (jwt.keepAuthorization && readsAuthorization(jwt.from)) {
      const what = 'has no effect: only a verified token in Authorization reaches the service'
      report.warn(`${at}/keepAuthorization`, `${what}; set from: { header: NAME } for a token in another header`, 'key')
    }
  }
  if (jwt.issuers === undefined) {
    checkSource(jwt, at, true, checked)
    return
  }
  for (const key of ofSource) {
    if (jwt[key] !== undefined) report.fault(pointer(at, key), 'write it within the items of issuers', 'key')
  }
  if (!report.usable(`${at}/issuers`)) return
  const seen = new Set<string>()
  for (const [index, source] of jwt.issuers.entries()) {
    const place = pointer(at, 'issuers', index)
    if (!report.usable(place)) continue
    checkSource(source, place, false, checked)
    if (!report.usable(`${place}/issuer`)) continue
    if (seen.has(source.issuer)) report.fault(`${place}/issuer`, `"${source.issuer}" is listed twice`)
    seen.add(source.issuer)
  }
}

const ofSource = ['secret', 'publicKey', 'jwks', 'discovery', 'issuer', 'audience', 'algorithms'] as const

/** Checks the key of an issuer, and the algorithms that it is for. `isOnly`: the options have no `issuers`. */
function checkSource(source: TokenSource, at: string, isOnly: boolean, checked: Checked): void {
  const { report } = checked
  if (source.jwks !== undefined) {
    checkUserinfo(`${at}/jwks`, source.jwks, report)
    if (report.sound(`${at}/jwks`) && isMetadataUrl(source.jwks)) report.fault(`${at}/jwks`, metadataAsKeySet)
  }
  const kinds = (['secret', 'publicKey', 'jwks', 'discovery'] as const).filter((kind) => source[kind] !== undefined)
  const [kind, second] = kinds
  if (second !== undefined) {
    report.fault(pointer(at, second), `set exactly one of ${kinds.join(' and ')}`, 'key')
    return
  }
  if (kind === undefined) {
    const all = isOnly ? 'secret, publicKey, jwks, discovery and issuers' : 'secret, publicKey, jwks and discovery'
    if (!report.unknownKeyIn(at)) report.fault(at, `needs exactly one of ${all}`)
    return
  }
  if (kind === 'discovery') checkDiscovery(source, at, report)
  if (source.secret === publishedSecret && report.usable('/listen') && !checked.data.listeners.every(isLocal)) {
    report.fault(
      `${at}/secret`,
      'the secret of the examples is public: set another one, or let all listeners be on loopback'
    )
  }
  if (kind === 'secret' && report.usable(`${at}/secret`) && isPem(source.secret ?? '')) {
    // A public key used as a secret would let anyone sign tokens.
    report.fault(
      `${at}/secret`,
      'expected a shared secret, found a key in PEM form; put a public key under "publicKey"'
    )
  }
  const key = kind === 'publicKey' ? publicKey(`${at}/publicKey`, source.publicKey ?? '', checked) : undefined
  if (!report.usable(`${at}/algorithms`)) return
  const fitting = accepted(kind, key)
  source.algorithms?.forEach((algorithm, index) => {
    const place = pointer(at, 'algorithms', index)
    if (report.usable(place) && !fitting.includes(algorithm)) {
      // HS* with a public key as secret would let anyone sign tokens.
      const what = key === undefined ? kind : `a public key of type ${key.asymmetricKeyType}`
      report.fault(place, `${algorithm} cannot be used with ${what}; use ${inWords(fitting)}`)
    }
  })
}

function checkDiscovery({ discovery, issuer }: TokenSource, at: string, report: Checked['report']): void {
  if (!report.usable(`${at}/discovery`)) return
  if (typeof discovery === 'string') checkUserinfo(`${at}/discovery`, discovery, report)
  if (!report.usable(`${at}/issuer`)) return
  if (typeof issuer !== 'string') {
    const advice = issuer === undefined ? 'set issuer' : 'write each of them as an item of issuers'
    report.fault(`${at}/discovery`, `metadata are those of one issuer: ${advice}`)
  } else if (discovery === true && !(URL.canParse(issuer) && /^https?:\/\/[^?#]*$/i.test(issuer))) {
    report.fault(`${at}/discovery`, 'the issuer is no URL; write the URL of the metadata here')
  } else if (discovery === true && new URL(issuer).username + new URL(issuer).password !== '') {
    const what = 'an issuer has no user and password: these belong to the URL of the metadata'
    report.fault(`${at}/issuer`, `${what}; write it under discovery, in place of true`)
  }
}

const isLocal = ({ path, host }: { readonly path?: string | undefined; readonly host: string }) =>
  path !== undefined || /^(127\.\d+\.\d+\.\d+|::1|localhost)$/.test(host)

function accepted(kind: (typeof ofSource)[number], key: KeyObject | undefined): readonly string[] {
  if (kind === 'secret') return symmetric
  return key === undefined ? asymmetric : algorithmsOf(key)
}

function publicKey(at: string, text: string, { report, absolute }: Checked): KeyObject | undefined {
  if (!report.usable(at)) return
  let pem = text
  if (!isPem(text)) {
    try {
      pem = readFileSync(absolute(text), 'utf8')
    } catch {
      return void report.fault(at, `neither a PEM key nor a file that can be read: ${absolute(text)}`)
    }
  }
  // Node would derive the public key from it, and a secret would stay in the configuration.
  if (pem.includes('PRIVATE KEY-----')) return void report.fault(at, 'expected a public key, found a private key')
  try {
    const key = createPublicKey(pem)
    if (algorithmsOf(key).length > 0) return key
    report.fault(at, `this key cannot verify tokens; use ${supportedKeys}`)
  } catch {
    report.fault(at, 'not a public key in PEM form')
  }
}
