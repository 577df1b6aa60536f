/** TLS of KrakenD: toward clients, and toward its backends. */
import type { Draft } from './draft.ts'
import type { Foreign } from './foreign.ts'
import type { Settings } from './yaml-text.ts'

/** Writes `listen.tls` for the `tls` of the service component. */
export function tlsOf(tls: Foreign | undefined, draft: Draft): void {
  if (tls === undefined) return
  const pairs = [tls, ...tls.maps('keys')].flatMap((each) => {
    const [cert, key] = [each.text('public_key'), each.text('private_key')]
    return cert === undefined || key === undefined ? [] : [{ cert, key }]
  })
  const isOff = tls.flag('disabled') === true
  const authorities = tls.texts('ca_certs')
  const version = { TLS12: 'TLSv1.2', TLS13: 'TLSv1.3' }[tls.text('min_version') ?? '']
  const isMutual = tls.flag('enable_mtls') === true
  if (tls.has('cipher_suites')) draft.note(null, `${tls.where}.cipher_suites: write listen.tls.ciphers`)
  tls.skip(...tls.keys)
  if (isOff) return
  const [first, ...others] = pairs
  draft.listen.http2 = true
  draft.listen.tls = {
    ...first,
    ...(others.length > 0 && { certificates: others }),
    ...(version !== undefined && { minVersion: version }),
    ...(isMutual && { clientCertificate: { mode: 'require', ca: authorities[0] ?? '' } })
  }
  if (isMutual && authorities.length !== 1)
    draft.undecided(draft.listen, `${tls.where}.ca_certs: write them into one file`)
}

/** `client_tls`: certificates of backends, and those of the gateway. */
export function clientTlsOf(config: Foreign | undefined, draft: Draft): void {
  if (config === undefined) return
  const [authority, ...others] = config.texts('ca_certs')
  const [pair] = config.maps('client_certs')
  const [cert, key] = [pair?.text('certificate'), pair?.text('private_key')]
  const minVersion = { TLS12: 'TLSv1.2', TLS13: 'TLSv1.3' }[config.text('min_version') ?? '']
  if (config.flag('allow_insecure_connections') === true)
    draft.undecided(null, 'client_tls.allow_insecure_connections: certificates are always verified; write mesh.tls.ca')
  if (others.length > 0) draft.note(null, 'client_tls.ca_certs: write all authorities into one file')
  config.skip(...config.keys)
  const tls: Settings = {
    ...(authority !== undefined && { ca: authority }),
    ...(cert !== undefined && key !== undefined && { cert, key }),
    ...(minVersion !== undefined && { minVersion })
  }
  if (Object.keys(tls).length > 0) draft.mesh.tls = tls
}
