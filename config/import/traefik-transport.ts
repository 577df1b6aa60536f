/** Connections of Traefik to its services (`serversTransport`), as policies of the mesh. */
import type { Draft } from './draft.ts'
import { goDuration, goMs } from './durations.ts'
import type { Foreign } from './foreign.ts'
import { member } from './foreign.ts'
import type { Settings } from './yaml-text.ts'

/** Versions of TLS in Traefik's words. The oldest one here is 1.2. */
export const tlsVersions: Readonly<Record<string, string>> = {
  VersionTLS10: 'TLSv1.2',
  VersionTLS11: 'TLSv1.2',
  VersionTLS12: 'TLSv1.2',
  VersionTLS13: 'TLSv1.3'
}

/** Returns the policies of a transport. `about` has them: a service, or null for all services. */
export function transportOf(transport: Foreign, name: string, about: Settings | null, draft: Draft): Settings {
  const note = (text: string) => draft.note(about, `serversTransport ${name}: ${text}`)
  const undecided = (text: string) => draft.undecided(about, `serversTransport ${name}: ${text}`)
  const authorities = transport.texts('rootCAs')
  const [pair, ...otherPairs] = transport.maps('certificates')
  const [serverName, uri] = [transport.text('serverName'), transport.text('peerCertURI')]
  const sans = transport.maps('peerCertSANs').flatMap((each) => each.text('value') ?? [])
  const spiffe = transport.map('spiffe')
  const san = [...(uri === undefined ? [] : [uri]), ...sans, ...(spiffe?.texts('ids') ?? [])]
  const version = member(tlsVersions, transport.text('minVersion') ?? '')
  if (spiffe?.has('trustDomain')) undecided(`spiffe.trustDomain ${spiffe.text('trustDomain')}: write mesh.tls.san`)
  if (transport.flag('insecureSkipVerify') === true)
    undecided(
      'insecureSkipVerify: certificates are always verified; write mesh.tls.ca with the certificate of the service'
    )
  const [cert, key] = [pair?.text('certFile') ?? '', pair?.text('keyFile') ?? '']
  const isInline = [cert, key].some((each) => each.includes('-----BEGIN'))
  if (isInline || otherPairs.length > 0)
    note('certificates: write one pair of files, as mesh.tls.cert and mesh.tls.key')
  for (const each of otherPairs) each.skip(...each.keys)
  const tls: Settings = {
    ...(authorities.length > 0 && { ca: authorityOf(authorities, name, note, draft) }),
    ...(pair !== undefined && !isInline && { cert, key }),
    ...(serverName !== undefined && { serverName }),
    ...(san.length > 0 && { san }),
    ...(version !== undefined && { minVersion: version })
  }
  const timeouts = transport.map('forwardingTimeouts')
  const timing = (key: string) => {
    const text = timeouts?.text(key)
    return text === undefined || goMs(text) === 0 ? undefined : goDuration(text)
  }
  const [dial, response, idle] = [timing('dialTimeout'), timing('responseHeaderTimeout'), timing('idleConnTimeout')]
  timeouts?.skip('readIdleTimeout', 'pingTimeout', 'writeTimeout', 'readTimeout')
  const most = transport.number('maxIdleConnsPerHost') ?? 0
  if (most > 0 && about !== null)
    draft.comment(
      about,
      `maxIdleConnsPerHost ${most}: idle connections are kept for connections.idle, whatever their number`
    )
  transport.skip('disableHTTP2')
  return {
    ...(Object.keys(tls).length > 0 && { tls }),
    ...(dial !== undefined && { connectTimeout: dial }),
    ...(response !== undefined && { timeout: response }),
    ...(most < 0 ? { connections: { idle: 0 } } : idle !== undefined && { connections: { idle } })
  }
}

/** Returns the file with the authorities, which Traefik has as files or as their content. */
function authorityOf(authorities: readonly string[], name: string, note: (text: string) => void, draft: Draft): string {
  const isContent = (text: string) => text.includes('-----BEGIN')
  if (authorities.every(isContent)) return draft.file(name, '-ca.pem', `${authorities.join('\n').trimEnd()}\n`)
  if (authorities.length > 1) note(`rootCAs ${authorities.length}: write all authorities into one file`)
  return authorities.find((each) => !isContent(each))!
}
