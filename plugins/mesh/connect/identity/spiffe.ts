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

/** Null for anything else, such as the id of a gateway or an agent. */
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

export interface Target {
  readonly service: string
  readonly namespace: string
  /** Unset parts are not known yet, so nobody can match them. */
  readonly trustDomain: string | null
  /** Any of them. */
  readonly datacenters: readonly (string | null)[]
}

/** The peer speaks for the service that is called. By SPIFFE a certificate has one URI; with two it says nothing. */
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
