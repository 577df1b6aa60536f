/**
 * Identity of the gateway in Consul Connect: its leaf certificate and the roots that it trusts, both watched. A change
 * of either creates new credentials for new connections; while Consul is unavailable, the last ones stay in use.
 */

import { asError } from '../../../thrown.ts'
import type { MeshDeps } from '../../core/types.ts'
import type { Get } from '../../discovery/consul-get.ts'
import type { ConsulOptions } from '../../discovery/consul-options.ts'
import { messageOf } from '../../discovery/loop.ts'
import type { CredentialSource, Credentials, Pem } from '../credentials.ts'
import { credentialsOf } from '../credentials.ts'
import { parseSpiffe } from './spiffe.ts'
import { Watch } from './watch.ts'

interface Leaf {
  readonly cert: string
  readonly key: string
  readonly uri: string
}
interface Roots {
  readonly ca: string
  readonly trustDomain: string
}

export class ConnectIdentity implements CredentialSource {
  credentials: Credentials | null = null
  /** Trust domain of the roots; null until they are known. */
  trustDomain: string | null = null
  /** Certificate, key and roots from which the credentials were made. */
  pem: Required<Pick<Pem, 'ca' | 'cert' | 'key'>> | null = null
  /** Datacenter of the agent, from the leaf certificate. */
  datacenter: string | null = null
  #uri: string | null = null
  #leaf: Leaf | null = null
  #roots: Roots | null = null
  readonly #errors = new Map<string, string>()
  readonly #name: string
  readonly #deps: MeshDeps
  readonly #onSwap: (outcome: 'success' | 'failure') => void
  readonly #watches: readonly Watch[]
  #waiting: (() => void)[] = []
  readonly #hearers = new Set<() => void>()

  constructor(
    name: string,
    get: Get,
    consul: ConsulOptions,
    deps: MeshDeps,
    onSwap: (outcome: 'success' | 'failure') => void
  ) {
    this.#name = name
    this.#deps = deps
    this.#onSwap = onSwap
    const watch = (what: string, path: string, permission: string, take: (body: unknown) => void) =>
      new Watch(
        {
          path,
          permission,
          every: 10_000,
          take: (body) => {
            take(body)
            this.#renew()
            this.#succeeded(what)
          },
          failed: (error) => this.#failed(what, error)
        },
        get,
        consul,
        deps
      )
    this.#watches = [
      watch(
        'leaf certificate',
        `/agent/connect/ca/leaf/${encodeURIComponent(name)}`,
        `the token needs service:write on ${name}`,
        (body) => {
          this.#leaf = leafOf(body)
        }
      ),
      watch('roots', '/agent/connect/ca/roots', 'the token needs to be valid', (body) => {
        this.#roots = rootsOf(body)
      })
    ]
  }

  start(): void {
    for (const watch of this.#watches) watch.start()
  }

  /** Calls back once there are credentials; at once if there are. */
  whenReady(then: () => void): void {
    if (this.credentials !== null) then()
    else this.#waiting.push(then)
  }

  /** Calls back with each change of the credentials. Returns a function that ends this. */
  onChange(hear: () => void): () => void {
    this.#hearers.add(hear)
    return () => void this.#hearers.delete(hear)
  }

  /** SPIFFE id of the leaf certificate in use; null before the first. */
  get id(): string | null {
    return this.#uri
  }

  /** Reason why there are no credentials, or no newer ones; null without an error. */
  get error(): string | null {
    const [first] = this.#errors.values()
    return first ?? (this.credentials === null ? 'Consul has not responded yet' : null)
  }

  status(): object {
    return { spiffeId: this.#uri, error: this.error }
  }

  #renew(): void {
    const [leaf, roots] = [this.#leaf, this.#roots]
    if (leaf === null || roots === null) return
    // Intermediates that Consul lists for a rotated root are not needed: peers send theirs.
    const pem = { ca: roots.ca, cert: leaf.cert, key: leaf.key }
    this.credentials = credentialsOf(pem)
    this.pem = pem
    this.trustDomain = roots.trustDomain
    this.datacenter = parseSpiffe(leaf.uri)?.datacenter ?? null
    this.#uri = leaf.uri
    const { expiresAt } = this.credentials
    const until = new Date((expiresAt ?? 0) * 1000).toISOString()
    this.#deps.log.info({ identity: leaf.uri, until }, 'Consul Connect credentials renewed; new connections use them')
    this.#onSwap('success')
    for (const then of this.#waiting.splice(0)) then()
    for (const hear of this.#hearers) hear()
  }

  #succeeded(what: string): void {
    if (!this.#errors.delete(what)) return
    this.#deps.log.info({ identity: this.#name }, `Consul Connect: ${what} available again`)
  }

  #failed(what: string, error: unknown): void {
    if (!this.#errors.has(what)) {
      const consequence =
        this.credentials === null
          ? 'services have no instances and listeners refuse handshakes until then'
          : 'the last ones stay in use'
      const message = `Consul Connect: ${what} unavailable; ${consequence}`
      this.#deps.log.error({ identity: this.#name, err: asError(error) }, message)
      this.#onSwap('failure')
    }
    this.#errors.set(what, messageOf(error))
  }

  async close(): Promise<void> {
    this.#waiting = []
    this.#hearers.clear()
    await Promise.all(this.#watches.map((watch) => watch.close()))
  }
}

function leafOf(body: unknown): Leaf {
  const { CertPEM: cert, PrivateKeyPEM: key, ServiceURI: uri } = body as Record<string, unknown>
  if (typeof cert !== 'string' || typeof key !== 'string' || typeof uri !== 'string') {
    throw new TypeError("Consul's response is not a leaf certificate")
  }
  return { cert, key, uri }
}

/** Returns all roots: after a rotation, services have certificates of the old root until theirs are renewed. */
function rootsOf(body: unknown): Roots {
  const { TrustDomain: trustDomain, Roots: listed } = body as Record<string, unknown>
  const certs = Array.isArray(listed) ? listed.map((root: { RootCert?: unknown }) => root.RootCert) : []
  const given = certs.filter((cert) => typeof cert === 'string' && cert !== '')
  if (typeof trustDomain !== 'string' || trustDomain === '' || given.length === 0) {
    throw new TypeError("Consul's response is not a list of root certificates")
  }
  return { ca: given.join('\n'), trustDomain }
}
