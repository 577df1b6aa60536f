import { isIP } from 'node:net'
import type { MeshPolicy } from '../../../config/schema.ts'
import { buildConnector } from '../../undici.ts'
import { ConnectionError, isLocal } from '../core/errors.ts'
import type { MeshDeps } from '../core/types.ts'
import { connectError } from '../http/connection-errors.ts'
import { ObservedConnect } from '../http/diagnostics.ts'
import type { Open } from '../http/pool.ts'
import type { CredentialSource } from './credentials.ts'
import type { Identify } from './names.ts'

type Connecting = Pick<MeshDeps, 'log' | 'stalledMs' | 'noteExhausted'>

const codeOf = (error: (Error & { code?: string }) | null) => error?.code

/** Most untrusted origins of a service that are remembered, so that each change is logged once. */
const mostUntrusted = 1000

/** TLS of a service's connections that differs from Node's defaults. */
export interface Security {
  readonly source: CredentialSource
  /** Returns the SNI, which without `identify` is also the expected name; undefined: the instance's host name. */
  readonly serverName?: (() => string | undefined) | undefined
  /** Verifies the peer's certificate, in place of a check by host name. */
  readonly identify?: Identify | undefined
  /** Requires TLS, and credentials of the gateway. */
  readonly always: boolean
}

/**
 * Opens connections to a service's instances. New connections use the newest credentials; existing ones stay open. TLS
 * sessions are never resumed: resumption skips the verification of name and chain, so a session would outlive the
 * authority that it was verified with. Connections are reused, so full handshakes cost little.
 */
export class ServiceConnector {
  readonly #service: string
  readonly #timeout: number
  readonly #security: Security | null
  readonly #deps: Connecting
  /** Origins whose certificate could not be verified at the last attempt. */
  readonly #untrusted = new Set<string>()

  constructor(service: string, { connectTimeout }: MeshPolicy, security: Security | null, deps: Connecting) {
    this.#service = service
    this.#timeout = connectTimeout
    this.#security = security
    this.#deps = deps
  }

  to(origin: string): Open {
    const { protocol, hostname, host, port } = new URL(origin)
    const bare = hostname.replace(/^\[|\]$/g, '')
    const secure = protocol === 'https:'
    const own = isIP(bare) === 0 ? bare : undefined
    const security = this.#security
    const common = { timeout: this.#timeout, allowH2: false, maxCachedSessions: 0 }
    return (callback, onread) => {
      const credentials = security?.source.credentials ?? null
      if (security?.always && (!secure || credentials === null)) {
        const why = secure ? 'the gateway has no client certificate yet' : 'the instance does not offer TLS'
        const error = new ConnectionError('JW_UPSTREAM_UNTRUSTED', new Error(`${this.#service}: ${why}`))
        queueMicrotask(() => callback(error, null))
        return undefined
      }
      const connect = buildConnector({
        ...common,
        ...(onread && { onread }),
        // Explicit, so that NODE_TLS_REJECT_UNAUTHORIZED cannot disable verification.
        rejectUnauthorized: true,
        ...(credentials !== null && { secureContext: credentials.context }),
        ...(security?.identify && { checkServerIdentity: security.identify })
      })
      // The expected name is the instance's, not that of the Host header, which clients set.
      const servername = (secure && security?.serverName?.()) || own
      const address = { protocol, hostname: bare, host, port, servername }
      const observing = ObservedConnect.begin({ ...address, servername: servername ?? null }, connect)
      const { stalledMs, noteExhausted } = this.#deps
      const stalledBeforeMs = stalledMs?.() ?? 0
      // The types lack the returned socket.
      const socket = connect(address as never, (failure, connected) => {
        const blockedMs = (stalledMs?.() ?? 0) - stalledBeforeMs
        const error = failure === null ? null : connectError(failure, socket, blockedMs >= this.#timeout / 2)
        if (error instanceof ConnectionError && isLocal(error.code)) noteExhausted?.(error.code, codeOf(failure))
        else if (secure) this.#note(origin, error)
        observing?.ended(failure, connected)
        callback(error, connected)
      }) as unknown as ReturnType<Open>
      return socket
    }
  }

  /** Logs once that a certificate cannot be verified, and once that it can be again. */
  #note(instance: string, error: Error | null): void {
    const service = this.#service
    if (error === null) {
      if (this.#untrusted.delete(instance))
        this.#deps.log.info({ service, instance }, `certificate of ${instance} of ${service} verified`)
    } else if (
      error instanceof ConnectionError &&
      error.code === 'JW_UPSTREAM_UNTRUSTED' &&
      !this.#untrusted.has(instance)
    ) {
      // Bounds the set: instances come and go.
      if (this.#untrusted.size >= mostUntrusted) this.#untrusted.clear()
      this.#untrusted.add(instance)
      const err = error.cause as Error & { code?: string }
      const fields = { service, instance, cause: err.code ?? null, err }
      this.#deps.log.error(
        fields,
        `certificate of ${instance} of ${service} cannot be verified; calls to it fail with JW_UPSTREAM_UNTRUSTED`
      )
    }
  }
}
