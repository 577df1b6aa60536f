import { clientCert } from '../../../../config/header-names.ts'
import { hostKey, MAX_NAME, patternKey } from '../../../../config/host-name.ts'
import type { ClientCertificateOptions, TlsOptions } from '../../../../config/schema/tls.ts'
import type { Config, Listen } from '../../../../config/schema.ts'
import type { ShownRoute } from '../../concern.ts'

/** Rule for the client certificates of a host. */
export interface ClientRule {
  /** Id of the combination of mode and authorities file, stable across configurations. */
  readonly id: string
  readonly mode: 'require' | 'request' | 'none'
  /** File of the authorities that sign the certificates; null if there is none. */
  readonly file: string | null
  /** Content of the file, in PEM. */
  readonly ca: string | null
}

/** A host or wildcard with its rule, for the admin port. */
export interface HostRule extends Pick<ClientRule, 'mode'> {
  readonly host: string
  /** File of the authorities. */
  readonly ca: string | null
}

/** Options of a listener that define the rules. */
type ClientOptions = Pick<TlsOptions, 'ca' | 'clientCertificate' | 'hosts'>

/** Returns the listener's file with the authorities of clients; undefined if there is none. */
const listenerCa = ({ ca, clientCertificate }: ClientOptions) => ca ?? clientCertificate?.ca

/** Returns the files of authorities that the rules of a listener need. */
export function authorityFiles(tls: ClientOptions): string[] {
  const files = [listenerCa(tls), ...tls.hosts.map(({ clientCertificate }) => clientCertificate.ca)]
  return [...new Set(files.filter((file) => file !== undefined))]
}

/** Rules for client certificates by host. A wildcard covers all hosts below it, as in `match.hosts` of routes. */
export class ClientRules {
  /** Rule of all other hosts, and of connections without a server name. */
  readonly fallback: ClientRule
  /** True if any host asks for certificates. */
  readonly ask: boolean
  /** True if hosts have different rules. */
  readonly differ: boolean
  readonly #exact = new Map<string, ClientRule>()
  readonly #wildcards = new Map<string, ClientRule>()
  /** Rules of all configured names, by `patternKey`. */
  readonly #patterns = new Map<string, ClientRule>()

  /** `readCa` returns the content of a file. */
  constructor(tls: ClientOptions, readCa: (file: string) => string) {
    const rules = new Map<string, ClientRule>()
    const ca = listenerCa(tls)
    const ruleOf = ({ mode, ca: own = ca }: ClientCertificateOptions): ClientRule => {
      const file = mode === 'none' ? undefined : own
      const id = `${mode} ${file ?? ''}`
      const rule = rules.get(id) ?? { id, mode, file: file ?? null, ca: file === undefined ? null : readCa(file) }
      rules.set(id, rule)
      return rule
    }
    this.fallback = ruleOf(tls.clientCertificate ?? { mode: ca === undefined ? 'none' : 'require' })
    for (const { names, clientCertificate } of tls.hosts) {
      const rule = ruleOf(clientCertificate)
      for (const name of names) {
        const key = patternKey(name)
        if (key === null) continue
        this.#patterns.set(key, rule)
        if (key.startsWith('*.')) this.#wildcards.set(key.slice(2), rule)
        else this.#exact.set(key, rule)
      }
    }
    this.ask = [...rules.values()].some(({ mode }) => mode !== 'none')
    this.differ = rules.size > 1
  }

  /** Returns the rule of a host, given as a server name or a value of Host. */
  of(host: string): ClientRule {
    if (!this.differ) return this.fallback
    const key = hostKey(host)
    const exact = this.#exact.get(key)
    if (exact !== undefined || this.#wildcards.size === 0 || key.length > MAX_NAME) return exact ?? this.fallback
    for (let dot = key.indexOf('.'); dot !== -1; dot = key.indexOf('.', dot + 1)) {
      const rule = this.#wildcards.get(key.slice(dot + 1))
      if (rule !== undefined) return rule
    }
    return this.fallback
  }

  /** Hosts and wildcards with a rule of their own. */
  get hosts(): string[] {
    return [...this.#patterns.keys()]
  }

  /** Returns the rules of these hosts and of configured hosts below their wildcards; empty if no host asks for certificates. */
  among(hosts: readonly string[]): HostRule[] {
    if (!this.ask) return []
    const found = new Map<string, ClientRule>()
    for (const host of hosts) {
      found.set(host, this.of(host))
      if (!host.startsWith('*.')) continue
      for (const [key, rule] of this.#patterns) if (key.endsWith(host.slice(1))) found.set(key, rule)
    }
    return [...found].map(([host, { mode, file }]) => ({ host, mode, ca: file }))
  }
}

/** Returns whether a listener takes client certificates from the header of a trusted proxy. */
export const believesHeader = ({ trustProxy, trustHeaders }: Pick<Listen, 'trustProxy' | 'trustHeaders'>): boolean =>
  trustProxy.length > 0 && trustHeaders.includes(clientCert)

/** Returns whether requests to a route can have a client certificate, on any of its listeners. */
export function canShowCertificates(route: Pick<ShownRoute, 'match'>, listeners: readonly Listen[]): boolean {
  const names = route.match?.listeners
  const own = listeners.filter(({ name }) => names === undefined || names.includes(name))
  return own.some((each) => each.connect !== undefined || believesHeader(each)) || asksForCertificates(route, own)
}

const known = new WeakMap<TlsOptions, ClientRules>()

/** Returns the rules of a listener, without the content of files. */
function rulesOf(tls: TlsOptions): ClientRules {
  const rules = known.get(tls) ?? new ClientRules(tls, () => '')
  known.set(tls, rules)
  return rules
}

/** Returns whether a listener of the route asks for client certificates for any of the route's hosts. */
export function asksForCertificates(
  { match = {} }: Pick<ShownRoute, 'match'>,
  listeners: Config['listeners']
): boolean {
  const { hosts, listeners: names } = match
  return listeners.some(({ name, tls }) => {
    if (tls === undefined || (names !== undefined && !names.includes(name))) return false
    const rules = rulesOf(tls)
    if (hosts === undefined) return rules.ask
    return rules.among(hosts.map((host) => patternKey(host) ?? host)).some(({ mode }) => mode !== 'none')
  })
}
