/**
 * The part of the seam by which services reach a listener through the mesh: the mesh has the certificate and decides on
 * callers, the edge terminates their connections. Types only: nothing here runs.
 */

/** Certificate that a listener presents to callers in the mesh, in PEM. A renewed certificate is another object. */
export interface InboundCredentials {
  /** SPIFFE id of the certificate. */
  readonly id: string
  readonly cert: string
  readonly key: string
  /** All authorities that sign the certificates of callers. */
  readonly ca: string
}

/** A service that calls through the mesh, as its verified certificate names it. */
export interface MeshCaller {
  /** SPIFFE id. */
  readonly id: string
  readonly service: string
}

/** Decision whether a caller may call; `unknown` while the rules have not been read since the start. */
export type Admission = 'allowed' | 'denied' | 'unknown'

/** One service of the mesh as which this process accepts calls. It outlives a configuration. */
export interface Inbound {
  /** Newest credentials; null before the first: then no handshake can succeed. */
  readonly credentials: InboundCredentials | null
  /** Calls back with each change of the credentials. Returns a function that ends this. */
  onChange(hear: () => void): () => void
  /**
   * Returns the caller that a certificate's subjectAltName names; null unless it is a service of the trust domain whose
   * names are plain.
   */
  callerOf(subjectAltName: string | undefined): MeshCaller | null
  /** Returns the current decision for a caller that `callerOf` returned. Cheap enough for each request. */
  admit(caller: MeshCaller): Admission
}

/** State of an `Inbound` for the admin API and health checks. */
export interface InboundStatus {
  readonly listener: string
  readonly service: string
  readonly spiffeId: string | null
  /** Time at which the certificate expires, in seconds since 1970. */
  readonly expiresAt: number | null
  readonly validFrom: number | null
  /** Reason why there is no certificate, or no newer one. */
  readonly error: string | null
  /** Reason why the rules for callers are unknown, or not the newest. */
  readonly rulesError: string | null
  /** Rules for callers, the governing one first. */
  readonly rules: readonly { readonly source: string; readonly admission: Admission }[]
  /** Decision for callers without a rule. */
  readonly otherwise: Admission
}

/** The listeners of one configuration that services reach through the mesh. */
export interface InboundListeners {
  /** Returns null for a listener without `connect`. */
  of(listener: string): Inbound | null
  status(): InboundStatus[]
  /** Resolves when each of them has credentials and rules. */
  ready(): Promise<void>
}
