/** A service of the mesh as which this process accepts calls: its identity, and the intentions for its callers. */
import { alternativeNames } from '../../alternative-names.ts'
import type { Admission, Inbound, InboundCredentials, InboundStatus } from '../../seam-inbound.ts'
import type { Callers } from './identity/callers.ts'
import { Caller } from './identity/callers.ts'
import type { ConnectIdentity } from './identity/connect.ts'
import { hasPlainNames, parseSpiffe } from './identity/spiffe.ts'

export class InboundService implements Inbound {
  readonly service: string
  readonly #identity: ConnectIdentity
  readonly #callers: Callers
  readonly #end: () => Promise<void>
  #credentials: InboundCredentials | null = null

  /** `end` releases the identity and the intentions, which others may share. */
  constructor(service: string, identity: ConnectIdentity, callers: Callers, end: () => Promise<void>) {
    this.service = service
    this.#identity = identity
    this.#callers = callers
    this.#end = end
  }

  get credentials(): InboundCredentials | null {
    const { pem, id } = this.#identity
    if (pem === null || id === null) return null
    if (this.#credentials?.cert !== pem.cert || this.#credentials.ca !== pem.ca) this.#credentials = { id, ...pem }
    return this.#credentials
  }

  onChange(hear: () => void): () => void {
    return this.#identity.onChange(hear)
  }

  callerOf(subjectAltName: string | undefined): Caller | null {
    const { URI: uris = [] } = alternativeNames(subjectAltName)
    const [id] = uris
    // SPIFFE requires exactly one URI.
    const spiffe = uris.length === 1 ? parseSpiffe(id!) : null
    if (spiffe === null || spiffe.trustDomain !== this.#identity.trustDomain?.toLowerCase()) return null
    if (!hasPlainNames(id!, spiffe)) return null
    return new Caller(id!, spiffe)
  }

  admit(caller: Caller): Admission {
    return this.#callers.admit(caller)
  }

  /** Resolves when there are credentials and the intentions are known. */
  async ready(): Promise<void> {
    const { promise: identified, resolve: identify } = Promise.withResolvers<void>()
    const { promise: ruled, resolve: rule } = Promise.withResolvers<void>()
    this.#identity.whenReady(identify)
    this.#callers.whenReady(rule)
    await Promise.all([identified, ruled])
  }

  status(): Omit<InboundStatus, 'listener'> {
    const { id, credentials, error } = this.#identity
    const { expiresAt = null, validFrom = null } = credentials ?? {}
    return { service: this.service, spiffeId: id, expiresAt, validFrom, error, ...this.#callers.status() }
  }

  close(): Promise<void> {
    return this.#end()
  }
}
