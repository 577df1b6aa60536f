/** The checks of the edge's concerns, wherever they are set. */
import type { KeyObject } from 'node:crypto'
import { createPublicKey } from 'node:crypto'
import { readFileSync } from 'node:fs'
import type { Checked } from './checked.ts'
import { isPem } from './complete.ts'
import { namesIncludeIssuer } from './consumers.ts'
import { pointer } from './faults.ts'
import { canonicalName, isGatewayHeader, isStandardHeader } from './header-names.ts'
import { originFault } from './origins.ts'
import { publishedSecret } from './published-secret.ts'
import type { CorsOptions, EdgePolicy, JwtOptions, RateLimitOptions } from './schema.ts'

export function checkEdge(checked: Checked): void {
  const { data, report } = checked
  checkConcerns('/edge', data.edge, checked)
  checkRequestId(checked)
  if (!report.usable('/routes')) return
  data.routes.forEach((route, index) => {
    const at = pointer('/routes', index)
    if (!report.usable(at)) return
    checkConcerns(`${at}/edge`, route.edge, checked)
    checkConsumer(`${at}/edge`, index, checked)
  })
  checkConsumerNames(checked)
}

/** Splits that name consumers as they are never called. */
function checkConsumerNames({ data, report }: Checked): void {
  if (!report.usable('/edge') || !report.sound('/edge/jwt')) return
  const jwtOf = (index: number): JwtOptions | false => {
    const at = pointer('/routes', index, 'edge')
    if (!report.usable(at) || !report.sound(`${at}/jwt`)) return false
    return data.routes[index]?.edge?.jwt ?? data.edge.jwt ?? false
  }
  if (!namesIncludeIssuer(data.routes.flatMap((_, index) => jwtOf(index) || []))) return
  data.routes.forEach(({ split }, index) => {
    const at = pointer('/routes', index, 'split')
    const jwt = report.sound(at) && jwtOf(index)
    if (!jwt) return
    const [issuer = 'ISSUER'] = [jwt.issuer ?? []].flat()
    split?.forEach(({ match }, share) => {
      match?.consumers?.forEach((name, place) => {
        if (name.includes('|')) return
        const what = `tokens of several issuers are accepted, so consumers are named ISSUER|SUB: "${issuer}|${name}"`
        report.fault(pointer(at, share, 'match', 'consumers', place), what)
      })
    })
  })
}

function checkConcerns(at: string, edge: EdgePolicy | undefined, checked: Checked): void {
  if (edge === undefined || !checked.report.usable(at)) return
  const { jwt, cors, rateLimit } = edge
  if (jwt && checked.report.usable(`${at}/jwt`)) checkJwt(`${at}/jwt`, jwt, checked)
  if (cors && checked.report.sound(`${at}/cors`)) checkCors(`${at}/cors`, cors, checked)
  if (rateLimit && checked.report.sound(`${at}/rateLimit`)) checkRateLimit(`${at}/rateLimit`, rateLimit, checked)
}

function checkCors(at: string, cors: CorsOptions, { report }: Checked): void {
  const any = [cors.origin].flat().includes('*')
  if (cors.credentials && any) {
    report.fault(`${at}/credentials`, 'browsers refuse credentials for origin "*"; list the origins')
  }
  const single = typeof cors.origin === 'string'
  for (const [index, origin] of [cors.origin].flat().entries()) {
    const fault = originFault(origin)
    if (fault !== null) report.fault(single ? `${at}/origin` : pointer(at, 'origin', index), fault)
  }
}

function checkRequestId({ data, report }: Checked): void {
  const at = '/edge/requestId/header'
  if (!report.usable(at)) return
  const { header } = data.edge.requestId
  if (isStandardHeader(header)) report.fault(at, `"${header}" has another meaning and cannot carry an id`)
}

/** Headers for the service: none that the gateway sets itself, and each once. */
function checkForward(at: string, forward: Readonly<Record<string, string>>, { data, report }: Checked): void {
  const claims = new Map<string, string>()
  const id = report.usable('/edge/requestId/header') ? canonicalName(data.edge.requestId.header) : null
  for (const [claim, header] of Object.entries(forward)) {
    const place = pointer(at, claim)
    if (!report.usable(place)) continue
    const name = canonicalName(header)
    const before = claims.get(name)
    if (isGatewayHeader(header)) {
      report.fault(
        place,
        `"${header}" is set by the gateway itself; choose another name, such as x-${claimName(claim)}`
      )
    } else if (name === id) {
      report.fault(place, `"${header}" carries the request id (edge.requestId.header)`)
    } else if (before !== undefined) {
      report.fault(place, `"${header}" already carries the claim "${before}"`)
    } else claims.set(name, claim)
  }
}

const claimName = (claim: string) =>
  claim
    .toLowerCase()
    .replace(/[^a-z0-9]+/g, '-')
    .replace(/^-|-$/g, '')

function checkRateLimit(at: string, { by, maxPerAddress, store }: RateLimitOptions, { data, report }: Checked): void {
  const byHeader = by !== 'ip' && by !== 'consumer'
  if (byHeader && maxPerAddress === undefined) {
    const what = `a client that changes this header with each request has no limit; set maxPerAddress beside it`
    report.warn(`${at}/by`, what)
  } else if (!byHeader && maxPerAddress !== undefined) {
    report.fault(`${at}/maxPerAddress`, `only a limit by: header:NAME needs it; this one is by: ${by}`, 'key')
  }
  if (byHeader && canonicalName(by.slice('header:'.length)) === 'cookie') {
    report.fault(`${at}/by`, 'a cookie header holds all cookies in any order: no two need be the same for one client')
  }
  if (store === 'redis' && data.redis === undefined) {
    report.fault(`${at}/store`, "redis is asked for, but the top level's redis is not set")
  }
}

/** Counting by consumer needs something that says who the consumer is. */
function checkConsumer(at: string, index: number, { data, report }: Checked): void {
  const edge = data.routes[index]?.edge
  const [own, top] = [edge?.rateLimit, data.edge?.rateLimit]
  const places = [`${at}/rateLimit`, `${at}/jwt`, '/edge/rateLimit', '/edge/jwt']
  if (!places.every((place) => report.sound(place)) || report.unknownKeyIn(at)) return
  const limit = own ?? top
  if (!limit) return
  if (limit.by !== 'consumer' || (edge?.jwt ?? data.edge?.jwt)) return
  if (!report.sound('/plugins') || data.plugins.some(({ provides }) => provides?.includes('consumer'))) return
  const from = own === undefined ? ' (inherited)' : ''
  report.fault(
    `${at}/rateLimit/by`,
    `consumer${from}: without jwt the route doesn't know its consumers; a plugin that sets them says so by provides: [consumer]`
  )
}

function checkJwt(at: string, jwt: JwtOptions, checked: Checked): void {
  const { report } = checked
  if (jwt.forward !== undefined && report.usable(`${at}/forward`)) checkForward(`${at}/forward`, jwt.forward, checked)
  const kinds = (['secret', 'publicKey', 'jwks'] as const).filter((kind) => jwt[kind] !== undefined)
  const [kind, second] = kinds
  if (second !== undefined) {
    report.fault(pointer(at, second), `a token has one key; exactly one of ${kinds.join(' and ')} may be set`, 'key')
    return
  }
  if (kind === undefined) {
    if (!report.unknownKeyIn(at)) report.fault(at, 'needs exactly one of secret, publicKey and jwks')
    return
  }
  if (jwt.secret === publishedSecret && report.usable('/listen') && !isLoopback(checked.data.listen.host)) {
    report.fault(`${at}/secret`, 'the secret of the examples, which is public: only a gateway on loopback may use it')
  }
  if (kind === 'secret' && report.usable(`${at}/secret`) && isPem(jwt.secret ?? '')) {
    // Whoever has a public key could sign with it.
    report.fault(`${at}/secret`, 'a key in PEM form; a public one belongs under "publicKey"')
  }
  const key = kind === 'publicKey' ? publicKey(`${at}/publicKey`, jwt.publicKey ?? '', checked) : undefined
  if (!report.usable(`${at}/algorithms`)) return
  jwt.algorithms?.forEach((algorithm, index) => {
    const place = pointer(at, 'algorithms', index)
    if (report.usable(place) && !fits(algorithm, kind, key)) {
      // With a public key as its secret, anyone could sign.
      const what = key === undefined ? kind : `a public key of type ${key.asymmetricKeyType}`
      report.fault(place, `${algorithm} doesn't go with ${what}; ${advice(kind, key)} does`)
    }
  })
}

const isLoopback = (host: string) => /^(127\.\d+\.\d+\.\d+|::1|localhost)$/.test(host)

const families: Readonly<Record<string, readonly string[]>> = {
  rsa: ['RS', 'PS'],
  'rsa-pss': ['PS'],
  ec: ['ES'],
  ed25519: ['Ed'],
  ed448: ['Ed']
}

function accepted(kind: 'secret' | 'publicKey' | 'jwks', key: KeyObject | undefined): readonly string[] {
  if (kind === 'secret') return ['HS']
  return families[key?.asymmetricKeyType ?? ''] ?? ['RS', 'PS', 'ES', 'Ed']
}

const fits = (algorithm: string, kind: 'secret' | 'publicKey' | 'jwks', key: KeyObject | undefined) =>
  accepted(kind, key).includes(algorithm.slice(0, 2))

const advice = (kind: 'secret' | 'publicKey' | 'jwks', key: KeyObject | undefined) =>
  accepted(kind, key)
    .map((family) => (family === 'Ed' ? 'EdDSA' : `${family}*`))
    .join(' or ')

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
  // Node would derive the public key from it, and leave a secret where none should be.
  if (pem.includes('PRIVATE KEY-----')) return void report.fault(at, 'a private key; only the public one belongs here')
  try {
    return createPublicKey(pem)
  } catch {
    report.fault(at, 'not a public key in PEM form')
  }
}
