/** SPIFFE ids as Consul Connect writes them: `spiffe://<trust domain>/ns/<namespace>/dc/<datacenter>/svc/<service>`. */

import { alternativeNames } from '../../../alternative-names.ts'
import type { Identify } from '../names.ts'
import { mismatch } from '../names.ts'

export interface SpiffeId {
  readonly trustDomain: string
  readonly namespace: string
  readonly datacenter: string
  readonly service: string
}

/** Parses a SPIFFE id; null for any other text, such as the id of a gateway or an agent. */
export function parseSpiffe(text: string): SpiffeId | null {
  const [, host, ...path] =
    /^spiffe:\/\/([^/?#@:\s]+)\/ns\/([^/?#\s]+)\/dc\/([^/?#\s]+)\/svc\/([^/?#\s]+)$/.exec(text) ?? []
  if (host === undefined) return null
  try {
    const [namespace = '', datacenter = '', service = ''] = path.map(decodeURIComponent)
    return { trustDomain: host.toLowerCase(), namespace, datacenter, service }
  } catch {
    return null
  }
}

/** Characters of names in Consul. Others, such as separators and controls, would be ambiguous in logs and in headers. */
const nameInConsul = /^[\p{L}\p{M}\p{N}_.~:@+ -]+$/u

/** Returns whether an id has only names that services, namespaces and datacenters can have in Consul, and is plain ASCII. */
export const hasPlainNames = (text: string, { namespace, datacenter, service }: SpiffeId): boolean =>
  /^[!-~]+$/.test(text) && [namespace, datacenter, service].every((name) => nameInConsul.test(name))

export interface Target {
  readonly service: string
  readonly namespace: string
  /** Trust domain; null if not known yet, so that no certificate matches. */
  readonly trustDomain: string | null
  /** Accepted datacenters. */
  readonly datacenters: readonly (string | null)[]
}

/** Returns a verification that the certificate is that of the service. It must have one URI, as SPIFFE requires. */
export function speaksFor(name: string, target: () => Target): Identify {
  return (_host, { subjectaltname }) => {
    const { service, namespace, trustDomain, datacenters } = target()
    const { URI: uris = [] } = alternativeNames(subjectaltname)
    const id = uris.length === 1 ? parseSpiffe(uris[0]!) : null
    const right =
      id !== null &&
      id.service === service &&
      id.namespace === namespace &&
      id.trustDomain === trustDomain?.toLowerCase() &&
      datacenters.includes(id.datacenter)
    if (right) return undefined
    const wanted = datacenters.map((dc) => `spiffe://${trustDomain}/ns/${namespace}/dc/${dc}/svc/${service}`)
    return mismatch(name, wanted, subjectaltname)
  }
}
